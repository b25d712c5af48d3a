"""Dead letters of refused messages: how they are made, and where they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from streamline.connectors.kafka.dead_letter_messages import letter_id
from streamline.connectors.kafka.dead_letter_topic import Contents, DeadLetterTopic
from streamline.execution.streaming.letters import (
    MAX_ERROR,
    MAX_TRACE,
    AttemptLetters,
    LetterMaker,
    StoredLetters,
    TopicLetters,
    data_of,
    letter_keys,
)
from streamline.flow.codecs.message_data import dump_data
from streamline.flow.items import BadRecord, MessageBatch, Origin
from streamline.flow.stages.park import PARKED, KeyStage
from streamline.state import open_store
from streamline.state.store import DeadLetter, LetterKey, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store("sqlite:///state.db", tmp_path)
    yield store
    store.close()


def maker(run_id: str = "r1", first: Sequence[str] = ("clean",)) -> LetterMaker:
    """Return a maker for a pipeline read → clean → enrich → write, whose secret is `hunter2`."""
    return LetterMaker(
        "p",
        run_id,
        starts_with_value=lambda source, stage, sink: stage in first,
        mask=lambda text: text.replace("hunter2", "***"),
    )


def message(offset: int = 7, value: bytes | None = b'{"n": 1}') -> Origin:
    return Origin("orders", 3, offset, b"k", value, [("a", b"1")], 1_700_000_000_000)


def refused(data: Any, stage: str, origin: Origin | None = None, **fields: Any) -> BadRecord:
    record, form = dump_data(data)
    return BadRecord("orders", record, "odd", stage, origin=origin, form=form, **fields)


# -- making them


def test_a_letter_holds_the_message_the_place_and_the_reason() -> None:
    bad = BadRecord("orders", b"{}", "no hunter2 here", "enrich", sink="write", origin=message(), trace="at hunter2")
    letter = maker().letter("read", bad)
    assert (letter.pipeline, letter.block, letter.stream, letter.run_id) == ("p", "read", "orders", "r1")
    assert (letter.topic, letter.partition, letter.offset, letter.key) == ("orders", 3, 7, b"k")
    assert (letter.value, letter.headers, letter.message_time) == (b'{"n": 1}', [("a", b"1")], 1_700_000_000_000)
    assert (letter.stage, letter.destination) == ("enrich", "write")
    assert (letter.error, letter.trace) == ("no *** here", "at ***")


@pytest.mark.parametrize(
    ("bad", "form"),
    [
        (refused(b"\xff", "decode", message(value=b"\xff")), "value"),
        (refused(b"{}", PARKED, message(value=b"{}")), "value"),
        (refused({"n": 1}, "clean", message()), "value"),
        (refused(b"\xff", "enrich", message(value=b"\xff")), "value"),
        (refused({"n": 2}, "enrich", message()), "json"),
        (refused({"n": 2}, PARKED, message(), sink="write"), "json"),
        (refused({"n": 2}, "clean", message(), output=True), "json"),
        (refused(b"\xfe", "enrich", message()), "base64"),
        (refused(object(), "enrich", message()), "text"),
        (refused({"n": 1}, "clean"), "json"),
        (refused(None, "enrich", message(value=None)), "json"),
    ],
)
def test_a_letter_holds_data_only_where_the_value_does_not_give_it(bad: BadRecord, form: str) -> None:
    assert maker().letter("read", bad).form == form


@pytest.mark.parametrize("data", [{"n": 2}, b"\xfe\xff", None, {"at": b"\xff"}, "\udcff"])
def test_data_is_restored(data: Any) -> None:
    assert data_of(maker().letter("read", refused(data, "enrich", message()))) == data


def test_long_errors_and_tracebacks_are_cut() -> None:
    bad = BadRecord("orders", b"{}", "e" * 10**6, "clean", origin=message(), trace="f" * 10**6 + "the end")
    letter = maker().letter("read", bad)
    assert len(letter.error) == MAX_ERROR
    assert letter.trace is not None
    assert len(letter.trace) == MAX_TRACE
    assert letter.trace.endswith("the end")


def test_a_message_read_again_is_the_same_letter_and_two_outputs_of_one_are_not() -> None:
    def copies(made: LetterMaker, *origins: Origin | None, stage: str = "enrich") -> list[str]:
        return [made.letter("read", refused({}, stage, origin)).copy for origin in origins]

    made, once, again = maker(), message(), message()
    assert copies(made, once, once, once) == ["", "1", "2"]
    assert copies(made, again, again) == ["", "1"]
    assert copies(made, once, stage="write") == [""]
    assert copies(made, message(8)) == [""]
    new = [*copies(made, None, None), *copies(maker("r2"), None)]
    assert len(set(new)) == 3


# -- keeping them


def test_records_that_are_given_again_are_the_same_letters(store: Store) -> None:
    letters = AttemptLetters(maker(), StoredLetters(store, "p"))
    first, second, third = (refused({}, "enrich") for _ in range(3))
    rows = letters.store("read", [first, second])
    rows = letters.store("read", [first, second, third])
    store.save("p", "read", "r1", [], rows)
    assert len({letter.copy for letter in rows}) == len(store.dead_letters("p")) == 3
    (other,) = letters.store("read", [refused({}, "enrich")])
    assert other.copy not in {letter.copy for letter in rows}


class FakeTopic:
    """A dead-letter topic that takes values of up to 10 bytes."""

    topic = "dead"

    def __init__(self) -> None:
        self.contents = Contents()
        self.reads = 0
        self.closed = False

    def write(self, letters: Sequence[DeadLetter]) -> list[tuple[DeadLetter, str]]:
        refused = [letter for letter in letters if len(letter.value or b"") > 10]
        for number, letter in enumerate(letters):
            if letter not in refused:
                letter.id = letter_id(letter)
                letter.time = f"2026-11-30T12:00:{number:02}.000Z"
                self.contents.letters[letter.id] = letter
                self.contents.places[letter.id] = {0}
        return [(letter, "MSG_SIZE_TOO_LARGE") for letter in refused]

    def read(self) -> Contents:
        self.reads += 1
        return Contents(dict(self.contents.letters), dict(self.contents.places), dict(self.contents.keys))

    def settle(self, letters: Sequence[DeadLetter], contents: Contents) -> None:
        for letter in letters:
            assert contents.places[letter.id] == {0}
            del self.contents.letters[letter.id]

    def note_key_written(self, key: LetterKey) -> None:
        self.contents.keys[key.block, key.topic, key.partition, key.key] = key.written or 0

    def close(self) -> None:
        self.closed = True


class Kept:
    """Letters in a topic and, where it cannot take them, in a database."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.topic = FakeTopic()
        self.warnings: list[str] = []
        self.letters = TopicLetters(cast(DeadLetterTopic, self.topic), StoredLetters(store, "p"), self.warnings.append)

    def keep(self, *letters: DeadLetter) -> None:
        self.store.save("p", "read", "r1", [], self.letters.keep(letters))

    def offsets(self, **which: Any) -> list[int | None]:
        return [letter.offset for letter in self.letters.find(**which)]


