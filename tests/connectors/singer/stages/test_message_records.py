"""Messages as records of a target."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from streamline.connectors.singer.stages.message_records import MessageRecords
from streamline.flow.items import ActivateVersion, BadRecord, Item, MessageBatch, Origin, Position, RawBatch, Schema
from tests.connectors.singer.stages.test_record_messages import through


def origin(offset: int = 0, **more: Any) -> Origin:
    return Origin(**{"topic": "users", "partition": 1, "offset": offset, "key": None, "value": None, **more})


def rows(items: Sequence[Item], stream: str = "users") -> list[Any]:
    parts = [part for item in items if isinstance(item, RawBatch) and item.stream == stream for part in item.slices]
    return [msgspec.json.decode(line)["record"] for part in parts for line in bytes(part).splitlines()]


def schemas(items: Sequence[Item]) -> list[dict[str, Any]]:
    return [item.schema["properties"] for item in items if isinstance(item, Schema)]


def refused(items: Sequence[Item]) -> list[BadRecord]:
    return [item for item in items if isinstance(item, BadRecord)]


def test_a_schema_comes_before_the_first_records_and_again_when_it_has_changed() -> None:
    position = Position("read", 1, {})
    items = through(
        MessageRecords("export"),
        MessageBatch("users", [b'{"id":1}', {"id": 2}]),
        position,
        MessageBatch("users", [b'{"id":3}']),
        MessageBatch("users", [b'{"id":4,"name":"x"}']),
    )
    assert [type(item) for item in items] == [Schema, RawBatch, Position, RawBatch, Schema, RawBatch]
    assert [list(columns) for columns in schemas(items)] == [["id"], ["id", "name"]]
    assert [row["id"] for row in rows(items)] == [1, 2, 3, 4]


def test_undecoded_records_keep_their_bytes() -> None:
    text = b'{ "id": 1.000000000000000000001,  "a": [1,\n2] }'
    items = through(MessageRecords("export"), MessageBatch("users", [text]))
    parts = b"".join(bytes(part) for item in items if isinstance(item, RawBatch) for part in item.slices)
    assert text.replace(b"\n", b" ") in parts
    assert parts.count(b"\n") == 1


def test_what_only_python_knows_is_written_exactly() -> None:
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    row = {"at": moment, "day": dt.date(2026, 1, 2), "price": Decimal("1.10"), "n": 2**80}
    items = through(MessageRecords("export"), MessageBatch("users", [row]))
    assert schemas(items) == [
        {
            "at": {"type": ["null", "string"], "format": "date-time"},
            "day": {"type": ["null", "string"], "format": "date"},
            "price": {"type": ["null", "number"]},
            "n": {"type": ["null", "integer"]},
        }
    ]
    parts = b"".join(bytes(part) for item in items if isinstance(item, RawBatch) for part in item.slices)
    assert b'"price":1.10,"n":1208925819614629174706176' in parts


def test_the_destinations_keys_are_those_of_the_rows() -> None:
    stage = MessageRecords("export", keys_of=lambda stream: ["id"])
    items = through(
        stage, MessageBatch("users", [{"id": 1}, {"id": None}, {"n": 1}], [origin(each) for each in range(3)])
    )
    assert [item.key_properties for item in items if isinstance(item, Schema)] == [["id"]]
    assert rows(items) == [{"id": 1}]
    assert [bad.origin.offset for bad in refused(items) if bad.origin is not None] == [1, 2]


@pytest.mark.parametrize(
    "value", [b"[1]", b"1", b'"x"', b"nothing", b"\xff\xfe", b'{"a":"\\ud800"}', b"{", ["x"], object()]
)
def test_what_is_no_record_is_refused_and_the_others_arrive(value: Any) -> None:
    batch = MessageBatch("users", [{"id": 1}, value, {"id": 2}], [origin(each) for each in range(3)])
    items = through(MessageRecords("export"), batch)
    assert rows(items) == [{"id": 1}, {"id": 2}]
    (bad,) = refused(items)
    assert (bad.stage, bad.sink, bad.origin) == ("export", "export", origin(1))
    if isinstance(value, bytes):
        assert bad.record == value


def test_other_values_may_become_records_of_one_column() -> None:
    items = through(MessageRecords("export", wrap_values=True), MessageBatch("users", [b"1", 2, {"value": 3}, b'"x"']))
    assert rows(items) == [{"value": 1}, {"value": 2}, {"value": 3}]
    assert [bad.record for bad in refused(items)] == [b'"x"']


def test_columns_say_where_a_message_was_read() -> None:
    names = ["key", "topic", "partition", "offset", "time", "headers"]
    stage = MessageRecords("export", columns=[f"_message_{name}" for name in names])
    read = origin(5, key=b"k", time=1_767_225_600_123, headers=[("a", b"x"), ("b", None), ("c", b"\xff")])
    items = through(stage, MessageBatch("users", [{"id": 1}, {"id": 2}], [read, None]))
    assert rows(items) == [
        {
            "id": 1,
            "_message_key": "k",
            "_message_topic": "users",
            "_message_partition": 1,
            "_message_offset": 5,
            "_message_time": "2026-01-01T00:00:00.123000+00:00",
            "_message_headers": [["a", "x"], ["b", None], ["c", "/w=="]],
        },
        {"id": 2, **dict.fromkeys(f"_message_{name}" for name in names)},
    ]


def test_with_metadata_the_record_is_the_data_and_its_stream_the_topic_that_a_block_has_chosen() -> None:
    stage = MessageRecords("export", include_metadata=True, columns=["_message_key"])
    data = [
        {"data": {"id": 1}, "metadata": {"key": "k"}},
        {"data": {"id": 2}, "metadata": {"dest_topic": "other"}},
        {"id": 3},
    ]
    items = through(stage, MessageBatch("users", data))
    assert rows(items) == [{"id": 1, "_message_key": "k"}, {"id": 3, "_message_key": None}]
    assert rows(items, "other") == [{"id": 2, "_message_key": None}]


def test_messages_without_a_value_are_left_out_or_delete_rows() -> None:
    notes: list[str] = []
    batch = MessageBatch("users", [None, None, {"id": 1}], [origin(0, key=b"1"), origin(1), origin(2)])
    assert rows(through(MessageRecords("export", note=notes.append), batch)) == [{"id": 1}]
    assert len(notes) == 1
    deleting = MessageRecords("export", keys_of=lambda stream: ["id"], tombstones="delete")
    items = through(deleting, batch)
    deleted, kept = rows(items)
    assert (deleted["id"], kept) == (1, {"id": 1})
    assert deleted["_sdc_deleted_at"] is not None
    assert len(refused(items)) == 1  # it names no row


def test_a_taps_schema_types_the_columns_that_keep_their_names() -> None:
    tap = Schema(
        "users",
        {
            "type": "object",
            "properties": {"id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}, "gone": {}},
        },
        ["id"],
    )
    data = [{"id": 1, "at": "2026-01-01T00:00:00Z", "new": "x"}]
    stage = MessageRecords("export")
    items = through(
        stage, tap, MessageBatch("users", data), tap, MessageBatch("users", data), ActivateVersion("users", 1)
    )
    assert schemas(items) == [
        {
            "id": {"type": "integer"},
            "at": {"type": "string", "format": "date-time"},
            "new": {"type": ["null", "string"]},
        }
    ]
    assert [item.key_properties for item in items if isinstance(item, Schema)] == [["id"]]
    assert [type(item) for item in items] == [Schema, RawBatch, RawBatch]


def test_columns_that_the_destination_has_had_stay_columns() -> None:
    known = {
        "users": {
            "type": "object",
            "properties": {"old": {"type": ["null", "number"]}, "id": {"type": ["null", "number"]}},
        }
    }
    items = through(MessageRecords("export", known=known), MessageBatch("users", [{"id": 1}]))
    assert schemas(items) == [{"old": {"type": ["null", "number"]}, "id": {"type": ["null", "number"]}}]
