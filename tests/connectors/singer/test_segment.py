"""Records between two STATEs leave by stream, and no record is passed by a STATE or a SCHEMA that it must not pass."""

from __future__ import annotations

import msgspec
import pytest

from streamline.connectors.singer.segment import Segment
from streamline.connectors.singer.state import state_of
from streamline.flow.items import Item, Position, RawBatch, Schema

USERS = b'{"type":"RECORD","stream":"users","record":'
SPACED = b'{"type": "RECORD", "stream": "users", "record": '


def state(**bookmarks: int) -> bytes:
    return msgspec.json.encode({"bookmarks": bookmarks})


def shown(items: list[Item]) -> list[object]:
    """Batches as their stream, text and count; positions as their number and state."""
    return [
        (item.stream, b"".join(item.slices), item.count)
        if isinstance(item, RawBatch)
        else (item.number, state_of(item.parts))
        if isinstance(item, Position)
        else item
        for item in items
    ]


def test_runs_of_a_stream_between_two_states_are_one_batch() -> None:
    segment = Segment("load")
    for stream, line in (("users", b"1\n"), ("orders", b"2\n"), ("users", b"3\n"), ("orders", b"4\n5\n")):
        segment.add(stream, line, line.count(b"\n"), None)
    items = segment.take()
    assert shown(items) == [("users", b"1\n3\n", 2), ("orders", b"2\n4\n5\n", 3)]
    assert [item.nbytes for item in items if isinstance(item, RawBatch)] == [4, 6]


def test_a_newer_state_covers_the_records_before_it_and_those_after_it_come_later() -> None:
    segment = Segment("load")
    segment.add("users", b"1\n", 1, None)
    segment.set_state(state(users=1))
    segment.add("users", b"2\n", 1, None)
    segment.add("orders", b"3\n", 1, None)
    segment.set_state(state(users=2))
    segment.add("users", b"4\n", 1, None)
    assert shown(segment.take()) == [
        ("users", b"1\n2\n", 2),
        ("orders", b"3\n", 1),
        (1, state(users=2)),
        ("users", b"4\n", 1),
    ]
    assert segment.take() == []


def test_a_state_that_lacks_a_bookmark_replaces_none() -> None:
    segment = Segment("load")
    segment.add("users", b"1\n", 1, None)
    segment.set_state(state(users=1))
    segment.add("orders", b"2\n", 1, None)
    segment.set_state(state(orders=2))
    assert shown(segment.take()) == [
        ("users", b"1\n", 1),
        (1, state(users=1)),
        ("orders", b"2\n", 1),
        (2, state(orders=2)),
    ]


def test_no_record_passes_a_schema() -> None:
    segment = Segment("load")
    schema = Schema("users", {"properties": {}}, ["id"])
    segment.add("users", b"1\n", 1, None)
    segment.close_with(schema)
    segment.add("users", b"2\n", 1, None)
    assert shown(segment.take()) == [("users", b"1\n", 1), schema, ("users", b"2\n", 1)]


def prefix_of(*before: bytes, after: tuple[bytes, ...] = ()) -> bytes | None:
    """The prefix of the one batch of lines with these prefixes, before and after a STATE."""
    segment = Segment("load")
    for prefix in before:
        segment.add("users", prefix + b"{}}\n", 1, prefix)
    if after:
        segment.set_state(state(users=1))
    for prefix in after:
        segment.add("users", prefix + b"{}}\n", 1, prefix)
    segment.set_state(state(users=2))
    (batch, _) = segment.take()
    assert isinstance(batch, RawBatch)
    return batch.prefix


def test_lines_that_begin_alike_have_a_prefix_and_others_have_none() -> None:
    again = bytes(bytearray(USERS))  # equal, and another object
    assert prefix_of(USERS, USERS) == USERS
    assert prefix_of(USERS, again) == USERS
    assert prefix_of(USERS, SPACED) is None
    assert prefix_of(USERS, SPACED, SPACED) is None
    assert prefix_of(USERS, after=(again,)) == USERS
    assert prefix_of(USERS, after=(SPACED,)) is None


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        ([b'{"bookmarks":{"a":1}}', b'{"bookmarks":{"a":2}}'], [1]),
        ([b'{"bookmarks":{"a":1}}', b'{"bookmarks":{"a":1,"b":1}}'], [1]),
        ([b'{"bookmarks":{"a":1,"b":1}}', b'{"bookmarks":{"a":2}}'], [0, 1]),
        ([b'{"bookmarks":{"a":1}}', b'{"bookmarks":{"b":1}}'], [0, 1]),
        ([b'{"bookmarks":{"a":1}}', b'{"bookmarks":{"a":1,"b":1}}', b'{"bookmarks":{"a":2}}'], [1, 2]),
        ([b'{"bookmarks":{"a":1,"b":1}}', b'{"bookmarks":{"a":2}}', b'{"bookmarks":{"a":3}}'], [0, 2]),
        ([b'{"bookmarks":{"a":1}}', b"{", b'{"bookmarks":{"a":2}}'], [0, 1, 2]),
    ],
)
def test_a_state_replaces_the_one_before_it_unless_it_drops_a_bookmark_of_it(
    states: list[bytes], kept: list[int]
) -> None:
    segment = Segment("load")
    for value in states:
        segment.set_state(value)
    texts = [state_of(item.parts) for item in segment.take() if isinstance(item, Position)]
    assert texts == [states[number] for number in kept]
