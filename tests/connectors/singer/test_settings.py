"""Settings of streams at a source and at a destination, as users write them."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.connectors.singer.settings import (
    Side,
    check_destination_names,
    parse_streams,
    resolve,
    resolve_destination,
)
from tests.support.failures import refuses


def read(side: Side, key: str, value: object) -> Any:
    (entry,) = parse_streams({"a": {key: value}}, side).entries
    return entry.settings[key]


@pytest.mark.parametrize(
    ("side", "key", "value", "kept"),
    [
        ("source", "replication_method", "full table", "FULL_TABLE"),
        ("source", "bookmark_properties", "id", ["id"]),
        ("source", "unique_constraints", [], []),
        ("source", "columns", {"exclude": "note"}, {"exclude": ["note"]}),
        ("source", "selected", "default", "default"),
        ("source", "selected", False, False),
        ("source", "schema", {"x": {"type": "string"}}, {"properties": {"x": {"type": "string"}}}),
        ("source", "schema", {"properties": {"x": {}}}, {"properties": {"x": {}}}),
        ("destination", "max_bad_records", 0, 0),
        ("destination", "unique_conflict_method", "ignore", "IGNORE"),
        ("destination", "load_method", "Append", "append"),
        ("destination", "destination_table", "sales", "sales"),
    ],
)
def test_a_value_is_read_in_its_own_type(side: Side, key: str, value: object, kept: object) -> None:
    assert read(side, key, value) == kept


@pytest.mark.parametrize(
    ("side", "key", "value"),
    [
        ("source", "bookmark_properties", []),
        ("source", "bookmark_properties", ["id", ""]),
        ("source", "unique_constraints", ["id", "id"]),
        ("source", "columns", {"exclude": ["a"], "include": ["b"]}),
        ("source", "selected", "yes"),
        ("source", "schema", {}),
        ("destination", "selected", "default"),
        ("destination", "max_bad_records", -1),
        ("destination", "max_bad_records", True),
        ("destination", "load_method", "merge"),
        ("destination", "destination_table", " "),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(side: Side, key: str, value: object) -> None:
    with refuses("setting.invalid", key):
        read(side, key, value)


def test_a_setting_of_the_other_side_is_named_as_such() -> None:
    with refuses("setting.unknown", "setting of the destination block"):
        read("source", "destination_table", "x")
    with refuses("setting.unknown", "setting of the source block"):
        read("destination", "replication_method", "x")
    with refuses("setting.unknown", "replication_method") as caught:
        read("source", "replication_metod", "x")
    assert "block" not in (caught.value.hint or "")


def test_a_destination_exports_what_it_lists() -> None:
    def exported(streams: object) -> list[str]:
        given = parse_streams(streams, "destination")
        return [name for name in ("a", "b") if resolve_destination(given, [name, f"{name}-id"]) is not None]

    assert exported(None) == ["a", "b"]
    assert exported(["a"]) == exported(["a-id"]) == exported({"a": None}) == ["a"]
    assert exported({"a": False}) == ["b"]
    assert exported({"*": None, "a": False}) == ["b"]
    assert exported({"a": {"selected": True}}) == ["a"]


def test_an_exact_name_beats_a_glob_even_if_it_looks_like_one() -> None:
    streams = parse_streams({"a[1]": {"load_method": "append"}, "a*": {"load_method": "upsert"}}, "destination")
    assert resolve(streams, ["a[1]"]).get("load_method") == "append"
    assert resolve(streams, ["a1"]).get("load_method") == "upsert"
    assert resolve(streams, ["a1"]).where("columns") is None
    assert not resolve(streams, ["b"]).listed


def test_a_destination_names_streams_that_reach_it() -> None:
    known = [["orders", "public-orders"], ["users"]]
    check_destination_names(parse_streams(["orders", "public-orders", "x*"], "destination"), known)
    with refuses("stream.unknown", "'user'", "users"):
        check_destination_names(parse_streams(["user"], "destination"), known)
