"""Stages of streaming pipelines at the end of a way: which sink a message is for, and how many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from streamline.flow.items import Item, MessageBatch, Position, Schema
from streamline.flow.protocols import ImmediateStage
from streamline.telemetry.progress import SourceCounts


class AddressStage(ImmediateStage):
    """Marks messages with the destination block that they are for, where one sink serves several."""

    def __init__(self, sink: str) -> None:
        self._sink = sink

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        return [msgspec.structs.replace(item, sink=self._sink) if isinstance(item, MessageBatch) else item]


class StateFilter(ImmediateStage):
    """Passes the changes of a transformer's state, or everything else.

    Args:
        log: the sink that changes are for.
        changes: whether they pass.
    """

    def __init__(self, log: str, *, changes: bool) -> None:
        self._log = log
        self._changes = changes

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, Position):
            return [item]
        return [item] if (isinstance(item, MessageBatch) and item.sink == self._log) is self._changes else []


class SchemaNoteStage(ImmediateStage):
    """Tells a sink the SCHEMAs of the records that it gets as messages."""

    def __init__(self, note: Callable[[Schema], None]) -> None:
        self._note = note

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, Schema):
            self._note(item)
        return [item]


class CountStage(ImmediateStage):
    """Counts what goes into a sink."""

    def __init__(self, counts: SourceCounts, sink: str) -> None:
        self._counts = counts
        self._sink = sink

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, MessageBatch):
            self._counts.sent(self._sink, item.stream, item.count)
        elif isinstance(item, Position):
            self._counts.position_sent(self._sink, item.number)
        return [item]
