"""Which streams a destination has, of a tap whose state has no `bookmarks`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.selection import SelectedStream
from streamline.execution.integration.flat_state import FlatStart, sink_and_stream, stream_key
from streamline.execution.integration.plan import SourcePlan

CATALOG = Catalog({"streams": [{"tap_stream_id": f"shop-{name}", "stream": name} for name in ("orders", "users")]})
KNOWN = {"export": "x", stream_key("export", "shop-orders"): "x"}


def source(*selected: str, catalog: Catalog | None = CATALOG) -> SourcePlan:
    streams = [stream(f"shop-{name}") for name in selected]
    return cast(SourcePlan, SimpleNamespace(catalog=catalog, selected=streams))


def stream(id: str, method: str = "INCREMENTAL") -> SelectedStream:
    return SelectedStream(id=id, stream=id.removeprefix("shop-"), replication_method=method)


@pytest.mark.parametrize(
    ("text", "covered"),
    [
        (b'{"shop-orders": "2024-01-01", "shop-users": "2024-01-01"}', False),
        (b'{"orders": "2024-01-01", "users": "2024-01-01"}', False),
        # The tap reads a stream from its start of which the state says nothing.
        (b'{"shop-orders": "2024-01-01"}', True),
        (b'{"orders": "2024-01-01"}', True),
        # Of all streams at once: the tap would go on where the other stream stands.
        (b'{"lsn": 7}', False),
        (b'"2024-01-01"', False),
    ],
)
def test_a_stream_that_was_not_loaded_is_covered_only_if_the_tap_begins_it(text: bytes, covered: bool) -> None:
    start = FlatStart(text, KNOWN)
    assert start.covers(source("orders", "users"), "export", stream("shop-users")) is covered
    assert start.covers(source("orders", "users"), "export", stream("shop-orders"))
    assert start.covers(source("orders", "users"), "export", stream("shop-users", "FULL_TABLE"))


def test_a_state_of_before_this_was_recorded_or_of_another_destination_covers_all_streams() -> None:
    text = b'{"lsn": 7}'
    assert FlatStart(text, {"export": "x"}).covers(source("orders"), "export", stream("shop-users"))
    assert FlatStart(text, KNOWN).covers(source("orders"), "other", stream("shop-users"))


def test_without_a_catalog_or_its_entry_nothing_is_assumed() -> None:
    start = FlatStart(b'{"shop-orders": 1}', KNOWN)
    assert not start.covers(source(catalog=None), "export", stream("shop-users"))
    assert not start.covers(source(), "export", stream("shop-unknown"))


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (b'{"orders": 1, "users": 1}', b'{"orders": 1, "users": 2}', True),
        (b'{"orders": 1, "users": 1}', b'{"orders": 2, "users": 2}', False),
        (b'{"lsn": 1}', b'{"lsn": 2}', False),
        (b'{"lsn": 1}', b'{"lsn": 1}', True),
    ],
)
def test_a_stream_that_is_no_longer_selected_stays_covered_until_its_state_moves(
    before: bytes, after: bytes, kept: bool
) -> None:
    key = stream_key("export", "shop-orders")
    unmoved = FlatStart(before, KNOWN).unmoved(source("users"), after)
    assert unmoved == ({key: "x"} if kept else {})
    assert FlatStart(before, KNOWN).unmoved(source("orders", "users"), after) == {}
    assert FlatStart(before, KNOWN).unmoved(source(catalog=None), after) == {}


def test_keys_name_destination_and_stream() -> None:
    assert sink_and_stream(stream_key("export", "a")) == ("export", "a")
    assert sink_and_stream("export") == ("export", "")
