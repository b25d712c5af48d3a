from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from streamline.connectors.singer.settings import parse_streams, resolve_destination
from streamline.connectors.singer.stages.destination import DestinationStage
from streamline.connectors.singer.stages.stream_plan import StreamPlan, check_tables, plan_stream
from streamline.errors import StreamlineError
from streamline.flow.codecs.envelope import records
from streamline.flow.items import ActivateVersion, ArrowBatch, BadRecord, FileBatch, RawBatch, RowBatch, Schema
from tests.connectors.singer.stages import position, raw, run, schema, tell
from tests.support.failures import fails, refuses

ORDER = {"id": 1, "total": 9, "note": "x"}


def plans(streams: dict[str, Any] | list[str] | None, **known: Any) -> Callable[[str], StreamPlan | None]:
    """Plans of a destination block whose `streams:` is this."""
    given = parse_streams(streams, "destination", where=lambda path: f"export.yaml:{len(path)}")

    def plan_of(stream: str) -> StreamPlan | None:
        settings = resolve_destination(given, [stream])
        if settings is None:
            return None
        return plan_stream(stream, settings, **{"target": "target-x", "replaces": False, **known})

    return plan_of


def plan(settings: dict[str, Any], **known: Any) -> StreamPlan:
    found = plans({"orders": settings}, **known)("orders")
    assert found is not None
    return found


def stage(streams: dict[str, Any] | list[str] | None, **known: Any) -> DestinationStage:
    return DestinationStage(plans(streams, **known), target="target-x")


def told_schema(item: object) -> dict[str, Any]:
    assert isinstance(item, Schema)
    assert item.raw is None
    return item.schema


def test_without_settings_every_item_stays_the_same_object() -> None:
    items = [schema("orders", "id", id="integer"), raw("orders", ORDER), ActivateVersion("orders", 1), position(1)]
    assert [a is b for a, b in zip(run(stage(None, key_properties=["id"]), items), items, strict=True)] == [True] * 4


def test_a_renamed_stream_keeps_its_records_bytes() -> None:
    odd = rb'{"id": 1 , "n":NaN,"big":123456789012345678901234567890}'
    batch = RawBatch("orders", [b'{"type":"RECORD","stream":"orders","record":' + odd + b"}\n"], 1, 0)
    renamed = stage({"orders": {"destination_table": "sales"}})
    out = run(
        renamed, [schema("orders", id="integer"), batch, RowBatch("orders", [ORDER]), ActivateVersion("orders", 3)]
    )
    assert [getattr(item, "stream", None) for item in out] == ["sales"] * 4
    assert isinstance(out[1], RawBatch)
    assert list(records(out[1])) == [odd]


def test_files_of_records_are_renamed() -> None:
    item = FileBatch(
        "orders", "sdk", ["f"], "jsonl", None, None, b'{"type":"BATCH","stream":"orders","manifest":["f"]}'
    )
    (out,) = run(stage({"orders": {"destination_table": "sales"}}), [item])
    assert isinstance(out, FileBatch)
    assert out.raw == b'{"type":"BATCH","stream":"sales","manifest":["f"]}\n'


@pytest.mark.parametrize("columns", [["id", "total"], {"exclude": ["note"]}])
def test_columns_are_dropped_in_every_lane(columns: Any) -> None:
    items = [
        schema("orders", "id", id="integer", total="integer", note="string"),
        raw("orders", ORDER, {"id": 2}, version=4),
        RowBatch("orders", [ORDER]),
        ArrowBatch("orders", pa.Table.from_pylist([ORDER]), 4),
    ]
    dropping = stage({"orders": {"columns": columns}}, key_properties=["id"])
    out = run(dropping, items)
    assert tell(out[:3]) == [
        "SCHEMA orders id,total key id",
        ("orders", [{"id": 1, "total": 9}, {"id": 2}], 4),
        ("orders", [{"id": 1, "total": 9}]),
    ]
    assert isinstance(out[3], ArrowBatch)
    assert (out[3].table.to_pylist(), out[3].version) == ([{"id": 1, "total": 9}], 4)


def test_every_lane_gets_the_column_that_names_the_source() -> None:
    items = [
        schema("orders", "id", id="integer"),
        raw("orders", {"id": 1}, version=4),
        RowBatch("orders", [{"id": 1}]),
        ArrowBatch("orders", pa.Table.from_pylist([{"id": 1}]), 4),
    ]
    out = run(DestinationStage(lambda stream: StreamPlan(source="north")), items)
    named = {"id": 1, "streamline_source": "north"}
    assert tell(out[:3]) == [
        "SCHEMA orders id,streamline_source key id,streamline_source",
        ("orders", [named], 4),
        ("orders", [named]),
    ]
    assert isinstance(out[3], ArrowBatch)
    assert out[3].table.to_pylist() == [named]
    with pytest.raises(StreamlineError) as raised:
        run(DestinationStage(lambda stream: StreamPlan(source="north")), [schema("orders", streamline_source="string")])
    assert raised.value.code == "destination.settings_conflict"


