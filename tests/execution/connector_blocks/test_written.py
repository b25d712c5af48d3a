"""After which rows of stored outputs another attempt of a destination goes on."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.execution.connector_blocks.plans import Written
from tests.execution.integration.plans import sink, source, stream

USERS, ORDERS = stream("users", None), stream("orders", None)


def begun(written: Written, **values: Any) -> dict[str, bytes]:
    """Begin an attempt at a destination with these settings; return where it starts."""
    written.begin(sink(source(USERS, ORDERS), **values))
    return written.start("load")


def test_it_goes_on_after_what_was_proven() -> None:
    written = Written()
    assert begun(written) == {}
    written.rows["load"] = {"users": "10000"}
    assert begun(written) == {"users": b"10000"}
    assert written.start("another") == {}


@pytest.mark.parametrize(
    "values", [{"config": {"path": "elsewhere"}}, {"streams": {"users": {"destination_table": "t"}}}]
)
def test_what_was_written_elsewhere_does_not_count(values: Any) -> None:
    written = Written()
    begun(written)
    written.rows["load"] = {"users": "10000"}
    assert begun(written, **values) == {}


def test_what_is_replaced_is_written_from_its_first_row() -> None:
    written = Written()
    replaced: Any = {"names": ["activate-version"], "streams": {"users": {"load_method": "replace"}, "*": {}}}
    begun(written, **replaced)
    written.rows["load"] = {"users": "10000", "orders": "5"}
    assert begun(written, **replaced) == {"orders": b"5"}
    overwritten: Any = {"config": {"load_method": "overwrite"}}
    begun(written, **overwritten)
    written.rows["load"] = {"orders": "5"}
    assert begun(written, **overwritten) == {}
