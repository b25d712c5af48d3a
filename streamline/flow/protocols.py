"""The parts of a flow: sources give items, stages change them, sinks take them and prove them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from streamline.flow.items import Item

Emit = Callable[[Sequence[Item]], Awaitable[None]]


class Source(Protocol):
    """Gives items in order. `id` names it in positions."""

    @property
    def id(self) -> str: ...

    async def run(self, emit: Emit) -> None:
        """Give `emit` items as they come, several at a time, until there are no more.

        Raises:
            StreamlineError: the source failed; what it gave before is valid and still counts.
        """
        ...


class Stage(Protocol):
    """Changes items between a source and a sink. One instance serves one source group on one path."""

    async def process(self, item: Item) -> Sequence[Item]:
        """What `item` becomes, in order. Items that it does not care for pass as they are.

        A stage that holds items back gives them up no later than at the next `Position`.
        """
        ...

    async def finish(self) -> Sequence[Item]:
        """The source ended well: what is still held back."""
        ...

    async def close(self) -> None:
        """Free what the stage holds (threads, processes, files), whatever happened."""
        ...


class FlushableStage(Stage, Protocol):
    """A stage that gathers small batches while more are coming."""

    @property
    def pending(self) -> bool:
        """Whether it holds items back."""
        ...

    async def flush(self) -> Sequence[Item]:
        """Nothing more is waiting right now: what is held back."""
        ...


class Sink(Protocol):
    """Takes items of several sources in one order; says by itself how far they are durable."""

    @property
    def id(self) -> str: ...

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """Take items of one source, all of them before those of any other caller.

        Raises:
            StreamlineError: the sink failed.
        """
        ...

    async def source_ended(self, source: str) -> None:
        """The source has no more items; its last position, if it was not passed on yet, goes out now."""
        ...
