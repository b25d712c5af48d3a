"""Tumbling and sliding windows of one partition.

An entry of the state is named by end, start and key, in this order: the entries of a window stand together, and the
windows in the order in which they close. So nothing has to be read when the pipeline starts again, and no index of
entries has to fit into memory: what is held there is what came since the start, up to a limit.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import Any

from streamline.blocks.python.messages.keyed_state import BlockState
from streamline.blocks.python.messages.window_contents import (
    FRAME,
    SIMPLE,
    Folding,
    copied,
    decoded_messages,
    joined,
    split,
)
from streamline.blocks.python.messages.window_settings import WindowSettings
from streamline.blocks.python.messages.window_store import (
    NONE_DIRECT,
    Closed,
    Direct,
    PartitionWindows,
    after,
    packed,
    unpacked,
)

_MISSING: Any = object()

MOST_HELD = 500_000
"""Entries of the state that a partition's windows hold in memory."""

PIECE_BYTES = 4096

_START = 11
"""Where the start stands in a name, behind a tag of three bytes and the end."""
_KEY = 19


class _OpenWindow(ABC):
    """A window of all keys.

    Args:
        name: begins the names of its entries.
        complete: all of them are in `held`.

    Attributes:
        new: what has changed since the last flush, by key.
        held: what is in the state, by key.
    """

    __slots__ = ("complete", "end", "held", "name", "new", "partition", "start")

    def __init__(self, partition: FixedWindows, start: int, end: int, *, complete: bool) -> None:
        self.partition = partition
        self.start = start
        self.end = end
        self.name = partition.tag + packed(end) + packed(start)
        self.complete = complete
        self.new: dict[bytes, Any] = {}
        self.held: dict[bytes, Any] = {}

    def release(self) -> None:
        """Hold nothing any more that is in the state."""
        self.held = {}
        self.complete = False

    def stored(self) -> list[bytes]:
        """Return the names of entries that are in the state and not in `held`."""
        return [] if self.complete else self.partition.state.names(self.name, after(self.name))

    def add(self, key: bytes, message: Any) -> None:
        """Add a message."""
        self.take(key, self.changed(key, message))

    @abstractmethod
    def changed(self, key: bytes, message: Any) -> Any:
        """Return what `new` gets for a message; changes nothing yet."""

    @abstractmethod
    def take(self, key: bytes, change: Any) -> None:
        """Take what `changed` has returned."""

    @abstractmethod
    def collect(self) -> None:
        """Add to the changes of the state what is new."""

    @abstractmethod
    def contents(self) -> Iterator[tuple[bytes, Any]]:
        """Yield what it holds by key, in the order of keys, and delete its entries from the state."""


class _MessagesWindow(_OpenWindow):
    """Keeps messages. Each flush adds an entry for each key that has new ones; its number ends its name."""

    __slots__ = ()

    def add(self, key: bytes, message: Any) -> None:
        before = self.new.get(key)
        if before is None:
            self.new[key] = message
        elif type(before) is not bytes:
            before.append(message)
        elif len(before) + len(message) + len(key) < self.partition.piece:
            self.new[key] = before + message  # cheaper than a list, and smaller
        else:
            self.new[key] = [before, message]

    def changed(self, key: bytes, message: Any) -> Any:
        return message

    def take(self, key: bytes, change: Any) -> None:
        self.add(key, change)

    def collect(self) -> None:
        partition, held = self.partition, self.held
        changes, most, first = partition.changes, partition.state.max_bytes or 1 << 62, partition.meta.number + 1
        suffix = packed(first)
        one: tuple[int, ...] = (first,)
        for key, new in self.new.items():
            messages = (new,) if type(new) is bytes else new
            value, numbers = joined(messages), one
            if len(value) + len(key) + FRAME <= most:
                changes[self.name + key + suffix] = value
            else:
                values = list(split(messages, key, most))
                numbers = tuple(range(first, first + len(values)))
                for number, value in zip(numbers, values, strict=True):
                    changes[self.name + key + packed(number)] = value
                partition.used = max(partition.used, numbers[-1])
            before = held.get(key)
            if before is None:
                held[key] = numbers
            elif type(before) is list:
                before += numbers
            else:
                held[key] = [*before, *numbers]
        if self.new:
            partition.used = max(partition.used, first)
        self.new = {}

    def contents(self) -> Iterator[tuple[bytes, Any]]:
        state, changes = self.partition.state, self.partition.changes
        held, new = self.held, self.new
        if not self.complete:
            held = {}
            for name in self.stored():  # those of a key are in the order of their numbers
                held.setdefault(name[_KEY:-8], []).append(unpacked(name, -8))
        for key in sorted(held.keys() | new.keys()):
            messages: list[Any] = []
            for number in held.get(key, ()):
                name = self.name + key + packed(number)
                messages += decoded_messages(state.read(name) or b"[]")
                changes[name] = None
            if key in new:
                messages += decoded_messages(joined((new[key],) if type(new[key]) is bytes else new[key]))
            yield key, messages


