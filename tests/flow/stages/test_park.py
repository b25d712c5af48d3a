"""Keys of messages with dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio
import pytest

from streamline.flow.items import BadRecord, Item, MessageBatch, Origin, Position
from streamline.flow.stages import park
from streamline.flow.stages.park import PARKED, KeyLetters, KeyPlace, KeyStage, LetterKeys, ParkStage


class Notes:
    """What is kept of keys."""

    def __init__(self, known: Mapping[KeyPlace, KeyLetters] | None = None, *, park: bool = False) -> None:
        self.known = dict(known or {})
        self.notes: list[tuple[bytes, int]] = []
        self.loads = 0
        self.keys = LetterKeys(self._load, lambda place, offset: self.notes.append((place.key, offset)), park=park)

    def _load(self) -> Mapping[KeyPlace, KeyLetters]:
        self.loads += 1
        return self.known


def message(offset: int, key: bytes | None = b"k", partition: int = 0) -> Origin:
    return Origin("orders", partition, offset, key, b"%d" % offset)


def batch(*origins: Origin | None) -> MessageBatch:
    return MessageBatch("orders", [origin.value if origin is not None else b"new" for origin in origins], list(origins))


def bad(offset: int, key: bytes | None = b"k", stage: str = "clean") -> BadRecord:
    return BadRecord("orders", b"{}", "odd", stage, origin=message(offset, key))


def run(stage: KeyStage | ParkStage, *items: Item) -> list[Item]:
    async def process() -> list[Item]:
        return [out for item in items for out in await stage.process(item)]

    return anyio.run(process)


def offsets(items: Sequence[Item]) -> list[int]:
    return [
        origin.offset
        for item in items
        if isinstance(item, MessageBatch)
        for origin in item.origins or ()
        if origin is not None
    ]


def parked(items: Sequence[Item]) -> list[int]:
    return [
        item.origin.offset
        for item in items
        if isinstance(item, BadRecord) and item.stage == PARKED and item.origin is not None
    ]


PLACE = KeyPlace("orders", 0, b"k")


def test_later_messages_of_a_key_are_parked_behind_its_letter() -> None:
    notes = Notes()
    stage = KeyStage(notes.keys, park=True)
    assert offsets(run(stage, batch(message(1)))) == [1]
    notes.keys.opened([bad(1)])
    items = run(stage, batch(message(2, b"other"), message(3), message(4, None), message(5), message(3, b"k", 1)))
    assert (offsets(items), parked(items)) == ([2, 4, 3], [3, 5])
    assert [item.record for item in items if isinstance(item, BadRecord)] == [b"3", b"5"]
    assert notes.notes == []
    whole = batch(message(6, b"other"))
    assert run(stage, whole)[0] is whole


def test_messages_that_are_read_again_are_parked_only_behind_their_keys_first_letter() -> None:
    notes = Notes({PLACE: KeyLetters(4, 9)})
    items = run(KeyStage(notes.keys, park=True), batch(message(3), message(4), message(5)))
    assert (offsets(items), parked(items)) == ([3, 4], [5])


def test_what_passed_its_stages_meanwhile_is_parked_before_its_sink() -> None:
    notes = Notes()
    both = batch(message(1), None, message(2), message(3, b"other"))
    run(KeyStage(notes.keys, park=True), both)
    stage = ParkStage(notes.keys, "write")
    assert run(stage, both) == [both]
    notes.keys.opened([bad(1)])
    items = run(stage, both)
    assert (offsets(items), parked(items)) == ([1, 3], [2])
    assert isinstance(items[0], MessageBatch)
    assert items[0].data == [b"1", b"new", b"3"]
    assert [item.sink for item in items if isinstance(item, BadRecord)] == ["write"]


def test_a_later_message_that_passes_is_noted_once_for_each_letter() -> None:
    notes = Notes()
    stage = KeyStage(notes.keys, park=False)
    run(stage, batch(message(1)), Position("read", 1, {}))
    notes.keys.saved(1)
    notes.keys.opened([bad(1)])
    assert offsets(run(stage, batch(message(2, b"other"), message(3)), batch(message(4)), batch(message(5)))) == [
        *(2, 3, 4, 5)
    ]
    assert notes.notes == [(b"k", 3)]
    notes.keys.opened([bad(6)])
    run(stage, batch(message(7), message(8)))
    assert [key for key, _ in notes.notes] == [b"k", b"k"]
    assert notes.notes[-1][1] > 6


def test_a_later_message_that_was_on_its_way_already_is_noted() -> None:
    notes = Notes()
    stage = KeyStage(notes.keys, park=False)
    run(stage, batch(message(1), message(2)), Position("read", 1, {}), batch(message(3, b"other")))
    notes.keys.opened([bad(1)])
    run(stage, Position("read", 2, {}))
    assert notes.notes == [(b"k", 2)]


def test_what_is_parked_on_its_way_was_not_delivered() -> None:
    notes = Notes(park=True)
    stage = KeyStage(notes.keys, park=True)
    run(stage, batch(message(1), message(2), message(3, b"l"), message(4, b"l")))
    notes.keys.opened([bad(1)])
    run(stage, Position("load", 1, {}))
    assert notes.notes == []
    # A sink may have what came behind a message that it refused.
    notes.keys.opened([BadRecord("orders", b"{}", "odd", "write", "write", origin=message(3, b"l"))])
    run(stage, Position("load", 2, {}))
    assert notes.notes == [(b"l", 4)]


def test_messages_that_have_arrived_are_not_later_ones() -> None:
    notes = Notes()
    stage = KeyStage(notes.keys, park=False)
    run(stage, batch(message(1)), Position("read", 1, {}), batch(message(2)), Position("read", 2, {}))
    notes.keys.saved(1)
    notes.keys.opened([bad(2)])
    run(stage, batch(message(3, b"other")))
    assert notes.notes == []


def test_too_many_on_their_way_are_taken_for_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "MAX_PASSED", 2)
    notes = Notes()
    stage = KeyStage(notes.keys, park=False)
    run(stage, batch(message(1)), batch(message(2)), batch(message(3, b"other"), message(4, b"other")))
    notes.keys.opened([bad(1)])
    run(stage, Position("read", 1, {}))
    assert notes.notes == [(b"k", 2)]


def test_a_note_is_kept_before_the_stage_ends() -> None:
    notes = Notes()
    stage = KeyStage(notes.keys, park=False)
    run(stage, batch(message(1), message(2)))
    notes.keys.opened([bad(1)])
    anyio.run(stage.close)
    assert notes.notes == [(b"k", 2)]


def test_letters_of_other_processes_are_learned_of_when_a_partition_comes() -> None:
    notes = Notes()
    stage = KeyStage(notes.keys, park=True)
    run(stage, batch(message(1)), batch(message(2)), Position("read", 1, {"orders/0": b""}))
    assert notes.loads == 1
    run(stage, batch(message(1, b"k", 1)), Position("read", 2, {"orders/0": b"", "orders/1": b""}))
    assert notes.loads == 2
    run(stage, Position("read", 3, {"orders/1": b""}))
    notes.known[PLACE] = KeyLetters(5, 5)
    assert parked(run(stage, batch(message(6)))) == [6]
    assert notes.loads == 3
