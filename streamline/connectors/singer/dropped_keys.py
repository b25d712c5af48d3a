"""Tells what a tap has dropped from its STATE from what it only did not repeat.

Most taps show all their bookmarks in each STATE; one that is missing is done with, and must not be given to the next
run. Some show only the bookmarks of the stream that they are reading; the others stay valid.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from streamline.connectors.singer.state import StateParts, has_bookmarks, join_state, split_state, state_of
from streamline.flow.items import REST, Item, Position
from streamline.flow.protocols import Emit, Source, WrappedSource


class DroppedKeys:
    """Compares the STATEs of one tap process.

    A tap takes turns if one of its STATEs drops a stream's bookmark and adds another's, or if one that was dropped
    comes back. From then on its STATEs are merged, and no stream's bookmark is forgotten.

    Args:
        given: the keys of the saved bookmarks that the tap reads on from, or reads anew.
        is_stream: whether a key is a stream's. Other keys are forgotten as soon as they are missing, streams at the
            tap's end. Where none of a STATE's keys is a stream's, all of them may be.
    """

    def __init__(self, keys: Collection[str], is_stream: Callable[[str], bool]) -> None:
        self._initial = frozenset(keys)
        self._is_stream = is_stream
        self._has_rest = REST in keys
        self._others = {key for key in keys if not is_stream(key)} - {REST}
        """Keys that are no stream's."""
        self._shown: dict[str, bytes] = {}
        """The last value of each bookmark of a stream."""
        self._current: frozenset[str] = frozenset()
        """The streams with a bookmark in the last STATE."""
        self._turns = False
        self._several = False
        """Whether a STATE had the bookmarks of several streams."""
        self._gone: set[str] = set()

    def next(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return the parts of the tap's next position; those that are forgotten by now are `FORGOTTEN`."""
        text = state_of(parts)
        bookmarks = split_state(text)
        rest = bookmarks.pop(REST, None)
        self._has_rest = self._has_rest or rest is not None
        if not has_bookmarks(text):
            return parts
        known = frozenset(filter(self._is_stream, bookmarks))
        streams = known or frozenset(bookmarks)
        added, missing = streams - self._current, self._current - streams
        self._turns = self._turns or bool(added and missing) or not added.isdisjoint(self._shown)
        self._several = self._several or len(streams) > 1
        self._shown.update((key, bookmarks[key]) for key in streams)
        self._current = streams
        if self._turns:
            merged = {**self._shown, **bookmarks, **({} if rest is None else {REST: rest})}
            return parts if streams == self._shown.keys() else StateParts(join_state(merged))
        if known:
            self._others |= bookmarks.keys() - known
            self._gone |= self._others
        self._gone -= bookmarks.keys()
        gone = self._gone | {REST} if rest is None and self._has_rest else self._gone
        return StateParts(text, gone) if gone else parts

    def at_end(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes] | None:
        """Return the parts of a last position after the tap's end, if it has dropped streams' bookmarks.

        Args:
            parts: of its last STATE, from `next`.
        """
        text = state_of(parts)
        if self._turns or not has_bookmarks(text):
            return None
        # One that never showed two streams at a time may take turns.
        gone = (self._shown.keys() | (self._initial if self._several else set())) - self._current - parts.keys()
        return StateParts(text, gone | {key for key in parts if not parts[key]}) if gone else None


class DroppedKeysSource(WrappedSource):
    """A source whose positions say what its tap has dropped.

    Args:
        source: the tap, with its mappers.
    """

    def __init__(self, source: Source, keys: DroppedKeys) -> None:
        super().__init__(source)
        self._keys = keys
        self._last: Position | None = None

    async def run(self, emit: Emit) -> None:
        """See `Source.run`."""

        async def take(items: Sequence[Item]) -> None:
            await emit([self._compared(item) if isinstance(item, Position) else item for item in items])

        await self._source.run(take)
        last = self._last
        if last is not None and self.stopped is None and (parts := self._keys.at_end(last.parts)) is not None:
            await emit([Position(last.source, last.number + 1, parts)])

    def _compared(self, position: Position) -> Position:
        self._last = msgspec.structs.replace(position, parts=self._keys.next(position.parts))
        return self._last