def test_the_columns_that_stay_keep_their_bytes_and_required_loses_the_dropped() -> None:
    odd = rb'{"note":"x","id": 1.50,"n":NaN}'
    item = schema("orders", id="integer", note="string")
    item.schema["required"] = ["id", "note"]
    batch = RawBatch("orders", [b'{"type":"RECORD","stream":"orders","record":' + odd + b"}\n"], 1, 0)
    out = run(stage({"orders": {"columns": {"exclude": ["note"]}}}), [item, batch])
    assert isinstance(out[1], RawBatch)
    assert list(records(out[1])) == [rb'{"id":1.50,"n":NaN}']
    assert told_schema(out[0])["required"] == ["id"]


def test_keys_are_set() -> None:
    out = run(stage({"orders": {"unique_constraints": ["total"]}}), [schema("orders", id="integer", total="integer")])
    assert tell(out) == ["SCHEMA orders id,total key total"]


def test_append_takes_the_keys_away() -> None:
    appending = stage({"orders": {"load_method": "append"}}, key_properties=["id"])
    assert tell(run(appending, [schema("orders", "id", id="integer")])) == ["SCHEMA orders id key "]


def test_only_listed_streams_are_exported() -> None:
    bad = BadRecord("other", b"{}", "why", "validate")
    items = [raw("orders", ORDER), raw("other", ORDER), schema("other", id="integer"), bad, position(1)]
    assert tell(run(stage(["orders"]), items)) == [("orders", [ORDER]), "STATE 1"]


def test_a_star_stands_for_the_rest() -> None:
    items = [raw("orders", ORDER), raw("other", ORDER)]
    out = run(stage({"orders": {"destination_table": "sales"}, "*": {}}), items)
    assert tell(out) == [("sales", [ORDER]), ("other", [ORDER])]


def test_a_key_column_that_the_schema_has_not_is_an_error_that_names_it() -> None:
    with fails("stream.key_missing", "export.yaml:1", "'nr'", "target-x"):
        run(stage({"orders": {"unique_constraints": ["nr"]}}), [schema("orders", id="integer")])


def test_a_key_of_the_tap_that_is_dropped_is_an_error() -> None:
    with fails("stream.key_missing", "'id'"):
        run(stage({"orders": {"columns": ["note"]}}), [schema("orders", "id", id="integer", note="string")])


@pytest.mark.parametrize(
    ("settings", "known", "method", "why"),
    [
        ({}, {"replication_method": "FULL_TABLE", "replaces": True}, "replace", "FULL_TABLE, and target-x has"),
        (
            {},
            {"replication_method": "FULL_TABLE", "key_properties": ["id"]},
            "upsert",
            "cannot replace, and its key is id",
        ),
        ({}, {"replication_method": "FULL_TABLE"}, "append", "cannot replace, and it has no key"),
        ({}, {"replication_method": "INCREMENTAL", "replaces": True, "key_properties": ["id"]}, "upsert", "key is id"),
        ({}, {"replication_method": "INCREMENTAL", "replaces": True}, "append", "no key"),
        ({"unique_constraints": ["id"]}, {}, "upsert", "its key is id"),
        (
            {"unique_constraints": ["id"], "unique_conflict_method": "UPDATE"},
            {},
            "upsert",
            "unique_conflict_method: UPDATE",
        ),
        ({"load_method": "replace"}, {"replaces": True}, "replace", "load_method: replace"),
        ({"load_method": "append"}, {"replication_method": "FULL_TABLE", "replaces": True}, "append", "load_method"),
        ({}, {"replication_method": "FULL_TABLE", "replaces": True, "endless": True}, "append", "never known to be"),
        ({}, {"default_method": "replace", "replaces": True}, "replace", "in the target's config"),
        ({}, {"default_method": "upsert", "key_properties": ["id"]}, "upsert", "its key is id"),
        (
            {"load_method": "append"},
            {"default_method": "replace", "replaces": True, "endless": True},
            "append",
            "append",
        ),
    ],
)
def test_how_a_stream_is_loaded_and_why(settings: dict[str, Any], known: dict[str, Any], method: str, why: str) -> None:
    found = plan(settings, **known)
    assert found.load_method == method
    assert why in found.why


