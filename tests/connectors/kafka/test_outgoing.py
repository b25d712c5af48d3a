"""What becomes a Kafka message's topic, key, headers, time and value."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from streamline.connectors.kafka.client import Outgoing
from streamline.connectors.kafka.outgoing import OutgoingMaker
from streamline.connectors.kafka.serialization.plain import BytesSerializer
from streamline.flow.items import MessageBatch
from tests.connectors.kafka.sinks import destination, origin

SOURCE = origin(7, b'{ "a":1 }', key=b"k", headers=[("h", b"1"), ("h", None)], time=123)


def made(*data: Any, origins: Any = None, topic: str = "out", stream: str = "in") -> list[Outgoing]:
    """The messages of a batch; each is the same if it is made alone."""
    maker = OutgoingMaker(destination(topic=topic))
    messages = maker.make(MessageBatch(stream, list(data), origins))
    each_origin = origins or [None] * len(data)
    assert messages == [maker.make_one(*each, stream) for each in zip(data, each_origin, strict=True)]
    return messages


def test_what_was_not_decoded_passes_unchanged_with_key_headers_and_time() -> None:
    assert made(SOURCE.value, origins=[SOURCE]) == [
        Outgoing("out", b"k", b'{ "a":1 }', [("h", b"1"), ("h", None)], 123)
    ]


def test_a_message_with_an_origin_keeps_key_headers_and_time_and_a_new_one_has_none() -> None:
    old, new = made({"a": 2}, {"a": 3}, origins=[SOURCE, None])
    assert old == Outgoing("out", b"k", b'{"a":2}', SOURCE.headers, 123)
    assert new == Outgoing("out", None, b'{"a":3}')
    assert made({"a": 3}) == [new]


def test_case_27_a_tombstone_keeps_its_key_and_an_empty_value_stays_empty() -> None:
    tombstone, empty = made(None, b"", origins=[origin(1, None, key=b"k"), origin(2, b"", key=b"")])
    assert (tombstone.key, tombstone.value) == (b"k", None)
    assert (empty.key, empty.value) == (b"", b"")


def test_metadata_gives_key_headers_time_and_topic() -> None:
    metadata = {"key": "ä", "headers": [("h", b"\xff"), ("t", "text")], "time": 5, "dest_topic": "other", "offset": 1}
    assert made({"data": {"a": 1}, "metadata": metadata}, origins=[SOURCE]) == [
        Outgoing("other", "ä".encode(), b'{"a":1}', [("h", b"\xff"), ("t", b"text")], 5)
    ]


def test_metadata_of_some_messages_leaves_the_others_alone() -> None:
    first, second, third = made(
        {"data": None, "metadata": {"key": b"\xff"}},
        {"data": 1, "metadata": 2},
        {"data": 1, "metadata": {}, "more": 3},
    )
    assert first == Outgoing("out", b"\xff", None)
    assert second.value == b'{"data":1,"metadata":2}'
    assert third.value == b'{"data":1,"metadata":{},"more":3}'


def test_a_topic_template_takes_the_stream() -> None:
    assert [each.topic for each in made({}, topic="crm-{stream}", stream="users")] == ["crm-users"]


@pytest.mark.parametrize(
    ("time", "milliseconds"),
    [
        (0, 0),
        (1_700_000_000_123, 1_700_000_000_123),
        (dt.datetime(1970, 1, 1, 5, 30, 1, 999, dt.timezone(dt.timedelta(hours=5, minutes=30))), 1000),
        (None, None),
    ],
)
def test_case_29_times_are_milliseconds_or_datetimes_with_a_zone(time: Any, milliseconds: int | None) -> None:
    assert made({"data": 1, "metadata": {"time": time}})[0].time == milliseconds


@pytest.mark.parametrize(
    "metadata",
    [
        {"time": dt.datetime(2026, 1, 1)},
        {"time": -1},
        {"time": "yesterday"},
        {"time": float("nan")},
        {"key": 5},
        {"headers": "h"},
        {"headers": [("h", 1)]},
        {"headers": [(b"h", b"1")]},
        {"headers": 3},
        {"dest_topic": ""},
        {"dest_topic": 3},
    ],
)
def test_metadata_that_cannot_be_written_is_a_fault_of_the_message(metadata: dict[str, Any]) -> None:
    maker = OutgoingMaker(destination())
    data = {"data": 1, "metadata": metadata}
    with pytest.raises(ValueError, match=r"metadata|header"):
        maker.make(MessageBatch("in", [data]))
    with pytest.raises(ValueError, match=r"metadata|header"):
        maker.make_one(data, None, "in")


def test_keys_with_a_format_of_their_own_are_encoded_also_where_nothing_decoded_them() -> None:
    class Marked(BytesSerializer):
        def encode_ready(self, value: bytes, topic: str, stream: str) -> bytes:
            return b"ready:" + value

    maker = OutgoingMaker(msgspec.structs.replace(destination(topic="out"), keys=Marked()))
    for data, key in ((SOURCE.value, b"ready:k"), ({"data": 1, "metadata": {"key": "x"}}, b"x")):
        (message,) = maker.make(MessageBatch("in", [data], [SOURCE]))
        assert message.key == key
        assert maker.make_one(data, SOURCE, "in") == message


def test_a_message_that_was_read_from_no_topic_may_have_to_go_to_one_partition() -> None:
    fixed, free = made(b"{}", b"{}", origins=[origin(-1, b"{}", partition=0), origin(-1, b"{}", partition=-1)])
    assert (fixed.partition, free.partition) == (0, None)
    assert made(b"{}", origins=[origin(5, b"{}", partition=3)])[0].partition is None
