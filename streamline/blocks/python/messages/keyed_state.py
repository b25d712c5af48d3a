"""The keyed state of a transformer block: `kwargs['state']`, and what changes it until it is saved.

Changes are kept beside what is saved until the position is saved that they belong to: a failed attempt leaves nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from streamline.flow.items import MessageBatch, Origin
from streamline.flow.keyed_state import Place, StateStore

WRITE_SECONDS = 10.0
"""Saved changes are written to the store after so long: of a key that changes often, only the last one is."""

MOST_WAITING = 300_000
MOST_WAITING_BYTES = 64 << 20
"""They are written earlier if they are more."""

MARK_SECONDS = 1.0
"""The logs are asked for where they stand no more often."""

_MISSING: Any = object()
_JSON = msgspec.json.Encoder()

Changes = dict[bytes, bytes | None]


class State:
    """What the function gets as `state`. Values are JSON; each `get` returns a new object.

    A key is the key of a message in the current call, as text (or bytes, as it was read); where the sources have no
    partitions it is any text.

    Raises:
        LookupError: no message of the call has this key.
    """

    def __init__(self, block: BlockState) -> None:
        self._block = block

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a key's value, `default` if it has none."""
        value = self._block.read(self._key(key))
        return msgspec.json.decode(value) if value is not None else default

    def set(self, key: Any, value: Any) -> None:
        """Set a key's value.

        Raises:
            TypeError: JSON cannot express it.
            ValueError: it is larger than the state's topic takes.
        """
        name = self._key(key)
        encoded = _JSON.encode(value)
        limit = self._block.max_bytes
        if limit is not None and len(encoded) + len(name) > limit:
            raise ValueError(f"the state of key {key!r} has {len(encoded):,} bytes, and its topic takes {limit:,}")
        self._block.change(name, encoded)

    def delete(self, key: Any) -> None:
        """Forget a key's value, if it has one."""
        self._block.change(self._key(key), None)

    def _key(self, key: Any) -> bytes:
        name: bytes = key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogateescape")
        if not self._block.any_key and name not in self._block.keys:
            raise LookupError(
                f"{key!r} is the key of no message in this call: state belongs to the partition of a key, which only "
                "the message's own key tells"
            )
        return self._block.prefix + name


class Index(Protocol):
    """What somebody keeps of a partition beside its state."""

    def flush(self) -> None:
        """Put what is not in the state yet into it: a position is about to cover it."""
        ...


class _Proposed(NamedTuple):
    """Changes that a position covers, by partition, and where the logs stood before them."""

    number: int
    changes: dict[Place, Changes]
    marks: Mapping[Place, int]


