from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.selection import choose
from streamline.connectors.singer.settings import parse_streams
from streamline.connectors.singer.stages.pruning import prune
from streamline.connectors.singer.stages.source import SourceStage
from streamline.flow.codecs.envelope import records
from streamline.flow.items import ArrowBatch, Item, RawBatch, RowBatch, Schema
from tests.connectors.singer.stages import raw, run, schema

NESTED: dict[str, Any] = {
    "type": ["null", "object"],
    "properties": {"city": {"type": "string"}, "zip": {"type": "string"}},
    "required": ["city", "zip"],
}
LINES: dict[str, Any] = {"type": "array", "items": NESTED}


def stage(settings: dict[str, Any], **properties: Any) -> SourceStage:
    """The stage of a source whose tap discovered one stream `orders` with the key `id` and these properties."""
    entry = {
        "tap_stream_id": "orders",
        "key_properties": ["id"],
        "schema": {"properties": {"id": {}, **{name: found or {} for name, found in properties.items()}}},
        "metadata": [
            {"breadcrumb": ["properties", "geo"], "metadata": {"inclusion": "unsupported"}},
            {"breadcrumb": ["properties", "id"], "metadata": {"inclusion": "automatic"}},
        ],
    }
    chosen = choose(Catalog({"streams": [entry]}), parse_streams({"orders": settings}, "source"))
    return SourceStage({"orders": chosen[0]})


def sent(stage: SourceStage, items: list[Item]) -> list[Any]:
    """Columns of each SCHEMA and the text of each record that passes."""
    out: list[Any] = []
    for item in run(stage, items):
        if isinstance(item, Schema):
            out.append(list(item.schema["properties"]))
        elif isinstance(item, RawBatch):
            out += [bytes(text).decode() for text in records(item)]
    return out


@pytest.mark.parametrize(
    ("settings", "properties"),
    [({}, {"geo": None}), ({"columns": {"exclude": ["note"]}}, {"note": None}), ({"columns": ["id"]}, {"note": None})],
)
def test_what_a_tap_adds_for_the_target_reaches_it(settings: dict[str, Any], properties: dict[str, Any]) -> None:
    (name,) = properties
    message = schema("orders", "id", id="integer", _sdc_deleted_at="string", **dict.fromkeys(properties, "string"))
    found = sent(stage(settings, **properties), [message, raw("orders", {"id": 1, name: "x", "_sdc_deleted_at": "t"})])
    assert found == [["id", "_sdc_deleted_at"], '{"id":1,"_sdc_deleted_at":"t"}']


def test_a_column_that_is_new_at_the_source_passes_unless_only_others_are_listed() -> None:
    message = schema("orders", "id", id="integer", note="string", phone="string")
    record = raw("orders", {"id": 1, "note": "x", "phone": "y"})
    columns = {"exclude": ["note"]}
    assert sent(stage({"columns": columns}, note=None), [message, record])[0] == ["id", "phone"]
    assert sent(stage({"columns": ["id", "no*"]}, note=None), [message, record])[0] == ["id", "note"]


def test_a_key_that_the_catalog_lacks_is_kept() -> None:
    message = schema("orders", "nr", id="integer", nr="integer", note="string")
    record = raw("orders", {"id": 1, "nr": 2, "note": "x"})
    assert sent(stage({"columns": ["id"]}, note=None), [message, record]) == [["id", "nr"], '{"id":1,"nr":2}']


@pytest.mark.parametrize("columns", [{"exclude": ["note*"]}, ["id"]])
def test_an_unread_column_that_first_appears_in_a_later_schema_is_dropped(columns: Any) -> None:
    first, second = schema("orders", "id", id="integer"), schema("orders", "id", id="integer", note="string")
    record = raw("orders", {"id": 1, "note": "x"})
    assert sent(stage({"columns": columns}), [first, second, record]) == [["id"], ["id"], '{"id":1}']


@pytest.mark.parametrize("columns", [{"exclude": ["note", "where.zip"]}, ["id", "where.city"]])
def test_an_unread_column_that_only_the_schema_leaves_out_is_dropped(columns: Any) -> None:
    where = {"type": "object", "properties": {"city": {"type": "string"}}}
    items = [
        schema("orders", "id", id="integer", where=where),
        raw("orders", {"id": 1, "note": "x", "where": {"city": "a", "zip": "b"}}),
        raw("orders", {"id": 2, "where": {"city": "a"}}),
    ]

    found = sent(stage({"columns": columns}, note=None, where=NESTED), items)

    assert found == [["id", "where"], '{"id":1,"where":{"city":"a"}}', '{"id": 2, "where": {"city": "a"}}']


