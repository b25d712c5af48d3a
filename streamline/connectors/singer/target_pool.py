"""The processes of one destination: one, or several that share its streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamline.connectors.singer.target import TargetProcess
from streamline.flow.items import Item, Position


class TargetPool:
    """A `flow.protocols.Sink` in front of one or more target processes.

    Args:
        id: uuid of the destination block.
        processes: at least one.
        slot_of: a stream's name, as the target sees it → number of the process that takes it.
    """

    def __init__(self, id: str, processes: Sequence[TargetProcess], slot_of: Callable[[str], int]) -> None:
        self.id = id
        self.processes = list(processes)
        self._slot_of = slot_of

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """See `Sink.send`. Positions go to every process: each proves its own share of what came before."""
        if len(self.processes) == 1:
            await self.processes[0].send(source, items)
            return
        shares: list[list[Item]] = [[] for _ in self.processes]
        for item in items:
            if isinstance(item, Position):
                for share in shares:
                    share.append(item)
            else:
                shares[self._slot_of(item.stream)].append(item)
        for process, share in zip(self.processes, shares, strict=True):
            if share:
                await process.send(source, share)

    async def source_ended(self, source: str) -> None:
        """See `Sink.source_ended`."""
        for process in self.processes:
            await process.source_ended(source)