@pytest.mark.parametrize(
    ("settings", "known", "code", "name"),
    [
        ({"load_method": "replace"}, {}, "destination.load_method_unsupported", "activate-version"),
        (
            {"load_method": "replace"},
            {"replaces": True, "replication_method": "INCREMENTAL"},
            "destination.load_method_unsupported",
            "INCREMENTAL",
        ),
        (
            {"load_method": "replace"},
            {"replaces": True, "replication_method": "LOG_BASED"},
            "destination.load_method_unsupported",
            "LOG_BASED",
        ),
        (
            {"columns": ["id"]},
            {"default_method": "replace", "replaces": True, "replication_method": "INCREMENTAL"},
            "destination.load_method_unsupported",
            "INCREMENTAL",
        ),
        (
            {"load_method": "replace"},
            {"replaces": True, "endless": True},
            "destination.load_method_unsupported",
            "max_duration",
        ),
        ({"load_method": "upsert"}, {}, "stream.key_missing", "upsert"),
        ({"unique_conflict_method": "UPDATE"}, {}, "stream.key_missing", "upsert"),
        (
            {"unique_conflict_method": "IGNORE", "unique_constraints": ["id"]},
            {},
            "destination.setting_unsupported",
            "unique_conflict",
        ),
        ({"load_method": "append", "unique_constraints": ["id"]}, {}, "destination.settings_conflict", "append"),
        ({"partition_keys": ["day"]}, {}, "destination.setting_unsupported", "partition_keys"),
        ({"columns": ["id", "totl"]}, {"columns": ["id", "total"]}, "stream.column_unknown", "'total'"),
        ({"columns": {"exclude": ["nte"]}}, {"columns": ["id", "note"]}, "stream.column_unknown", "'note'"),
        ({"unique_constraints": ["idd"]}, {"columns": ["id", "note"]}, "stream.column_unknown", "'id'"),
        ({"columns": ["note"]}, {"key_properties": ["id"]}, "stream.key_missing", "'id'"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_the_start(
    settings: dict[str, Any], known: dict[str, Any], code: str, name: str
) -> None:
    with refuses(code, name) as caught:
        plan(settings, **known)
    assert caught.value.where == "export.yaml:1"


def test_a_target_that_can_is_told_in_the_schema() -> None:
    settings = {"unique_conflict_method": "IGNORE", "unique_constraints": ["id"], "partition_keys": ["day"]}
    able = stage({"orders": settings}, capabilities=["conflict-ignore", "partition-keys"])
    (out,) = run(able, [schema("orders", "id", id="integer", day="string")])
    assert told_schema(out)["x-unique-conflict-method"] == "IGNORE"
    assert told_schema(out)["x-partition-keys"] == ["day"]


@pytest.mark.parametrize(
    ("settings", "keys"),
    [({"unique_conflict_method": "IGNORE"}, ["id"]), ({"load_method": "append"}, []), ({}, ["id"])],
)
def test_without_a_catalog_the_schema_names_the_key(settings: dict[str, Any], keys: list[str]) -> None:
    unknown = stage({"orders": settings}, capabilities=["conflict-ignore"], key_properties=None)
    (out,) = run(unknown, [schema("orders", "id", id="integer")])
    assert isinstance(out, Schema)
    assert list(out.key_properties or ()) == keys
    assert out.schema.get("x-unique-conflict-method") == settings.get("unique_conflict_method")
    if settings.get("unique_conflict_method"):
        with pytest.raises(StreamlineError) as raised:
            run(stage({"orders": settings}, capabilities=["conflict-ignore"], key_properties=None), [schema("orders")])
        assert raised.value.code == "stream.key_missing"


def test_the_target_sees_a_key_only_where_it_is_another() -> None:
    assert plan({}, key_properties=["id"]).keys is None
    assert plan({"unique_constraints": ["id"]}, key_properties=["id"]).keys is None
    assert plan({"unique_constraints": ["nr"]}, key_properties=["id"]).keys == ("nr",)
    assert plan({"unique_constraints": ["id"]}, key_properties=None).keys == ("id",)
    assert plan({"load_method": "append"}, key_properties=None).keys == ()
    assert plan({}, key_properties=None).keys is None


def test_a_column_that_is_kept_or_dropped() -> None:
    keeps = plan({"columns": ["id"]}).keeps
    assert [keeps(name) for name in ("id", "note", "_sdc_deleted_at")] == [True, False, True]
    keeps = plan({"columns": {"exclude": ["note", "_sdc_x"]}}).keeps
    assert [keeps(name) for name in ("id", "note", "_sdc_x")] == [True, False, False]


def test_two_streams_in_one_table_are_refused() -> None:
    plan_of = plans({"*": {"destination_table": "all"}})
    with refuses("destination.table_shared", "'a'", "'b'", "'all'"):
        check_tables({name: found for name in ("a", "b") if (found := plan_of(name))})


def test_a_target_that_says_what_it_can_do_is_not_asked_for_more() -> None:
    known = {"key_properties": ["id"], "load_methods": ["append", "replace"]}
    assert plan({}, **known).load_method == "append"
    with refuses("destination.load_method_unsupported", "upsert"):
        plan({"load_method": "upsert"}, **known)
