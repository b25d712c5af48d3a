"""A target as a sink of messages: it is told of their positions in words that targets understand.

A target proves STATEs. Those of a tap go to it as they are. The position of another source (offsets of partitions) says
nothing to it that it could echo stream by stream; so each stream that it is sent gets a bookmark here, which is the
number of the newest position behind its records. Nothing of that is saved: the ledger keeps the source's own positions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from streamline.connectors.singer.state import StateParts, join_state
from streamline.connectors.singer.target_pool import TargetPool
from streamline.flow.items import Item, MessageBatch, Position
from streamline.flow.protocols import Failed, Proven


class MessageTarget:
    """A `flow.protocols.Sink` in front of a target's processes.

    Args:
        pool: the processes. A session of theirs is closed when it proves nothing for `session_interval`.
        taps: ids of the sources whose positions are STATEs.
    """

    def __init__(self, pool: TargetPool, taps: Collection[str] = ()) -> None:
        self.id = pool.id
        self._pool = pool
        self._taps = frozenset(taps)
        self._bookmarks: dict[str, dict[str, bytes]] = {}
        self._moved: dict[str, set[str]] = {}

    @property
    def unproven(self) -> bool:
        """Whether it was sent records that it has not proven."""
        return self._pool.unproven

    async def run(self, proven: Proven, failed: Failed) -> None:
        """See `Sink.run`."""
        await self._pool.run(proven, failed)

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """See `Sink.send`."""
        awaited = max((item.number for item in items if isinstance(item, Position) and item.awaited), default=0)
        if source not in self._taps:
            items = [self._told(source, item) for item in items]
        await self._pool.send(source, items)
        if awaited:
            self._pool.hurry(source, awaited)

    async def source_ended(self, source: str) -> None:
        """See `Sink.source_ended`."""
        await self._pool.source_ended(source)

    def hurry(self, source: str, number: int) -> None:
        """See `HandingOverSink.hurry`."""
        self._pool.hurry(source, number)

    def forget(self, source: str, keys: Collection[str], number: int) -> None:
        """See `HandingOverSink.forget`: what a target was sent cannot be taken back."""

    def limit(self, seconds: float) -> None:
        """See `Sink.limit`."""
        self._pool.limit(seconds)

    async def close(self) -> None:
        """See `Sink.close`."""
        await self._pool.close()

    def _told(self, source: str, item: Item) -> Item:
        if isinstance(item, MessageBatch):
            raise TypeError("messages are made records before a target")
        moved = self._moved.setdefault(source, set())
        if not isinstance(item, Position):
            moved.add(item.stream)
            return item
        bookmarks = self._bookmarks.setdefault(source, {})
        bookmarks.update(dict.fromkeys(moved, b'{"position":%d}' % item.number))
        moved.clear()
        return Position(item.source, item.number, StateParts(join_state(bookmarks)))
