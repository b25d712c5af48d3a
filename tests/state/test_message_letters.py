"""Dead letters of messages in the state database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamline.connectors.kafka.dead_letter_messages import letter_id
from streamline.state import open_store
from streamline.state.store import DeadLetter, LetterKey, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store("sqlite:///state.db", tmp_path)
    yield store
    store.close()


def letter(offset: int | None, **fields: Any) -> DeadLetter:
    defaults: dict[str, Any] = {
        "pipeline": "p",
        "block": "read",
        "stream": "orders",
        "run_id": "r1",
        "record": "",
        "form": "value",
        "error": "odd",
        "stage": "decode",
        "topic": "orders",
        "partition": 0,
        "offset": offset,
        "key": b"k",
        "value": b"\xff\x00",
    }
    return DeadLetter(**{**defaults, **fields})


def keep(store: Store, *letters: DeadLetter) -> None:
    store.save("p", "read", "r1", [], letters)


def test_a_message_comes_back_as_it_was_read(store: Store) -> None:
    headers = [("a", b"\x00\xff"), ("a", None), ("\udcff", b"")]
    keep(store, letter(7, headers=headers, message_time=1_700_000_000_123, trace="Traceback …", destination="write"))
    (kept,) = store.dead_letters("p")
    assert (kept.topic, kept.partition, kept.offset, kept.key, kept.value) == ("orders", 0, 7, b"k", b"\xff\x00")
    assert kept.headers == [("a", b"\x00\xff"), ("a", None), ("\\udcff", b"")]
    assert (kept.message_time, kept.trace, kept.form) == (1_700_000_000_123, "Traceback …", "value")
    keep(store, letter(8, key=None, value=None))
    assert [(each.key, each.value, each.headers) for each in store.dead_letters("p")[1:]] == [(None, None, None)]


def test_the_same_message_at_the_same_stage_is_kept_once(store: Store) -> None:
    keep(store, letter(1, record='{"n": 1}', form="json", stage="clean"))
    keep(store, letter(1, record='{"n": 2}', form="json", stage="clean", error="odder", trace="T"))
    (kept,) = store.dead_letters("p")
    assert (kept.record, kept.error, kept.trace, kept.times) == ('{"n": 2}', "odder", "T", 2)
    others = [
        letter(1, stage="clean", copy="1"),
        letter(1, stage="write", destination="write"),
        letter(1, stage="write", destination="other"),
        letter(1, stage="clean", partition=1),
        letter(1, stage="clean", topic="users"),
        letter(2, stage="clean"),
    ]
    keep(store, *others)
    assert len(store.dead_letters("p")) == 7


@pytest.mark.parametrize("other", [{"value": b"other"}, {"value": None}, {"key": b"l"}, {"message_time": 1}])
def test_another_message_at_the_same_place_is_another_letter(store: Store, other: dict[str, Any]) -> None:
    # The topic was deleted and created again, or the file is a new one of the same name.
    letters = [letter(1), letter(1, **other)]
    keep(store, *letters)
    assert [(each.key, each.value) for each in store.dead_letters("p")] == [(each.key, each.value) for each in letters]
    assert len({letter_id(each) for each in letters}) == 2


def test_letters_of_messages_that_were_not_read_are_told_apart_by_their_copies(store: Store) -> None:
    fields: dict[str, Any] = {"topic": None, "partition": None, "value": None, "record": "{}", "form": "json"}
    keep(store, *(letter(None, copy=f"r1 {number}", **fields) for number in (1, 2, 2)))
    assert len(store.dead_letters("p")) == 2


def test_keys_with_letters(store: Store) -> None:
    keep(store, letter(5), letter(3), letter(4, key=b"other"), letter(9, key=None))
    assert store.letter_keys("p") == [
        LetterKey(block="read", topic="orders", partition=0, key=b"k", oldest=3, newest=5),
        LetterKey(block="read", topic="orders", partition=0, key=b"other", oldest=4, newest=4),
    ]
    assert store.letter_keys("q") == []


def test_a_letter_tells_of_later_messages_of_its_key(store: Store) -> None:
    keep(store, letter(3), letter(7), letter(3, block="copy"), letter(4, key=b"other"))
    key = LetterKey(block="read", topic="orders", partition=0, key=b"k", written=5)
    store.note_key_written("p", key)
    store.note_key_written("p", LetterKey(block="read", topic="orders", partition=0, key=b"k", written=4))
    since = {(each.block, each.key, each.offset): each.written_since for each in store.dead_letters("p")}
    assert since == {
        ("read", b"k", 3): 5,
        ("read", b"k", 7): None,
        ("copy", b"k", 3): None,
        ("read", b"other", 4): None,
    }
    assert {each.written for each in store.letter_keys("p") if each.block == "read" and each.key == b"k"} == {5}


def test_what_is_known_of_a_key_goes_with_its_last_letter(store: Store) -> None:
    keep(store, letter(3), letter(7))
    store.note_key_written("p", LetterKey(block="read", topic="orders", partition=0, key=b"k", written=9))
    first, second = store.dead_letters("p")
    store.discard_dead_letters("p", [first.id])
    assert store.dead_letters("p")[0].written_since == 9
    store.discard_dead_letters("p", [second.id])
    keep(store, letter(3))
    assert store.dead_letters("p")[0].written_since is None


def test_a_renamed_source_keeps_what_is_known_of_its_keys(store: Store) -> None:
    keep(store, letter(3))
    store.note_key_written("p", LetterKey(block="read", topic="orders", partition=0, key=b"k", written=9))
    with store.renamed_block("p", "read", "load"):
        pass
    assert [(each.block, each.written_since) for each in store.dead_letters("p")] == [("load", 9)]
