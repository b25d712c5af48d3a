"""Keyed state of blocks behind sources without a log: in the state store, saved in a transaction with the positions."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence

import anyio

from streamline.flow.items import Item, MessageBatch, Position
from streamline.flow.keyed_state import Place
from streamline.flow.protocols import Failed, Proven
from streamline.state.store import StateChange, Store

PAGE = 1_000
"""Keys that are read at a time."""


def place_of_source(source: str) -> Place:
    """Return the only place of the state that a source's messages make."""
    return Place(source, 0)


class StoredState:
    """Reads it: a `StateStore`. What changes is saved with the positions (`StateChanges`), and is there by then."""

    max_bytes: int | None = None
    any_key = True

    def __init__(self, store: Store, pipeline: str, block: str) -> None:
        self._store = store
        self._pipeline = pipeline
        self._block = block

    def start(self) -> None:
        """See `StateStore.start`."""

    def restore(self, place: Place) -> None:
        """See `StateStore.restore`."""

    def get(self, place: Place, key: bytes) -> bytes | None:
        """See `StateStore.get`."""
        return self._store.keyed_value(self._pipeline, self._block, place.topic, key)

    def range(self, place: Place, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `StateStore.range`."""
        while page := self._store.keyed_values(self._pipeline, self._block, place.topic, first, last, limit=PAGE):
            yield from page
            first = page[-1][0] + b"\0"

    def marks(self, places: Collection[Place]) -> Mapping[Place, int]:
        """See `StateStore.marks`: there is no log."""
        return {}

    def save(self, place: Place, changes: Mapping[bytes, bytes | None], mark: int | None) -> None:
        """See `StateStore.save`."""

    def drop(self, place: Place) -> None:
        """See `StateStore.drop`."""

    def close(self) -> None:
        """See `StateStore.close`."""


class StateChanges:
    """Takes what changes of a block's state, in place of a changelog: a `flow.protocols.Sink`. It proves at once; the
    changes are saved with the position behind them.
    """

    def __init__(self, id: str, block: str) -> None:
        self.id = id
        self._block = block
        self._lock = threading.Lock()
        self._coming: dict[str, list[StateChange]] = {}
        """By source: since its last position."""
        self._ready: dict[str, deque[tuple[int, list[StateChange]]]] = {}
        """By source: with the number of the position behind them."""
        self._closed = anyio.Event()

    def until(self, source: str, number: int) -> list[StateChange]:
        """Return what is to be saved with a source's position."""
        with self._lock:
            return [change for each, changes in self._ready.get(source, ()) if each <= number for change in changes]

    def saved(self, source: str, number: int) -> None:
        """Note that it is saved."""
        with self._lock:
            ready = self._ready.get(source)
            while ready and ready[0][0] <= number:
                ready.popleft()

    async def run(self, proven: Proven, failed: Failed) -> None:
        """See `Sink.run`."""
        self._proven = proven
        await self._closed.wait()

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """See `Sink.send`."""
        for item in items:
            if isinstance(item, MessageBatch):
                coming = self._coming.setdefault(source, [])
                for origin in item.origins or ():
                    assert origin is not None
                    assert origin.key is not None
                    coming.append(StateChange(self._block, source, origin.key, origin.value))
            elif isinstance(item, Position):
                if changes := self._coming.pop(source, []):
                    with self._lock:
                        self._ready.setdefault(source, deque()).append((item.number, changes))
                self._proven(source, item.number)

    async def source_ended(self, source: str) -> None:
        """See `Sink.source_ended`."""

    def limit(self, seconds: float) -> None:
        """See `Sink.limit`: nothing takes any time."""

    async def close(self) -> None:
        """See `Sink.close`."""
        self._closed.set()
