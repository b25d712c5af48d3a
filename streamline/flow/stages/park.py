"""Watches the keys of messages that have dead letters: what comes after them is parked behind them, or noted.

A letter that is sent again to a sink that replaces by key must not replace what a later message has written. So later
messages of its key are noted when they pass; or they become letters themselves, which are sent after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import anyio.to_thread
import msgspec

from streamline.flow.codecs.message_data import dump_data
from streamline.flow.items import BadRecord, Item, MessageBatch, Origin, Position
from streamline.flow.protocols import ImmediateStage

PARKED = "park"
"""Stage of a letter that waits for an earlier one of its key."""

PARKED_ERROR = "parked: an earlier message of its key is a dead letter"

MAX_PASSED = 200_000
"""Messages on their way that are remembered."""


class KeyPlace(NamedTuple):
    """A key, in the partition whose messages it orders."""

    topic: str
    partition: int
    key: bytes


class KeyLetters(msgspec.Struct):
    """What is known about a key with letters.

    Args:
        oldest, newest: offsets of the first and the last message with a letter.
        written: offset of the newest message that was passed on after one of these, as far as it is kept.
    """

    oldest: int
    newest: int
    written: int = -1


class _Passed(msgspec.Struct):
    """Messages that are on their way; `number`: of the position behind them, once it has come."""

    origins: Sequence[Origin | None]
    number: int | None = None
    last: dict[KeyPlace, int] | None = None

    def later(self, place: KeyPlace) -> int:
        """Return the offset of the last message of a key; -1: none."""
        if self.last is None:
            self.last = {
                KeyPlace(origin.topic, origin.partition, origin.key): origin.offset
                for origin in self.origins
                if origin is not None and origin.key is not None
            }
        return self.last.get(place, -1)


class LetterKeys:
    """The keys of a source's messages that have letters. All methods but `load` are called in the loop.

    Args:
        load: returns them, as they are kept now; blocks.
        note: keeps that a message of a key, of this offset, was passed on behind one with a letter; blocks.
        park: messages behind one with a letter are parked before they reach a sink.
    """

    def __init__(
        self,
        load: Callable[[], Mapping[KeyPlace, KeyLetters]],
        note: Callable[[KeyPlace, int], None],
        *,
        park: bool = False,
    ) -> None:
        self._park = park
        self._load = load
        self._note = note
        self._keys: dict[KeyPlace, KeyLetters] = {}
        self._notes: dict[KeyPlace, int] = {}
        self._passed: deque[_Passed] = deque()
        self._messages = 0
        self._dropped: dict[tuple[str, int], int] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def opened(self, records: Iterable[BadRecord]) -> None:
        """Take records that were refused; to be called before anything that comes after them passes."""
        for record in records:
            origin = record.origin
            if origin is None or origin.key is None:
                continue
            place = KeyPlace(origin.topic, origin.partition, origin.key)
            known = self._keys.setdefault(place, KeyLetters(origin.offset, origin.offset))
            known.oldest = min(known.oldest, origin.offset)
            known.newest = max(known.newest, origin.offset)
            # Only what a sink had before it refused one is not parked any more.
            if not self._park or (record.stage == record.sink and record.error != PARKED_ERROR):
                self._passed_on(place, known, self._newest_behind(place, origin.offset))

    def follows(self, origin: Origin | None) -> bool:
        """Return whether there is a letter of an earlier message with the same key."""
        if origin is None or origin.key is None:
            return False
        known = self._keys.get(KeyPlace(origin.topic, origin.partition, origin.key))
        return known is not None and origin.offset > known.oldest

    def passing(self, origins: Sequence[Origin | None]) -> None:
        """Take messages that are passed on."""
        self._passed.append(_Passed(origins))
        self._messages += len(origins)
        while self._messages > MAX_PASSED and len(self._passed) > 1:
            for origin in self._forget_first():
                if origin is not None:
                    self._dropped[origin.topic, origin.partition] = origin.offset
        if not self._keys:
            return
        for origin in origins:
            if origin is not None and self.follows(origin):
                place = KeyPlace(origin.topic, origin.partition, origin.key or b"")
                self._passed_on(place, self._keys[place], origin.offset)

    def position(self, number: int) -> None:
        """Note that a position passes."""
        for passed in reversed(self._passed):
            if passed.number is not None:
                break
            passed.number = number

    def saved(self, number: int) -> None:
        """Note that a position is saved: what came before it has arrived."""
        while self._passed and (first := self._passed[0].number) is not None and first <= number:
            self._forget_first()

    async def load(self) -> None:
        """Learn of letters that this process has not made."""
        for place, loaded in (await anyio.to_thread.run_sync(self._load)).items():
            known = self._keys.setdefault(place, loaded)
            known.oldest = min(known.oldest, loaded.oldest)
            known.newest = max(known.newest, loaded.newest)
            known.written = max(known.written, loaded.written)

    async def keep_notes(self) -> None:
        """Keep what is to be noted."""
        while self._notes:
            place, offset = next(iter(self._notes.items()))
            await anyio.to_thread.run_sync(self._note, place, offset)
            if self._notes[place] == offset:
                del self._notes[place]

    def _passed_on(self, place: KeyPlace, known: KeyLetters, offset: int) -> None:
        """Note it, if there is a letter before this offset that no note stands behind."""
        if offset > known.oldest and known.written < offset and known.written <= known.newest:
            known.written = self._notes[place] = offset

    def _newest_behind(self, place: KeyPlace, offset: int) -> int:
        """Return the offset of the last message of a key that was passed on after one; -1: none."""
        # What is forgotten may have been of this key.
        dropped = self._dropped.get((place.topic, place.partition), -1)
        return max((passed.later(place) for passed in self._passed), default=-1) if dropped <= offset else dropped

    def _forget_first(self) -> Sequence[Origin | None]:
        passed = self._passed.popleft()
        self._messages -= len(passed.origins)
        return passed.origins


class KeyStage:
    """Stands right behind a source. With `park`, messages behind one with a letter become letters.

    The keys are loaded when the first message of a partition comes: another process may have read it before.
    """

    def __init__(self, keys: LetterKeys, *, park: bool) -> None:
        self._keys = keys
        self._park = park
        self._partitions: set[tuple[str, int]] = set()
        self._parts: frozenset[str] = frozenset()

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, Position):
            self._keys.position(item.number)
            self._forget_partitions(item.parts)
            await self._keys.keep_notes()
        if not isinstance(item, MessageBatch) or item.origins is None:
            return [item]
        partitions = {(origin.topic, origin.partition) for origin in item.origins if origin is not None}
        if not partitions <= self._partitions:
            await self._keys.load()
            self._partitions |= partitions
        items: Sequence[Item] = [item]
        if self._park and self._keys:
            items = _parked(self._keys, item, None)
        for each in items:
            if isinstance(each, MessageBatch) and each.origins is not None:
                self._keys.passing(each.origins)
        await self._keys.keep_notes()
        return items

    async def finish(self) -> Sequence[Item]:
        """See `Stage.finish`."""
        return ()

    async def close(self) -> None:
        """See `Stage.close`."""
        await self._keys.keep_notes()

    def _forget_partitions(self, parts: Mapping[str, bytes]) -> None:
        lost = self._parts.difference(parts)
        self._parts = frozenset(parts)
        if lost:
            self._partitions = {each for each in self._partitions if f"{each[0]}/{each[1]}" not in lost}


class ParkStage(ImmediateStage):
    """Stands right before a sink: parks what has passed all stages while an earlier message of its key was refused.

    Args:
        sink: uuid of the destination block.
    """

    def __init__(self, keys: LetterKeys, sink: str) -> None:
        self._keys = keys
        self._sink = sink

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if not isinstance(item, MessageBatch) or not self._keys:
            return [item]
        return _parked(self._keys, item, self._sink)


def _parked(keys: LetterKeys, batch: MessageBatch, sink: str | None) -> list[Item]:
    """Return a batch without the messages that are to be parked, and these."""
    kept: list[int] = []
    parked: list[Item] = []
    for number, data in enumerate(batch.data):
        origin, inferred = batch.made_of(number)
        if origin is None or not keys.follows(origin):
            kept.append(number)
            continue
        record, form = dump_data(data)
        bad = BadRecord(batch.stream, record, PARKED_ERROR, PARKED, sink=sink, origin=origin, form=form)
        parked.append(msgspec.structs.replace(bad, inferred=inferred))
    if not parked:
        return [batch]
    return [*([batch.only(kept)] if kept else []), *parked]