@pytest.fixture
def kept(store: Store) -> Kept:
    return Kept(store)


def small(offset: int, **fields: Any) -> DeadLetter:
    bad = BadRecord("orders", b"{}", "odd", "clean", origin=message(offset, b"small"), **fields)
    return maker().letter("read", bad)


def large(offset: int) -> DeadLetter:
    return maker().letter("read", BadRecord("orders", b"{}", "odd", "clean", origin=message(offset, b"l" * 100)))


def test_the_database_keeps_what_the_topic_cannot(kept: Kept) -> None:
    kept.keep(small(1), large(2), small(3))
    assert kept.offsets() == [1, 3, 2]
    assert [letter.offset for letter in kept.store.dead_letters("p")] == [2]
    assert len(kept.warnings) == 1
    kept.keep(large(4), large(5))
    assert "2 dead letters" in kept.warnings[1]


def test_letters_of_both_are_found_and_discarded_alike(kept: Kept) -> None:
    kept.keep(small(1), large(2), small(3))
    kept.keep(maker().letter("copy", BadRecord("users", b"{}", "odd", "clean", origin=message(4, b"small"))))
    assert kept.offsets(block="copy") == kept.offsets(stream="users") == [4]
    assert kept.offsets(limit=1) == [2]
    by_offset = {letter.offset: letter for letter in kept.letters.find()}
    both = [by_offset[1], by_offset[2]]
    assert sorted(kept.offsets(ids=[letter.id for letter in both]), key=str) == [1, 2]
    assert kept.offsets(ids=[]) == []
    reads = kept.topic.reads
    assert kept.letters.discard(both) == 2
    assert kept.topic.reads == reads
    assert sorted(kept.offsets(), key=str) == [3, 4]


def test_a_letter_of_the_database_that_is_refused_again_stays_there(kept: Kept) -> None:
    kept.keep(large(2))
    (letter,) = kept.letters.find()
    letter.error = "still odd"
    kept.keep(letter)
    (letter,) = kept.store.dead_letters("p")
    assert (letter.error, letter.times) == ("still odd", 2)


def test_a_block_is_renamed_in_the_letters_of_a_topic(kept: Kept) -> None:
    kept.keep(small(1), small(2, sink="write"))
    kept.keep(maker().letter("copy", BadRecord("users", b"{}", "odd", "other", origin=message(4, b"small"))))
    kept.letters.note_key_written(LetterKey(block="read", topic="orders", partition=3, key=b"k", written=5))
    assert kept.letters.rename("clean", "wash") == 2
    assert kept.letters.rename("write", "store") == 1
    assert kept.letters.rename("read", "load") == 2
    letters = sorted((letter.block, letter.offset, letter.stage, letter.destination) for letter in kept.letters.find())
    assert letters == [("copy", 4, "other", None), ("load", 1, "wash", None), ("load", 2, "wash", "store")]
    assert [(key.block, key.written) for key in kept.letters.open_keys() if key.written] == [("load", 5)]


def test_keys_of_both(kept: Kept) -> None:
    kept.keep(small(3), large(2), small(9))
    (key,) = kept.letters.open_keys()
    assert (key.oldest, key.newest, key.written) == (2, 9, None)
    kept.letters.note_key_written(LetterKey(block="read", topic="orders", partition=3, key=b"k", written=5))
    (key,) = kept.letters.open_keys()
    assert key.written == 5
    assert {letter.offset: letter.written_since for letter in kept.store.dead_letters("p")} == {2: 5}
    kept.letters.close()
    assert kept.topic.closed


def test_a_stage_watches_the_keys_of_one_source(kept: Kept) -> None:
    kept.keep(small(3))
    batch = MessageBatch("orders", [b"4"], [message(4)])
    for source, passed in (("read", 4), ("copy", 0)):
        stage = KeyStage(letter_keys(kept.letters, source), park=False)
        anyio.run(stage.process, batch)
        assert [key.written or 0 for key in kept.letters.open_keys()] == [4]
        parking = KeyStage(letter_keys(kept.letters, source), park=True)
        parked = [item for item in anyio.run(parking.process, batch) if isinstance(item, BadRecord)]
        assert len(parked) == (1 if passed else 0)
