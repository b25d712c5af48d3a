"""What a target is sent and what its echoes prove, without a process."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from streamline.connectors.singer import target_input
from streamline.connectors.singer.bookmark_hashes import marks_of
from streamline.connectors.singer.echo_account import EchoAccount
from streamline.connectors.singer.state import SERIAL_MEMBER, StateParts
from streamline.connectors.singer.target_input import Feed, SentCounts, TargetInput
from streamline.flow.items import ActivateVersion, FileBatch, Item, Position, Schema
from tests.connectors.singer.running import batch, bookmark, position, record, schema


class Counted(SentCounts):
    """Keeps what was counted."""

    def __init__(self) -> None:
        self.all: list[object] = []

    def sent(self, source: str, stream: str, records: int) -> None:
        self.all.append(("sent", source, stream, records))

    def confirmed(self, source: str, stream: str, records: int) -> None:
        self.all.append(("confirmed", source, stream, records))

    def position_sent(self, source: str, number: int) -> None:
        self.all.append(("position", source, number))


def feed(source: str, *owned: str, prefix: bool = False) -> Feed:
    return Feed(
        source=source,
        keys_of=lambda stream: [stream],
        owns=lambda key: not owned or key in owned,
        name_of=(lambda key: f"{source}:{key}") if prefix else str,
    )


class Target(TargetInput):
    """The input of a target, with its proofs and counts."""

    def __init__(self, *feeds: Feed, **state: bytes) -> None:
        self.counted = Counted()
        super().__init__(feeds, state, self.counted)
        self.proven: list[tuple[str, int]] = []
        self.on_proof = lambda source, number: self.proven.append((source, number))

    def sent(self, source: str, *items: Item) -> list[Any]:
        return decoded(self.lines(source, items))


def decoded(buffers: list[Any]) -> list[Any]:
    return [json.loads(line) for line in b"".join(map(bytes, buffers)).splitlines()]


def states(messages: list[Any]) -> list[Any]:
    return [message["value"] for message in messages if message["type"] == "STATE"]


def at(source: str, number: int, state: bytes) -> Position:
    return Position(source, number, StateParts(state))


def test_the_state_of_one_source_is_sent_as_its_tap_wrote_it() -> None:
    target = Target(feed("load", "users"), load=b'{"lsn":  1, "bookmarks": {"b": 1.10}}')
    assert target.opening() == [b'{"type":"STATE","value":{"lsn":  1, "bookmarks": {"b": 1.10}}}\n']
    text = b'{"bookmarks": {"other": {"id":  2}}}'
    assert b"".join(target.lines("load", [at("load", 1, text)])) == b'{"type":"STATE","value":' + text + b"}\n"
    assert Target(feed("load")).opening() == [b'{"type":"STATE","value":{"bookmarks":{}}}\n']


def test_states_of_several_sources_are_merged_of_the_bookmarks_that_each_owns() -> None:
    target = Target(feed("one", "a"), feed("two", "b"), one=b'{"bookmarks":{"a":1,"b":7}}')
    assert states(decoded(target.opening())) == [{"bookmarks": {"a": 1}}]
    (merged,) = states(target.sent("two", at("two", 1, b'{"bookmarks":{"a":9,"b":2},"currently_syncing":"b"}')))
    assert merged == {"bookmarks": {"a": 1, "b": 2}}


def test_what_stands_beside_bookmarks_is_merged_under_the_name_of_its_source() -> None:
    target = Target(feed("one", prefix=True), feed("two", prefix=True), feed("three", prefix=True))
    target.sent("one", at("one", 1, b'{"bookmarks":{"a":1},"lsn":5,"currently_syncing":"a"}'))
    target.sent("two", at("two", 1, b'{"bookmarks":{},"lsn":6}'))
    (merged,) = states(target.sent("three", at("three", 1, b'"2024-01-01"')))
    assert merged["beside_bookmarks"] == {"one": {"lsn": 5}}
    assert merged["bookmarks"] == {"one:a": 1, "two:*": {"bookmarks": {}, "lsn": 6}, "three:*": "2024-01-01"}


def test_sources_that_share_a_stream_repeat_a_schema_that_differs() -> None:
    other = Schema("users", {"type": "object", "properties": {"id": {"type": "string"}}}, ["id"])
    keyless = msgspec.structs.replace(schema(), key_properties=[])
    file = FileBatch("users", "sdk", ["x"], "jsonl", None, None, b'{"type":"BATCH"}\n', 3)

    def kinds(differing: Schema, *items: Item) -> list[str]:
        target = Target(feed("one"), feed("two"))
        target.sent("one", schema())
        target.sent("two", differing)
        return [message["type"] for message in target.sent("one", *items)]

    assert kinds(other, batch(record(1)), batch(record(2))) == ["SCHEMA", "RECORD", "RECORD"]
    assert kinds(keyless, batch(record(1))) == ["SCHEMA", "RECORD"]
    assert kinds(schema(), batch(record(1))) == ["RECORD"]
    assert kinds(other, file) == ["SCHEMA", "BATCH"]
    assert Target(feed("one"), feed("two")).sent("one", batch(record(1)))[0]["type"] == "RECORD"


def test_a_later_session_begins_with_what_is_proven_and_the_newest_schemas() -> None:
    target = Target(feed("load"))
    target.opening()
    wide = Schema("users", {"type": "object", "properties": {}}, ["id"])
    target.sent("load", schema(), batch(record(1)), position(1), wide, batch(record(2)), position(2))
    target.echoed(marks_of(bookmark(1)))
    assert target.proven == [("load", 1)]
    target.new_session()
    opening = decoded(target.opening())
    assert states(opening) == [{"bookmarks": {"users": {"id": 1}}}]
    assert [message.get("schema") for message in opening[1:]] == [wide.schema]
    target.echoed(marks_of(bookmark(1)))
    assert target.proven == [("load", 1)], "what it starts with proves nothing"


def test_records_versions_and_files_are_unproven_until_an_echo() -> None:
    for item in (
        batch(record(1)),
        ActivateVersion("users", 1),
        FileBatch("users", "sdk", ["x"], "jsonl", None, None, b'{"type":"BATCH"}\n'),
    ):
        target = Target(feed("load"))
        target.opening()
        assert not target.unproven
        target.sent("load", schema(), item)
        assert target.unproven
        target.sent("load", position(1))
        assert target.proven == []
        target.echoed(marks_of(bookmark(1)))
        assert (target.proven, target.unproven) == ([("load", 1)], False)


def test_records_are_counted_when_sent_and_when_proven() -> None:
    target = Target(feed("load"))
    target.opening()
    file = FileBatch("users", "sdk", ["x"], "jsonl", None, None, b'{"type":"BATCH"}\n', 5)
    uncounted = msgspec.structs.replace(file, count=None)
    target.sent("load", schema(), batch(record(1), record(2)), file, uncounted, ActivateVersion("users", 1))
    target.sent("load", position(1))
    target.echoed(marks_of(bookmark(1)))
    assert target.counted.all == [
        ("sent", "load", "users", 2),
        ("sent", "load", "users", 5),
        ("position", "load", 1),
        ("confirmed", "load", "users", 7),
    ]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions are thinned out when eight of them wait."""
    monkeypatch.setattr(target_input, "EchoAccount", lambda: EchoAccount(max_places=8))


