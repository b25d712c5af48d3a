"""Groups a tap's records between two STATEs by stream: many small runs of lines become few batches."""

from __future__ import annotations

from collections.abc import Set

from streamline.connectors.singer.state import StateParts, keys_of
from streamline.flow.items import Buffer, Item, Position, RawBatch


class _Group:
    """Lines of one stream that belong together."""

    __slots__ = ("count", "nbytes", "prefix", "slices")

    def __init__(self, prefix: bytes | None) -> None:
        self.slices: list[Buffer] = []
        self.count = 0
        self.nbytes = 0
        self.prefix = prefix

    def add(self, part: Buffer, count: int, prefix: bytes | None) -> None:
        self.slices.append(part)
        self.count += count
        self.nbytes += len(part)
        if prefix is not self.prefix and prefix != self.prefix:
            self.prefix = None

    def join(self, other: _Group) -> None:
        self.slices += other.slices
        self.count += other.count
        self.nbytes += other.nbytes
        if other.prefix != self.prefix:
            self.prefix = None


class Segment:
    """Collects records before the newest STATE, that STATE, and the records after it.

    The order is kept within a stream, but not between streams. A newer STATE replaces the one before,
    unless it lacks a bookmark of that one.

    Args:
        source: the source id of the positions.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._positions = 0
        self._items: list[Item] = []
        self._before: dict[str, _Group] = {}
        self._state: bytes | None = None
        self._keys: Set[str] | None = None
        """The bookmarks of the newest STATE, once it was compared with the one before it."""
        self._after: dict[str, _Group] = {}

    def add(self, stream: str, part: Buffer, count: int, prefix: bytes | None) -> None:
        """Add lines of one stream.

        Args:
            stream: the name in their messages.
            part: whole lines, with their newlines.
            count: how many they are.
            prefix: the beginning of each of them, up to the record, if it is the same.
        """
        groups = self._before if self._state is None else self._after
        group = groups.get(stream)
        if group is None:
            group = groups[stream] = _Group(prefix)
        group.add(part, count, prefix)

    def set_state(self, value: bytes) -> None:
        """Make a STATE the newest one: it covers all records so far."""
        keys = None
        if self._state is not None:
            before = self._keys if self._keys is not None else keys_of(self._state)
            keys = keys_of(value)
            if before is None or keys is None or not before <= keys:
                self._close()
        for stream, group in self._after.items():
            earlier = self._before.get(stream)
            if earlier is None:
                self._before[stream] = group
            else:
                earlier.join(group)
        self._after.clear()
        self._state, self._keys = value, keys

    def close_with(self, item: Item) -> None:
        """End the segment with a message that no record may pass, such as a SCHEMA."""
        self._close()
        self._items.append(item)

    def take(self) -> list[Item]:
        """End the segment and return all items since the last call."""
        self._close()
        items, self._items = self._items, []
        return items

    def _close(self) -> None:
        self._emit(self._before)
        if self._state is not None:
            self._positions += 1
            self._items.append(Position(self._source, self._positions, StateParts(self._state)))
            self._state = None
        self._emit(self._after)

    def _emit(self, groups: dict[str, _Group]) -> None:
        for stream, group in groups.items():
            self._items.append(RawBatch(stream, group.slices, group.count, group.nbytes, group.prefix))
        groups.clear()