class BlockState:
    """The state of a block. Its thread uses it.

    Attributes:
        calls: is given to the function.
        keys: of the messages in the current call.
        max_bytes: the most bytes of a value and its key.
        any_key: see `StateStore.any_key`.
        prefix: begins the names of what the function sets.
        place: the partition that is open.
        indexes: what somebody keeps of a partition; dropped with it, and flushed before a position covers it.
    """

    def __init__(self, store: StateStore) -> None:
        store.start()
        self.calls = State(self)
        self.max_bytes = store.max_bytes
        self.any_key = store.any_key
        self.prefix = b""
        self.indexes: dict[Place, Index] = {}
        self._store = store
        self.place = Place("", -1)
        self._batch: MessageBatch | None = None
        self._range = range(0)
        self._keys: frozenset[bytes] | None = frozenset()
        self._call: Changes = {}
        """Changed by the current call."""
        self._overlay: dict[Place, Changes] = {}
        """All that the store does not have yet."""
        self._changed: dict[Place, Changes] = {}
        """Since the last position."""
        self._proposed: dict[str, deque[_Proposed]] = {}
        """By source: what is on its way with a position that is not saved."""
        self._saved: dict[Place, tuple[Changes, int | None]] = {}
        """Saved, and not in the store yet."""
        self._waiting = self._waiting_bytes = 0
        self._written_at = self._marked_at = time.monotonic()

    # -- in a call

    @property
    def keys(self) -> frozenset[bytes]:
        """See above."""
        if self._keys is None:
            assert self._batch is not None
            origins = (self._batch.made_of(number)[0] for number in self._range)
            self._keys = frozenset(origin.key for origin in origins if origin is not None and origin.key is not None)
        return self._keys

    def open(self, batch: MessageBatch, place: Place | None = None) -> None:
        """Make the state of a batch's partition ready.

        Args:
            place: of all messages of the source; None: the partition that they were read from.

        Raises:
            StreamlineError: it cannot be restored.
        """
        place = place or place_of(batch.made_of(0)[0])
        if place is not None and place not in self._overlay:
            self._store.restore(place)
            self._overlay[place] = {}
            self.max_bytes = self._store.max_bytes
        self.place = place or Place("", -1)

    @property
    def has_place(self) -> bool:
        """Whether a partition is open; False: the messages are of none."""
        return self.place in self._overlay

    def begin(self, batch: MessageBatch, first: int, count: int) -> None:
        """Begin a call with messages of the batch that is open."""
        self._batch, self._range, self._keys = batch, range(first, first + count), None
        self._call = {}

    def begin_window(self, key: bytes) -> None:
        """Begin a call with a window of a key, in the partition that is open."""
        self._keys = frozenset([key])
        self._call = {}

    def keep(self) -> None:
        """Keep what the call has changed; without this it is as if there had been no call."""
        if self._call:
            self._overlay[self.place].update(self._call)
            self._changed.setdefault(self.place, {}).update(self._call)
            self._call = {}

    def read(self, key: bytes) -> bytes | None:
        """Return a value as the call sees it."""
        value = self._call.get(key, _MISSING)
        if value is _MISSING:
            value = self._overlay[self.place].get(key, _MISSING)
        return self._store.get(self.place, key) if value is _MISSING else value

    def restored(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys of the open partition from `first` to before `last`, in their order, with their values; it was
        restored, and nothing was changed since."""
        assert not self._overlay[self.place]
        return self._store.range(self.place, first, last)

    def names(self, first: bytes, last: bytes) -> list[bytes]:
        """Return the keys of the open partition from `first` to before `last` that have a value, in their order."""
        overlay = self._overlay[self.place]
        found = {key for key, _ in self._store.range(self.place, first, last)}
        found.update(key for key in overlay if first <= key < last)
        return sorted(key for key in found if overlay.get(key, b"") is not None)

    def change(self, key: bytes, value: bytes | None) -> None:
        """Change a value in the call."""
        self._call[key] = value

    def put(self, place: Place, changes: Changes) -> None:
        """Change values of a partition, outside of any call. The changes are not the caller's any more."""
        self._overlay[place].update(changes)
        before = self._changed.setdefault(place, changes)
        if before is not changes:
            before.update(changes)

    # -- positions

    def propose(self, source: str, number: int, places: Collection[Place], sink: str) -> list[MessageBatch]:
        """Return what was changed since the last position, as messages for the log.

        Args:
            number: of the position that covers it.
            places: partitions of the source.
            sink: id of the sink that they are for.
        """
        for place in places:
            if (index := self.indexes.get(place)) is not None:
                index.flush()
        changes = {place: self._changed.pop(place) for place in places if place in self._changed}
        if not changes:
            return []
        marks: Mapping[Place, int] = {}
        if time.monotonic() - self._marked_at >= MARK_SECONDS:
            self._marked_at = time.monotonic()
            marks = self._store.marks(changes)
        self._proposed.setdefault(source, deque()).append(_Proposed(number, changes, marks))
        return [_log_batch(place, changed, sink) for place, changed in changes.items()]

    def saved(self, source: str, number: int, keys: Collection[str]) -> None:
        """Note that a source's position is saved, as far as these of its keys are concerned."""
        proposed = self._proposed.get(source, deque())
        for each in list(proposed):
            if each.number > number:
                break
            for place in [place for place in each.changes if str(place) in keys]:
                new = each.changes.pop(place)
                changes, mark = self._saved.get(place, ({}, None))
                self._waiting -= len(changes)
                if changes:
                    changes.update(new)
                else:
                    changes = new
                self._waiting += len(changes)
                self._saved[place] = changes, each.marks.get(place, mark)
                self._waiting_bytes += sum(map(len, filter(None, new.values())))
        self._proposed[source] = deque(each for each in proposed if each.changes)
        full = self._waiting >= MOST_WAITING or self._waiting_bytes >= MOST_WAITING_BYTES
        if full or time.monotonic() - self._written_at >= WRITE_SECONDS:
            self._write()

    def drop(self, places: Collection[Place]) -> None:
        """Forget partitions: they are restored when messages of theirs come again."""
        self._write()
        for place in places:
            self._overlay.pop(place, None)
            self.indexes.pop(place, None)
            self._changed.pop(place, None)
            for proposed in self._proposed.values():
                for each in proposed:
                    each.changes.pop(place, None)
            self._store.drop(place)

    def close(self) -> None:
        """Write what is saved, and free everything."""
        try:
            self._write()
        finally:
            self._store.close()

    def _write(self) -> None:
        self._waiting = self._waiting_bytes = 0
        self._written_at = time.monotonic()
        while self._saved:
            place, (changes, mark) = self._saved.popitem()
            self._store.save(place, changes, mark)
            overlay = self._overlay.get(place, {})
            for key, value in changes.items():
                if overlay.get(key, _MISSING) is value:
                    del overlay[key]


def place_of(origin: Origin | None) -> Place | None:
    """Return the partition whose state a message uses."""
    return Place(origin.topic, origin.partition) if origin is not None else None


def _log_batch(place: Place, changes: Changes, sink: str) -> MessageBatch:
    # An offset below 0: it is written to the partition of the origin.
    topic, partition = place
    origins: list[Origin | None] = [Origin(topic, partition, -1, key, value) for key, value in changes.items()]
    return MessageBatch(place.topic, list(changes.values()), origins, sink)
