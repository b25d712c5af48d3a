"""Saves proven positions and refused records: off the event loop, and no more often than a store can take them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import anyio
import anyio.to_thread

from streamline.flow.items import BadRecord, Position
from streamline.flow.ledger import Ledger
from streamline.flow.protocols import PositionStore, Source

SAVE_INTERVAL = 0.1
"""Default seconds between two saves."""

MAX_PENDING_RECORDS = 2_000
"""Refused records that wait for a position; more are saved without one."""


class Checkpoint:
    """Takes proofs and refused records, and saves both, in one transaction where they belong together.

    Args:
        sources: by id; each is told what was saved of its positions.
        on_saved: called with each position that was saved, and what of it was new, after its source was told.
        interval: seconds between two saves; what is proven meanwhile is saved with the next.
    """

    def __init__(
        self,
        store: PositionStore,
        ledger: Ledger,
        sources: Mapping[str, Source],
        *,
        on_saved: Callable[[Position, Mapping[str, bytes]], Awaitable[None]] | None = None,
        interval: float = SAVE_INTERVAL,
    ) -> None:
        self._store = store
        self._interval = interval
        self._ledger = ledger
        self._sources = dict(sources)
        self._on_saved = on_saved
        self._waiting: dict[str, Position] = {}
        self._refused: dict[str, list[BadRecord]] = {}
        self._released: dict[str, dict[str, int]] = {}
        self._saved: dict[str, int] = dict.fromkeys(self._sources, 0)
        self._wake = anyio.Event()
        self._hurry = anyio.Event()
        self._saving = anyio.Lock()

    def sent(self, sink: str, position: Position) -> None:
        """Note that a sink is about to be sent a position."""
        self._ledger.sent(sink, position)

    def proven(self, sink: str, source: str, number: int) -> None:
        """Note that a sink has proven a source's positions up to a number; see `Sink.run`."""
        position = self._ledger.proven(sink, source, number)
        if position is not None:
            self._waiting[source] = position
            self._wake.set()
            if position.awaited:
                self._hurry.set()

    def refuse(self, source: str, records: Sequence[BadRecord]) -> None:
        """Take records that left the flow. They are saved no later than the next position of the source."""
        refused = self._refused.setdefault(source, [])
        refused += records
        if len(refused) >= MAX_PENDING_RECORDS:
            self._wake.set()

    def saved(self, source: str) -> int:
        """Return the number of the source's newest saved position; 0 for none."""
        return self._saved[source]

    async def run(self) -> None:
        """Save until cancelled."""
        while True:
            await self._wake.wait()
            self._wake, self._hurry = anyio.Event(), anyio.Event()
            await self.flush()
            with anyio.move_on_after(self._interval):
                await self._hurry.wait()

    async def flush(self) -> None:
        """Save everything that is proven now, and all refused records."""
        async with self._saving:
            # A cancellation (`run` is cancelled at the end) must not come between two sources: what was taken out of
            # `_waiting` would never be saved.
            with anyio.CancelScope(shield=True):
                for source in dict.fromkeys([*self._waiting, *self._refused]):
                    position, refused = self._waiting.pop(source, None), self._refused.pop(source, [])
                    parts = self._parts(position) if position is not None else {}
                    try:
                        number = position.number if position is not None else 0
                        moved = await anyio.to_thread.run_sync(self._store.save, source, parts, refused, number)
                    except BaseException:
                        # What could not be saved is saved with the next; no later position overtakes it.
                        self._refused[source] = refused + self._refused.get(source, [])
                        if position is not None:
                            self._waiting.setdefault(source, position)
                        raise
                    if position is not None:
                        await self._tell(position, moved)

    async def release(self, source: str, keys: Collection[str], number: int) -> None:
        """Let nothing more of these keys be saved from the source's positions up to a number."""
        async with self._saving:
            self._released.setdefault(source, {}).update(dict.fromkeys(keys, number))

    async def _tell(self, position: Position, moved: Mapping[str, bytes]) -> None:
        if moved:
            await self._sources[position.source].confirm(moved)
        self._saved[position.source] = position.number
        if self._on_saved is not None:
            await self._on_saved(position, moved)

    def _parts(self, position: Position) -> dict[str, bytes]:
        """Return what of a position may be saved."""
        released = self._released.get(position.source, {})
        return {
            key: value
            for key, value in position.parts.items()
            if key not in position.withheld and released.get(key, 0) < position.number
        }