@pytest.mark.parametrize(
    ("columns", "left"),
    [({"exclude": ["items", "_sdc_x"]}, '{"id":1,"_sdc_y":3}'), (["id"], '{"id":1,"_sdc_x":2,"_sdc_y":3}')],
)
def test_so_are_one_that_is_called_items_and_a_technical_one_that_is_named(columns: Any, left: str) -> None:
    record = raw("orders", {"id": 1, "items": [], "_sdc_x": 2, "_sdc_y": 3})
    dropping = stage({"columns": columns}, items=LINES, _sdc_x=None, _sdc_y=None)
    assert sent(dropping, [schema("orders", "id", id="integer"), record]) == [["id"], left]


def test_nested_properties_are_dropped_from_schema_and_records() -> None:
    message = Schema("orders", {"properties": {"id": {}, "address": NESTED, "lines": LINES}}, ["id"], None)
    line = b'{"id": 1, "address": {"city": "a", "zip": 1.10}, "lines": [{"zip": 2, "city": NaN}, null]}'
    batch = RawBatch("orders", [b'{"type":"RECORD","stream":"orders","record":' + line + b"}\n"], 1, 0)
    dropping = stage({"columns": {"exclude": ["address.city", "lines.zip"]}}, address=NESTED, lines=LINES)
    told, left = run(dropping, [message, batch])
    assert isinstance(told, Schema)
    assert isinstance(left, RawBatch)
    assert told.schema["properties"]["address"]["required"] == ["zip"]
    assert list(told.schema["properties"]["lines"]["items"]["properties"]) == ["city"]
    kept = b'{"id":1,"address":{"zip":1.10},"lines":[{"city":NaN},null]}'
    assert [bytes(text) for text in records(left)] == [kept]


@pytest.mark.parametrize("columns", [{"exclude": ["items", "box.items"]}, ["id", "box.size"]])
def test_a_column_that_is_called_items_is_dropped_like_any_other(columns: Any) -> None:
    box = {"type": "object", "properties": {"size": {}, "items": LINES}}
    message = schema("orders", "id", id="integer", box=box, items=LINES)
    dropping = stage({"columns": columns}, box=box, items=LINES)
    record = raw("orders", {"id": 1, "box": {"size": 2, "items": []}, "items": [{"city": "x"}]})
    assert sent(dropping, [message, record]) == [["id", "box"], '{"id":1,"box":{"size":2}}']


def test_a_record_without_what_is_dropped_is_the_same_object() -> None:
    unread = {"a": {"b": None}, "x": None}
    assert prune(b'{"a": {"b":1,"c": 2}}', unread) == b'{"a":{"c":2}}'
    assert prune(b'{"x":1}', unread) == b"{}"
    for text in (b'{"a": {"c": 2}, "d": 1}', b'{"d": 1}', b'{"a": "b"}'):
        assert prune(text, unread) is text


def test_the_schema_gets_the_sources_key_and_loses_bookmarks_that_are_dropped() -> None:
    message = Schema("orders", {"properties": {"id": {}, "at": {}, "note": {}}}, ["id"], ["at", "note"], b"as it came")
    (told,) = run(stage({"unique_constraints": ["at"]}, at=None, note=None), [message])
    assert isinstance(told, Schema)
    assert (told.key_properties, told.raw) == (["at"], None)
    (told,) = run(stage({"unique_constraints": ["id"]}, at=None, note=None), [message])
    assert isinstance(told, Schema)
    assert (told.key_properties, told.raw) == (["id"], b"as it came")
    (told,) = run(stage({"columns": {"exclude": ["note"]}}, at=None, note=None), [message])
    assert isinstance(told, Schema)
    assert (told.bookmark_properties, told.raw) == (["at"], None)


@pytest.mark.parametrize("columns", [{"exclude": ["note"]}, ["id"]])
def test_columns_are_dropped_in_every_lane(columns: Any) -> None:
    message = schema("orders", "id", id="integer", note="string")
    row = {"id": 1, "note": "x"}
    for batch in (RowBatch("orders", [row]), ArrowBatch("orders", pa.Table.from_pylist([row]))):
        out = run(stage({"columns": columns}, note=None), [message, batch])[1]
        if isinstance(out, ArrowBatch):
            assert out.table.to_pylist() == [{"id": 1}]
        else:
            assert isinstance(out, RawBatch)
            assert [bytes(text) for text in records(out)] == [b'{"id":1}']


def test_a_stream_that_is_not_selected_is_not_loaded_and_told_once() -> None:
    told: list[str] = []
    dropping = SourceStage({}, ["users"], warn=told.append)
    kept = raw("renamed", {"id": 1})
    assert run(dropping, [schema("users", id="integer"), raw("users", {"id": 1}), kept]) == [kept]
    assert len(told) == 1
