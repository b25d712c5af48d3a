"""Connectors that are only a source, or only a sink."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from streamline.connectors.registry import find_stream_connector
from streamline.connectors.stream_connector import Side
from streamline.errors import ConfigError
from tests.connectors.sinks import context, where

SIDES: tuple[Side, ...] = get_args(Side)


@pytest.mark.parametrize(
    ("name", "only"),
    [
        ("duckdb", "destination"),
        ("files", "source"),
        ("postgres", "destination"),
        ("stdin", "source"),
        ("stdout", "destination"),
    ],
)
def test_the_other_side_is_refused(name: str, only: Side, tmp_path: Path) -> None:
    connector = find_stream_connector(name)
    assert connector is not None
    (other,) = set(SIDES) - {only}
    about = context(tmp_path)
    attempts = [lambda: connector.check(other, {}, about, where)]
    if other == "source":
        attempts.append(lambda: connector.describe_source({}, about, where))
        attempts.append(lambda: connector.open_source({}, about, where))
    else:
        attempts.append(lambda: connector.describe_sink({}, about, where))
        attempts.append(lambda: connector.open_sink({"b": {}}, about, {"b": where}))
    for attempt in attempts:
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert caught.value.code == "connector.wrong_side"
    assert "connector_type" in connector.template(only, "p", "b")


def test_where_a_tap_or_target_has_the_name_it_is_what_add_writes() -> None:
    for name, other in (("files", "destination"), ("duckdb", "source"), ("postgres", "source")):
        connector = find_stream_connector(name)
        assert connector is not None
        assert connector.template(other, "p", "b") == ""
    stdin = find_stream_connector("stdin")
    assert stdin is not None
    with pytest.raises(ConfigError) as caught:
        stdin.template("destination", "p", "b")
    assert caught.value.code == "connector.wrong_side"
