"""The account of a target that echoes states: what it was sent, how far it has proven it, what may thus be saved.

Nothing here does I/O. Marks (bookmarks, offsets) are known by 64-bit hashes only.

A target is sent everything in one order. Between the records stand *places*: the marks that were forwarded to it.
Place 0 is what the target was started with. A mark map `{key: hash}` says for each key (a stream's bookmark) what its
mark was at that place; the key `*` stands for what belongs to no single stream.

What an echo proves. A target echoes marks; some echo a state as they got it once everything before it is durable
(singer-sdk), some echo a composite in which each stream's bookmark is the one it had when that stream was last
flushed (PipelineWise), some echo the first state at once, an old one again, or nothing before their end. One rule is
right for all of them: *a mark that is shown for a key, and was first forwarded at place p, proves that key's records
before p*. The same mark forwarded once more later proves nothing more, for it can't be told which of the two was
meant; so an echo of what the sink was started with (p = 0) is never progress.

Which position may be saved. Position at place k is safe for a stream if all its records before k are proven, or if
its mark at k is still the one that was saved last: then saving k moves nothing for that stream, and a rerun sends those
records again. Where nothing unproven was sent, the next place is thus safe at once (an idle table, a batch that a
filter emptied). A bookmark that the position before withheld, and this one does not, moves though its mark is the same.

A stream may have no mark of its own (an alias that the catalog does not know, a child that shares its parent's
bookmark): any mark of its source may stand for its records. Then no position of the source is safe that moves a mark
before they are proven. A composite may look exactly like the newest state when only the parent was flushed, so these
records are proven by a *serial* alone: a number beside the bookmarks, new at each place that such records wait for.
An echo that is the whole state of that place, serial and all, proves everything before it. A child whose catalog
names its parent waits for the parent's mark and its own.

Marks that are no per-stream map at all come as one, under the key `""`; everything is then accounted under that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence

from streamline.flow.items import REST, Position

MAX_PLACES = 100_000
"""Places and first-seen marks kept per sink; more are thinned out, which only makes saving coarser."""

MAX_POSITION_BYTES = 16 << 20
"""Bytes of position values kept per sink."""

Marks = Mapping[str, int]

WHOLE = ""
"""Key of a mark that is no per-stream map."""
SERIAL = "#"
"""Key of the number that tells a place from all others."""
RESERVED = frozenset((WHOLE, REST, SERIAL))
"""Keys that no stream may have here."""


class _Key:
    """The marks of one key that were forwarded since the last proof."""

    __slots__ = ("changes", "first", "mark")

    def __init__(self) -> None:
        self.changes: deque[int] = deque()
        """Places after the proven one at which the mark changed."""
        self.mark: int | None = None
        self.first: dict[int, int] = {}
        """Mark → the place where it was first forwarded."""


class _Sent:
    """The records of one stream that were sent."""

    __slots__ = ("intervals", "keys", "parents", "records", "source")

    def __init__(self, source: str, keys: Sequence[str], parents: Sequence[str]) -> None:
        self.source = source
        self.keys = keys
        self.parents = parents
        self.intervals: deque[int] = deque()
        """Number of the last place before each unproven run of records."""
        self.records: deque[int] = deque()
        """How many records each of them has."""

    def cover(self, place: int) -> int:
        """Return how many records are proven that were not before: those before a place."""
        records = 0
        while self.intervals and self.intervals[0] < place:
            self.intervals.popleft()
            records += self.records.popleft()
        return records


class EchoAccount:
    """The account of one target over one session (the life of one target process).

    Args:
        max_places: bound of everything that is kept.
    """

    def __init__(self, *, max_places: int = MAX_PLACES, max_position_bytes: int = MAX_POSITION_BYTES) -> None:
        self._max = max_places
        self._max_bytes = max_position_bytes
        self._keys: dict[str, _Key] = {}
        self._sent: dict[tuple[str, str], _Sent] = {}
        self._dirty: dict[tuple[str, str], _Sent] = {}
        self._moves: dict[str, deque[int]] = {}  # source → places after the proven one at which a mark of it changed
        self._wholes: dict[int, int] = {}  # marks with a serial → their place
        self._per_stream = True
        self._place = 0
        self._proven = 0
        self._entries: deque[tuple[int, Position]] = deque()
        self._entry_bytes = 0
        self._stride = 1
        self._skipped = 0
        self._confirmed: dict[tuple[str, str], int] = {}

    def start(self, marks: Marks) -> None:
        """Note that the target was sent `marks` before anything else: an echo of them is no progress."""
        self._note(marks)
        for key in self._keys.values():
            key.changes.clear()

    @property
    def unproven(self) -> bool:
        """Whether records were sent that no echo has proven."""
        return bool(self._dirty)

    @property
    def serial(self) -> int | None:
        """The serial that the next place needs; None if marks alone can prove all records before it."""
        unclear = any(sent.parents or not self._own(sent) for sent in self._dirty.values())
        return self._place + 1 if unclear else None

    def sent(
        self, source: str, stream: str, keys: Sequence[str], parents: Sequence[str] = (), records: int = 0
    ) -> None:
        """Note that records of a source's stream were sent.

        Args:
            keys: under which its mark may stand; none if that is not known.
            parents: keys whose marks may stand for its records, too.
            records: how many.
        """
        sent = self._sent.get((source, stream))
        if sent is None:
            sent = self._sent[source, stream] = _Sent(source, keys, parents)
        self._dirty.setdefault((source, stream), sent)
        if not sent.intervals or sent.intervals[-1] != self._place:
            sent.intervals.append(self._place)
            sent.records.append(0)
        sent.records[-1] += records

    def take_confirmed(self) -> Mapping[tuple[str, str], int]:
        """Return how many records, by source and stream, were proven since it was last asked."""
        confirmed, self._confirmed = self._confirmed, {}
        return confirmed

    def wants_place(self) -> bool:
        """Return whether the next position should get a place; False while so many wait that they are thinned out.

        A position without a place must not be forwarded to the target; a later one covers it. The last position of a
        source must get a place in any case.
        """
        if len(self._entries) >= self._max or self._entry_bytes >= self._max_bytes:
            self._thin()
        self._skipped += 1
        return self._skipped >= self._stride

    def place(self, position: Position, marks: Marks, released: Collection[str] = ()) -> dict[str, Position]:
        """Note that `position` was forwarded to the target, whose marks are then `marks` (of all sources, merged).

        Args:
            released: keys that the source's position before withheld, and this one does not.

        Returns:
            The positions, by source, that are proven at once by that; often none.
        """
        self._skipped = 0
        self._place += 1
        moved = self._note(marks)
        for key in released:
            state = self._keys.get(key if self._per_stream else WHOLE)
            if state is not None and (not state.changes or state.changes[-1] != self._place):
                state.changes.append(self._place)
        if moved or released:
            self._moves.setdefault(position.source, deque()).append(self._place)
        if SERIAL in marks:
            if len(self._wholes) >= self._max:
                del self._wholes[next(iter(self._wholes))]
            self._wholes[_sum(marks)] = self._place
        self._entries.append((self._place, position))
        self._entry_bytes += position.nbytes
        return self._advance()

    def echo(self, marks: Marks) -> dict[str, Position]:
        """Note that the target echoed `marks`.

        Returns:
            The newest position of each source that is now proven and was not before.
        """
        shown = self._accounted(marks)
        whole = self._wholes.get(_sum(marks), 0) if SERIAL in marks else 0
        for name, sent in list(self._dirty.items()):
            places = [whole]
            for key in self._own(sent):
                mark = shown.get(key)
                if mark is not None:
                    places.append(self._keys[key].first.get(mark, 0))
            self._cover(name, max(places))
        return self._advance()

    def recognises(self, marks: Marks) -> bool:
        """Return whether every mark of an echo was forwarded before; for the log only."""
        shown = self._accounted(marks)
        return all(key in self._keys and mark in self._keys[key].first for key, mark in shown.items())

    def ended(self) -> dict[str, Position]:
        """Note that the target exited with 0 after the end of its input, which proves all that was sent."""
        for name in list(self._dirty):
            self._cover(name, self._place + 1)
        return self._advance()

    # -- marks

    def _own(self, sent: _Sent) -> list[str]:
        """Return the keys under which marks of a stream were forwarded."""
        keys = sent.keys if self._per_stream else (WHOLE,)
        return [key for key in keys if key in self._keys]

    def _accounted(self, marks: Marks) -> Marks:
        """Return `marks` by stream, without a serial; or all of them as one."""
        rest = {key: mark for key, mark in marks.items() if key != SERIAL}
        return rest if self._per_stream else {WHOLE: _sum(rest)}

    def _note(self, marks: Marks) -> bool:
        """Keep the marks that are forwarded; return whether one has changed."""
        if WHOLE in marks:
            self._per_stream = False
        changed = [key for key, mark in self._accounted(marks).items() if self._note_one(key, mark)]
        return bool(changed)

    def _note_one(self, name: str, mark: int) -> bool:
        state = self._keys.get(name)
        if state is None:
            state = self._keys[name] = _Key()
        if state.mark == mark:
            return False
        state.mark = mark
        state.changes.append(self._place)
        if mark in state.first:
            return True
        if len(state.first) >= self._max:
            # Only marks at or before the proven place are forgotten: an echo can't go back to them and mean more. That
            # of the start is kept: targets may echo it at any time, and a tap may go back to it.
            oldest = next((known for known, place in state.first.items() if place), None)
            if oldest is None or state.first[oldest] > self._proven:
                return True
            del state.first[oldest]
        state.first[mark] = self._place
        return True

    # -- proof

    def _cover(self, name: tuple[str, str], place: int) -> None:
        sent = self._dirty[name]
        if records := sent.cover(place):
            self._confirmed[name] = self._confirmed.get(name, 0) + records
        if not sent.intervals:
            del self._dirty[name]

    def _limit(self, sent: _Sent) -> int | None:
        """Return the last place that is safe to save while these records are unproven; None if any is."""
        own = self._own(sent)
        parents = sent.parents if self._per_stream else ()
        if own and all(key in self._keys for key in parents):
            awaited = [self._keys[key].changes for key in (*own, *parents, REST) if key in self._keys]
        else:
            awaited = [self._moves.get(sent.source, deque())]
        changes = [places[0] for places in awaited if places]
        return max(sent.intervals[0], min(changes) - 1) if changes else None

    def _advance(self) -> dict[str, Position]:
        safe = self._place
        for sent in self._dirty.values():
            limit = self._limit(sent)
            if limit is not None and limit < safe:
                safe = limit
        if safe <= self._proven:
            return {}
        self._proven = safe
        for places in (*(state.changes for state in self._keys.values()), *self._moves.values()):
            while places and places[0] <= safe:
                places.popleft()
        newest: dict[str, Position] = {}
        while self._entries and self._entries[0][0] <= safe:
            _, position = self._entries.popleft()
            self._entry_bytes -= position.nbytes
            newest[position.source] = position
        if newest:
            self._stride = 1
        return newest

    def _thin(self) -> None:
        """Forget every second waiting position; never the newest."""
        self._stride *= 2
        kept: deque[tuple[int, Position]] = deque()
        last: dict[str, tuple[int, Position]] = {entry[1].source: entry for entry in self._entries}
        for number, entry in enumerate(self._entries):
            if number % 2 or last[entry[1].source] is entry:
                kept.append(entry)
        self._entries = kept
        self._entry_bytes = sum(position.nbytes for _, position in kept)


def _sum(marks: Marks) -> int:
    return hash(tuple(sorted(marks.items())))
