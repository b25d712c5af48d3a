"""Records of taps as messages, and Singer's lines as messages and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import msgspec
import pytest

from streamline.connectors.singer.stages.record_messages import (
    SCHEMA_SECONDS,
    MessagesOnly,
    RecordMessages,
    SingerMessages,
)
from streamline.connectors.singer.stages.singer_records import SingerRecords
from streamline.connectors.singer.state import StateParts
from streamline.flow.codecs.envelope import wrap
from streamline.flow.items import ActivateVersion, BadRecord, Item, MessageBatch, Origin, Position, RawBatch, Schema
from streamline.flow.protocols import Stage


def through(stage: Stage, *items: Item) -> list[Item]:
    out: list[Item] = []

    async def process() -> None:
        for item in items:
            out.extend(await stage.process(item))

    anyio.run(process)
    return out


def schema(*keys: str, stream: str = "users") -> Schema:
    return Schema(stream, {"type": "object", "properties": {key: {} for key in keys}}, list(keys))


def messages(items: Sequence[Item]) -> list[tuple[str, bytes | None, Any]]:
    """Stream, key and data of all messages."""
    return [
        (item.stream, origin.key if origin is not None else None, data)
        for item in items
        if isinstance(item, MessageBatch)
        for data, origin in zip(item.data, item.origins or [None] * item.count, strict=True)
    ]


@pytest.mark.parametrize(
    ("keys", "record", "key"),
    [
        (["id"], b'{"id":7,"n":1}', b"7"),
        (["id"], b'{"id":"a\\u00e9\\"b"}', 'aé"b'.encode()),
        (["id"], b'{"id":12345678901234567890123}', b"12345678901234567890123"),
        (["id"], b'{"id":1.10}', b"1.10"),
        (["id"], b'{"id":true}', b"true"),
        (["id"], b'{"id":null}', None),
        (["id"], b'{"n":1}', None),
        ([], b'{"id":1}', None),
        (["b", "a"], b'{"a":"x","b":1}', b'[1,"x"]'),
        (["b", "a"], b'{"a":"x"}', b'[null,"x"]'),
        (["odd name!"], b'{"odd name!":NaN,"id":1}', b"NaN"),
    ],
)
def test_the_key_is_the_text_of_the_key_property_several_are_an_array(
    keys: list[str], record: bytes, key: bytes | None
) -> None:
    items = through(RecordMessages(), schema(*keys), wrap("users", [record]))
    assert messages(items) == [("users", key, record)]


def test_the_value_is_the_records_text_unchanged() -> None:
    record = b'{ "id": 1.000000000000000000001, "b": [1,  2] }'
    position = Position("load", 1, {"users": b"1"})
    items = through(
        RecordMessages(), schema("id"), wrap("users", [record], version=3), ActivateVersion("users", 3), position
    )
    assert messages(items) == [("users", b"1.000000000000000000001", record)]
    assert items[-1] == position
    assert not any(isinstance(item, ActivateVersion) for item in items)


@pytest.mark.parametrize("tombstones", [False, True])
def test_a_deleted_row_is_a_message_like_others_or_a_tombstone(tombstones: bool) -> None:
    records = [b'{"id":1,"_sdc_deleted_at":"2026-01-01"}', b'{"id":2,"_sdc_deleted_at":null}', b'{"_sdc_deleted_at":1}']
    items = through(RecordMessages(tombstones=tombstones), schema("id"), wrap("users", records))
    assert [data for _, _, data in messages(items)] == [None if tombstones else records[0], *records[1:]]


def test_sinks_of_messages_get_messages_and_positions_only() -> None:
    kept: list[Item] = [
        MessageBatch("users", [b"{}"]),
        Position("load", 1, {}),
        BadRecord("users", b"{}", "why", "decode"),
    ]
    assert through(MessagesOnly(), schema("id"), *kept, ActivateVersion("users", 1)) == kept


def test_new_messages_of_transformers_get_the_keys_of_their_records() -> None:
    old = Origin("users", -1, -1, b"old", b"{}")
    batch = MessageBatch("users", [{"id": 1}, {"id": "a"}, "text", {"id": object()}], [old, None, None, None])
    items = through(MessagesOnly(), schema("id"), batch, MessageBatch("users", [{"id": 2}]), MessageBatch("users", []))
    assert [key for _, key, _ in messages(items)] == [b"old", b"a", None, None, b"2"]


def lines(items: Sequence[Item]) -> list[bytes]:
    return [data for _, _, data in messages(items)]


def test_singers_format_keeps_all_of_a_stream_but_its_states() -> None:
    first = schema("id")
    wider = Schema("users", {"type": "object", "properties": {"id": {}, "n": {}}}, ["id"])
    given: list[Item] = [
        first,
        wrap("users", [b'{"id":1}', b'{"id":2}'], version=5, time_extracted="2026-01-01T00:00:00Z"),
        Position("load", 1, StateParts(b'{"bookmarks":{"users":2}}')),
        wider,
        wrap("users", [b'{"id":3,"n":1.10}'], version=5),
        ActivateVersion("users", 5),
    ]
    written = through(SingerMessages(), *given)
    assert [key for _, key, _ in messages(written)] == [None, b"1", b"2", None, b"3", None]
    batch = [MessageBatch("crm-users", [line]) for line in lines(written)]
    back = through(SingerRecords("read", lambda topic: {}), *batch)
    assert [(item.schema, item.key_properties) for item in back if isinstance(item, Schema)] == [
        (first.schema, ["id"]),
        (wider.schema, ["id"]),
    ]
    records = b"".join(bytes(part) for item in back if isinstance(item, RawBatch) for part in item.slices)
    assert records == b"".join(bytes(part) for item in given if isinstance(item, RawBatch) for part in item.slices)
    assert [(type(item), item.stream) for item in back if not isinstance(item, Position)] == [
        (Schema, "users"),
        (RawBatch, "users"),
        (RawBatch, "users"),
        (Schema, "users"),
        (RawBatch, "users"),
        (ActivateVersion, "users"),
    ]


def test_messages_of_singers_format_go_to_one_partition() -> None:
    written = through(SingerMessages(), schema("id"), wrap("users", [b'{"id":1}']))
    origins = [origin for item in written if isinstance(item, MessageBatch) for origin in item.origins or []]
    assert {(origin.partition, origin.offset) for origin in origins if origin is not None} == {(0, -1)}


def test_a_schema_that_has_not_changed_is_written_again_once_in_a_while() -> None:
    now = [0.0]
    stage = SingerMessages(lambda: now[0])
    assert len(lines(through(stage, schema("id"), schema("id"), schema("id", "n"), schema("id", "n")))) == 2
    now[0] = SCHEMA_SECONDS
    assert len(lines(through(stage, schema("id", "n"), schema("id", "n")))) == 1


def test_schemas_that_were_read_before_hold_for_what_is_read_now() -> None:
    line = b'{"type":"SCHEMA","stream":"users","schema":{"properties":{"id":{}}},"key_properties":["id"]}'
    stage = SingerRecords("read", lambda topic: {"users": line})
    record = b'{"type":"RECORD","stream":"users","record":{"id":1}}'
    items = through(stage, MessageBatch("crm", [record]), MessageBatch("crm", [record]))
    assert [type(item) for item in items] == [Schema, RawBatch, RawBatch]
    assert stage.schemas["crm"]["users"].rstrip() == line


def test_schemas_are_loaded_again_when_a_topic_comes_back() -> None:
    def line(column: str) -> bytes:
        schema = {"properties": {column: {}}}
        return msgspec.json.encode({"type": "SCHEMA", "stream": "users", "schema": schema, "key_properties": []})

    def columns(*items: Item) -> list[str]:
        return [
            name for item in through(stage, *items) if isinstance(item, Schema) for name in item.schema["properties"]
        ]

    saved = {"crm": {"users": line("old")}, "shop": {}}
    stage = SingerRecords("read", lambda topic: saved[topic])
    record = MessageBatch("crm", [b'{"type":"RECORD","stream":"users","record":{}}'])
    both = Position("read", 1, {"crm/0": b"1", "shop/0": b"1"})
    assert columns(record, MessageBatch("crm", [line("new")]), MessageBatch("shop", [None]), both, record) == [
        "old",
        "new",
    ]
    assert columns(msgspec.structs.replace(both, parts={"shop/0": b"2"})) == []
    saved["crm"] = {"users": line("newest")}  # by the process that has the topic meanwhile
    assert columns(MessageBatch("shop", [None]), both, record, record) == ["newest"]


def test_what_is_no_singer_message_is_refused_with_its_origin_and_the_others_go_on() -> None:
    line = b'{"type":"SCHEMA","stream":"users","schema":{},"key_properties":[]}'
    record = b'{"type":"RECORD","stream":"users",\n "record":{"id":1}}'
    bad = [
        b"{no json}",
        b"text",
        b'{"type":"RECORD","stream":"other","record":{}}',
        b'{"type":"BATCH","stream":"users","filepath":"f"}',
        b"[1]",
    ]
    data = [line, record, *bad, None, b'{"type":"STATE","value":{"bookmarks":{"a":1}}}', record]
    origins: list[Origin | None] = [Origin("crm", 0, offset, None, value) for offset, value in enumerate(data)]
    items = through(SingerRecords("read", lambda topic: {}), MessageBatch("crm", data, origins))
    refused = [item for item in items if isinstance(item, BadRecord)]
    assert [(item.record, item.origin.offset) for item in refused if item.origin is not None] == [
        (value, 2 + number) for number, value in enumerate(bad)
    ]
    assert sum(item.count for item in items if isinstance(item, RawBatch)) == 2
    read = [msgspec.json.decode(part) for item in items if isinstance(item, RawBatch) for part in item.slices]
    assert [each["record"] for each in read] == [{"id": 1}, {"id": 1}]


def test_a_topic_of_its_own_may_get_the_schemas() -> None:
    stage = RecordMessages(schema_topic=lambda stream: f"{stream}.schemas", clock=lambda: 0.0)
    items = through(stage, schema("id"), schema("id"), wrap("users", [b'{"id":1}']))
    told, record = (item for item in items if isinstance(item, MessageBatch))
    (data,) = told.data
    assert data["metadata"] == {"dest_topic": "users.schemas", "key": "users"}
    assert msgspec.json.decode(data["data"])["key_properties"] == ["id"]
    assert record.data == [b'{"id":1}']
