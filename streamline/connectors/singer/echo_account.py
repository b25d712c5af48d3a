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

Which position may be saved. Position at place k is safe for a key if all its records before k are proven, or if its
mark at k is still the one that was saved last: then saving k moves nothing for that key, and a rerun sends those
records again. Where nothing unproven was sent, the next place is thus safe at once (an idle table, a batch that a
filter emptied).

A stream whose records bear a name that is no key of the marks (an alias that the catalog does not know) is accounted
under the key `?`, which stands for all marks that no known stream claims. Marks that are no per-stream map at all
come as one, under the key `""`; everything is then accounted under that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from streamline.flow.items import REST, Position

MAX_PLACES = 100_000
"""Places and first-seen marks kept per sink; more are thinned out, which only makes saving coarser."""

MAX_POSITION_BYTES = 16 << 20
"""Bytes of position values kept per sink."""

Marks = Mapping[str, int]

WHOLE = ""
"""Key of a mark that is no per-stream map."""
_UNCLAIMED = "?"
RESERVED = frozenset((WHOLE, REST, _UNCLAIMED))
"""Keys that no stream may have here."""


class _Key:
    """The account of one key: unproven records, and the marks forwarded since the last proof."""

    __slots__ = ("changes", "covered", "first", "intervals", "mark")

    def __init__(self) -> None:
        self.intervals: deque[int] = deque()
        """Number of the last place before each unproven run of records."""
        self.covered = 0
        """Records of intervals below this are proven."""
        self.changes: deque[int] = deque()
        """Places after the proven one at which the mark changed."""
        self.mark: int | None = None
        self.first: dict[int, int] = {}
        """Mark → the place where it was first forwarded."""

    def cover(self, place: int) -> None:
        if place > self.covered:
            self.covered = place
            while self.intervals and self.intervals[0] < place:
                self.intervals.popleft()


