"""The parts of a flow: sources give items, stages change them, sinks take them and prove them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from streamline.flow.items import BadRecord, Item, Position


class Source(Protocol):
    """Yields items in order. `id` names it in positions."""

    id: str

    def items(self) -> AsyncIterator[Sequence[Item]]:
        """Items as they come, several at a time; ends when the source has no more.

        Raises:
            StreamlineError: the source failed; what it gave before is valid and still counts.
        """
        ...

    async def confirm(self, position: Position) -> None:
        """Everything up to `position` is durable everywhere and the position itself is saved."""
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


class Sink(Protocol):
    """Takes items of several sources in one order; says through `on_proof` how far they are durable."""

    id: str

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """Take items of one source, all of them, before those of any other caller."""
        ...


DeadLetterWriter = Callable[[Sequence[BadRecord]], None]
