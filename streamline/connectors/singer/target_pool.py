"""The processes of one destination: one, or several that share its streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamline.connectors.singer.target import TargetProcess
from streamline.flow.items import Item, Position
from streamline.flow.protocols import Failed, Proven
from streamline.flow.tasks import task_group


class TargetPool:
    """A `flow.protocols.Sink` in front of one or more target processes.

    Args:
        id: uuid of the destination block.
        processes: at least one.
        slot_of: a stream's name, as the target sees it → number of the process that takes it.
    """

    def __init__(self, id: str, processes: Sequence[TargetProcess], slot_of: Callable[[str], int]) -> None:
        self.id = id
        self._processes = list(processes)
        self._slot_of = slot_of
        self._numbers: dict[str, list[int]] = {}

    @property
    def unproven(self) -> bool:
        """Whether it was sent records that it has not proven."""
        return any(process.unproven for process in self._processes)

    async def run(self, proven: Proven, failed: Failed) -> None:
        """See `Sink.run`. A process that fails leaves the others running, to prove what they were sent."""

        def share_proven(slot: int) -> Proven:
            def prove(source: str, number: int) -> None:
                numbers = self._numbers.setdefault(source, [0] * len(self._processes))
                numbers[slot] = number
                if all(numbers):
                    proven(source, min(numbers))

            return prove

        async with task_group() as tasks:
            for slot, process in enumerate(self._processes):
                tasks.start_soon(process.run, share_proven(slot), failed)

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """See `Sink.send`. Positions go to every process: each proves its own share of what came before."""
        if len(self._processes) == 1:
            await self._processes[0].send(source, items)
            return
        shares: list[list[Item]] = [[] for _ in self._processes]
        for item in items:
            if isinstance(item, Position):
                for share in shares:
                    share.append(item)
            else:
                shares[self._slot_of(item.stream)].append(item)
        for process, share in zip(self._processes, shares, strict=True):
            if share:
                await process.send(source, share)

    async def source_ended(self, source: str) -> None:
        """See `Sink.source_ended`."""
        for process in self._processes:
            await process.source_ended(source)

    def hurry(self, source: str, number: int) -> None:
        """See `HandingOverSink.hurry`."""
        for process in self._processes:
            process.hurry(source, number)

    def limit(self, seconds: float) -> None:
        """See `Sink.limit`."""
        for process in self._processes:
            process.limit(seconds)

    async def close(self) -> None:
        """See `Sink.close`."""
        async with task_group() as tasks:
            for process in self._processes:
                tasks.start_soon(process.close)