class EchoAccount:
    """The account of one target over one session (the life of one target process).

    Args:
        known: keys that are streams of the source (the catalog's `tap_stream_id`s); marks under other keys may
            belong to streams that go by another name.
        max_places: bound of everything that is kept.
    """

    def __init__(
        self,
        known: frozenset[str] = frozenset(),
        *,
        max_places: int = MAX_PLACES,
        max_position_bytes: int = MAX_POSITION_BYTES,
    ) -> None:
        self._known = set(known)
        self._max = max_places
        self._max_bytes = max_position_bytes
        self._keys: dict[str, _Key] = {}
        self._sent: dict[str, _Key] = {}
        self._dirty: set[str] = set()
        self._per_stream = True
        self._sum_changed = False
        self._place = 0
        self._proven = 0
        self._entries: deque[tuple[int, Position]] = deque()
        self._entry_bytes = 0
        self._stride = 1
        self._skipped = 0

    def start(self, marks: Marks) -> None:
        """Note that the target was sent `marks` before anything else: an echo of them is no progress."""
        self._note(marks)
        for key in self._keys.values():
            key.changes.clear()

    @property
    def unproven(self) -> bool:
        """Whether records were sent that no echo has proven."""
        return bool(self._dirty)

    def sent(self, stream: str) -> None:
        """Note that records of `stream` (a key of the marks, where one is known) were sent."""
        name = stream
        if name not in self._dirty:
            self._dirty.add(name)
        key = self._sent.get(name)
        if key is None:
            key = self._sent[name] = _Key()
        if not key.intervals or key.intervals[-1] != self._place:
            key.intervals.append(self._place)

    def wants_place(self) -> bool:
        """Whether the next position should get a place; False while so many wait that they are thinned out.

        A position without a place must not be forwarded to the target; a later one covers it. The last position of a
        source must get a place in any case.
        """
        if len(self._entries) >= self._max or self._entry_bytes >= self._max_bytes:
            self._thin()
        self._skipped += 1
        return self._skipped >= self._stride

    def place(self, position: Position, marks: Marks) -> dict[str, Position]:
        """Note that `position` was forwarded to the target, whose marks are then `marks` (of all sources, merged).

        Returns:
            The positions, by source, that are proven at once by that; often none.
        """
        self._skipped = 0
        self._place += 1
        self._note(marks)
        self._entries.append((self._place, position))
        self._entry_bytes += position.nbytes
        return self._advance()

    def echo(self, marks: Marks) -> dict[str, Position]:
        """Note that the target echoed `marks`.

        Returns:
            The newest position of each source that is now proven and was not before.
        """
        self._claim(marks)
        shown = self._accounted(marks)
        for name in list(self._dirty):
            effective = self._effective(name)
            mark = shown.get(effective)
            state = self._keys.get(effective)
            if mark is None or state is None:
                continue
            first = state.first.get(mark)
            if first:
                self._cover(name, first)
        return self._advance()

    def recognises(self, marks: Marks) -> bool:
        """Whether every mark of an echo was forwarded before; for the log only."""
        shown = self._accounted(marks)
        return all(key in self._keys and mark in self._keys[key].first for key, mark in shown.items())

    def ended(self) -> dict[str, Position]:
        """Note that the target exited with 0 after the end of its input, which proves all that was sent."""
        for name in list(self._dirty):
            self._cover(name, self._place + 1)
        return self._advance()

    # -- marks

    def _effective(self, stream: str) -> str:
        if not self._per_stream:
            return WHOLE
        return stream if stream in self._keys else _UNCLAIMED

    def _accounted(self, marks: Marks) -> dict[str, int]:
        """Return `marks` with a sum of those that no known stream claims; or all of them as one."""
        if not self._per_stream:
            return {WHOLE: marks[WHOLE] if WHOLE in marks else hash(tuple(sorted(marks.items())))}
        result = dict(marks)
        unclaimed = tuple(sorted((key, mark) for key, mark in marks.items() if key not in self._known and key != REST))
        if unclaimed:
            result[_UNCLAIMED] = hash(unclaimed)
        return result

    def _note(self, marks: Marks) -> None:
        if WHOLE in marks:
            self._per_stream = False
        self._claim(marks)
        for name, mark in self._accounted(marks).items():
            # If `?` now stands for other keys, the same marks may have been forwarded before under another sum.
            self._note_one(name, mark, matchable=not (self._sum_changed and name == _UNCLAIMED))
        self._sum_changed = False

    def _claim(self, marks: Marks) -> None:
        """Take the keys of `marks` under which records were sent out of the sum `?`: they are streams themselves.

        An echo may show such a key for the first time after its first record; it then proves that stream alone.
        """
        claimed = [key for key in marks if key in self._sent and key not in self._known]
        if claimed:
            self._known.update(claimed)
            self._sum_changed = True

    def _note_one(self, name: str, mark: int, *, matchable: bool) -> None:
        state = self._keys.get(name)
        if state is None:
            state = self._keys[name] = _Key()
        if state.mark == mark:
            return
        state.mark = mark
        state.changes.append(self._place)
        if mark in state.first:
            return
        if len(state.first) >= self._max:
            # Only marks at or before the proven place are forgotten: an echo can't go back to them and mean more.
            oldest = next(iter(state.first))
            if state.first[oldest] > self._proven:
                return
            del state.first[oldest]
        # A mark that must not be matched is remembered at place 0, where it proves nothing.
        state.first[mark] = self._place if matchable else 0

    # -- proof

    def _cover(self, name: str, place: int) -> None:
        key = self._sent[name]
        key.cover(place)
        if not key.intervals:
            self._dirty.discard(name)

    def _first_change(self, name: str) -> int | None:
        state = self._keys.get(name)
        return state.changes[0] if state is not None and state.changes else None

    def _limit(self, name: str) -> int | None:
        """Return the last place that is safe to save for stream `name`; None if any is."""
        unproven = self._sent[name].intervals[0]
        changes = [change for key in (self._effective(name), REST) if (change := self._first_change(key)) is not None]
        if not changes:
            return None
        return max(unproven, min(changes) - 1)

    def _advance(self) -> dict[str, Position]:
        safe = self._place
        for name in self._dirty:
            limit = self._limit(name)
            if limit is not None and limit < safe:
                safe = limit
        if safe <= self._proven:
            return {}
        self._proven = safe
        for state in self._keys.values():
            while state.changes and state.changes[0] <= safe:
                state.changes.popleft()
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