@pytest.mark.usefixtures("few")
def test_positions_are_thinned_out_and_the_last_of_a_source_is_sent_at_its_end() -> None:
    target = Target(feed("load"))
    target.opening()
    sent = 0
    while not target.waits("load"):
        sent += 1
        target.sent("load", batch(record(sent)), position(sent))
    (state,) = states(decoded(target.source_ended("load")))
    assert state == {"bookmarks": {"users": {"id": sent}}}
    assert not target.waits("load")
    assert target.source_ended("load") == []
    target.ended()
    assert target.proven[-1] == ("load", sent)


@pytest.mark.usefixtures("few")
def test_a_position_that_is_sent_replaces_one_that_waits() -> None:
    target = Target(feed("load"))
    target.opening()
    number = 0
    while not target.waits("load"):
        number += 1
        target.sent("load", batch(record(number)), position(number))
    while target.waits("load"):
        number += 1
        target.sent("load", batch(record(number)), position(number))
    assert target.source_ended("load") == []


def test_exiting_with_0_proves_the_last_position_of_each_source() -> None:
    target = Target(feed("one", "a"), feed("two", "b"))
    target.opening()
    target.sent("one", batch(record(1, stream="a"), stream="a"), at("one", 1, b'{"bookmarks":{"a":1}}'))
    target.sent("two", batch(record(1, stream="b"), stream="b"), at("two", 4, b'{"bookmarks":{"b":1}}'))
    target.ended()
    assert sorted(target.proven) == [("one", 1), ("two", 4)]


def test_a_bookmark_that_is_withheld_for_a_while_is_proven_by_a_later_echo_of_it() -> None:
    target = Target(feed("load"))
    target.opening()
    held = frozenset({"users"})
    target.sent("load", batch(record(1)), msgspec.structs.replace(position(1), withheld=held))
    target.sent("load", batch(record(2)), position(2))
    target.echoed(marks_of(bookmark(1)))
    assert ("load", 2) not in target.proven
    target.echoed(marks_of(bookmark(2)))
    assert target.proven[-1] == ("load", 2)


def test_records_that_no_bookmark_covers_are_proven_by_a_serial_beside_the_bookmarks() -> None:
    unknown = msgspec.structs.replace(feed("load"), keys_of=lambda stream: [])
    target = Target(unknown)
    target.opening()
    (state,) = states(target.sent("load", batch(record(1)), position(1)))
    assert state["bookmarks"] == {"users": {"id": 1}}
    assert SERIAL_MEMBER in state
    target.echoed(marks_of(bookmark(1)))
    assert target.proven == []
    target.echoed(marks_of(json.dumps(state).encode()))
    assert target.proven == [("load", 1)]


@pytest.mark.parametrize("text", [b'{"users": 1}', b'"2024-01-01"'])
def test_a_state_without_bookmarks_has_no_serial(text: bytes) -> None:
    target = Target(msgspec.structs.replace(feed("load"), keys_of=lambda stream: []))
    target.opening()
    assert states(target.sent("load", batch(record(1)), at("load", 1, text))) == [json.loads(text)]