class _FoldedWindow(_OpenWindow):
    """Keeps values."""

    __slots__ = ("fold",)

    def __init__(self, partition: FixedWindows, start: int, end: int, *, complete: bool) -> None:
        super().__init__(partition, start, end, complete=complete)
        self.fold = partition.folding.add

    def add(self, key: bytes, message: Any) -> None:
        new = self.new
        value = new.get(key, _MISSING)
        if value is _MISSING:
            value = self.held.get(key, _MISSING)
            if value is _MISSING:
                value = self._before(key)
        if type(value) not in SIMPLE:
            value = copied(value)
        try:
            new[key] = self.fold(value, message)
        except (Exception, SystemExit) as error:
            raise self.partition.folding.raised(error) from None

    def changed(self, key: bytes, message: Any) -> Any:
        value = self.new.get(key, _MISSING)
        if value is _MISSING:
            value = self.held.get(key, _MISSING)
        return self.partition.folding.added(self._before(key) if value is _MISSING else value, message)

    def _before(self, key: bytes) -> Any:
        """Return a value that is not in memory."""
        partition = self.partition
        raw = None if self.complete else partition.state.read(self.name + key)
        return partition.folding.initial if raw is None else partition.folding.decoded(raw)

    def take(self, key: bytes, change: Any) -> None:
        self.new[key] = change

    def collect(self) -> None:
        partition = self.partition
        encoded, most = partition.folding.encoded, partition.state.max_bytes
        changes, name = partition.changes, self.name
        for key, value in self.new.items():
            changes[name + key] = b"%d" % value if type(value) is int else encoded(value, key, most)
        if self.held:
            self.held.update(self.new)
        else:
            self.held = self.new
        self.new = {}

    def contents(self) -> Iterator[tuple[bytes, Any]]:
        partition = self.partition
        known = {**self.held, **self.new}
        inside: Collection[bytes] = self.held
        if not self.complete:
            inside = {*inside, *(name[_KEY:] for name in self.stored())}
        changes, prefix = partition.changes, self.name
        for key in sorted(known if self.complete else known.keys() | inside):
            name = prefix + key
            if key in inside:
                changes[name] = None
            if key in known:
                yield key, known[key]
            elif (raw := partition.state.read(name)) is not None:
                yield key, partition.folding.decoded(raw)


class FixedWindows(PartitionWindows):
    """Tumbling and sliding windows.

    Args:
        folding: None: windows keep messages.
    """

    def __init__(self, settings: WindowSettings, state: BlockState, folding: Folding | None, block: str) -> None:
        super().__init__(state, b"m" if folding is None else b"f", block)
        self.settings = settings
        self._folding = folding
        self.piece = min(PIECE_BYTES, state.max_bytes or PIECE_BYTES) - FRAME
        """Messages of one key are joined at once as long as they are shorter, the key counted."""
        self.used = 0
        """The newest number of an entry."""
        self._windows: dict[tuple[int, int], _OpenWindow] = {}
        self._starts: dict[int, _OpenWindow] = {}
        """Those of the size that is set now, by their starts."""
        self._newest: _OpenWindow | None = None
        """The one that took the newest message, where each message is in one window."""
        self._ends: list[tuple[int, int]] = []
        first, last = self.tag, after(self.tag)
        while (name := next((name for name, _ in state.restored(first, last)), None)) is not None:
            self._make(unpacked(name, _START), unpacked(name, len(self.tag)), complete=False)
            first = after(name[:_KEY])

    @property
    def folding(self) -> Folding:
        """What folds messages."""
        assert self._folding is not None
        return self._folding

    def _make(self, start: int, end: int, *, complete: bool) -> _OpenWindow:
        kind = _MessagesWindow if self._folding is None else _FoldedWindow
        window = self._windows[end, start] = kind(self, start, end, complete=complete)
        if end - start == self.settings.size:
            self._starts[start] = window
        heapq.heappush(self._ends, (end, start))
        return window

    def add(self, key: bytes, at: int, message: Any, watermark: int | None) -> bool:
        """See `PartitionWindows.add`."""
        size, step = self.settings.size, self.settings.step
        start = at - at % step
        if size == step and (window := self._starts.get(start)) is not None:
            self._newest = window
            window.add(key, message)
            return True
        changes: list[tuple[_OpenWindow, Any]] = []
        while (end := start + size) > at and (watermark is None or end > watermark):
            window = self._starts.get(start) or self._make(start, end, complete=True)
            changes.append((window, window.changed(key, message)))
            start -= step
        for window, change in changes:
            window.take(key, change)
        return bool(changes)

    @property
    def direct(self) -> Direct:
        """See `PartitionWindows.direct`."""
        newest = self._newest
        return NONE_DIRECT if newest is None else (newest.start, newest.end, newest.add)

    def closed(self, watermark: int) -> Iterator[Closed]:
        """See `PartitionWindows.closed`."""
        while self._ends and self._ends[0][0] <= watermark:
            end, start = heapq.heappop(self._ends)
            window = self._windows.pop((end, start))
            if self._starts.get(start) is window:
                del self._starts[start]
            if window is self._newest:
                self._newest = None
            for key, held in window.contents():
                yield key, start, end, held

    @property
    def earliest(self) -> int | None:
        """The first end of an open window."""
        return self._ends[0][0] if self._ends else None

    def collect(self) -> None:
        """See `PartitionWindows.collect`."""
        self.used = self.meta.number
        for window in self._windows.values():
            window.collect()
        self.meta.number = self.used
        if sum(len(window.held) for window in self._windows.values()) > MOST_HELD:
            for window in self._windows.values():
                window.release()
