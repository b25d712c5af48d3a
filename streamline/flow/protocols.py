"""The contract of the flow runtime: sources give items, stages change them, sinks take and prove them.

`tests/protocols/` checks any source, sink or store against it; its in-memory source and sink are the executable
description.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from streamline.flow.items import BadRecord, Item, Origin

Emit = Callable[[Sequence[Item]], Awaitable[None]]

Proven = Callable[[str, int], None]
"""Called with a source's id and a number: all that was sent before that source's position of this number, and the
position itself, may be taken for durable."""

Failed = Callable[[Exception], None]
"""Called when a sink has failed. Only the first call counts."""

Refused = Callable[[str, Sequence[BadRecord]], None]
"""Called with a source's id and records of it that the sink cannot deliver while others of theirs are delivered;
before the proof of any later position of the source. What it raises fails the sink."""

GiveUp = Callable[[Collection[str], float], Awaitable[None]]
"""Called with keys, and the seconds that there are to prove what was given of them."""


class Source(Protocol):
    """Gives items in order."""

    @property
    def id(self) -> str:
        """Names the source in its positions."""
        ...

    @property
    def stopped(self) -> str | None:
        """Why it ends before its own end; None while it reads on to that."""
        ...

    async def run(self, emit: Emit) -> None:
        """Give `emit` items as they come, several at a time, until there are no more.

        `emit` returns when there is room for more; that bounds memory. The numbers of its positions rise strictly,
        and so do those that stages add.

        Raises:
            StreamlineError: the source failed; what it gave before is valid and still counts.
        """
        ...

    def stop(self, reason: str) -> None:
        """End at the next good place. `run` then returns, as after its own end; may be called before `run`."""
        ...

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """Confirm that these parts are proven and saved; the source may release what lies before them."""
        ...

    async def release(self, keys: Collection[str]) -> None:
        """Give no more items of these keys: they belong to somebody else from now on."""
        ...


class LastingSource(Source, Protocol):
    """A source that is needed until its last position is saved, such as a member of a consumer group."""

    async def close(self) -> None:
        """Leave and free everything. Called once, after the last save, however the flow ended."""
        ...


class SharedSource(Source, Protocol):
    """A source that may have to give keys away while it runs: another member of its group takes them over."""

    give_up: GiveUp
    """Set by the runtime before `run`. Awaited by the source before it lets go of keys: when it returns, all that could
    be proven of them in time is saved, and nothing more of what the source gave before will be."""


class WrappedSource:
    """A source behind another one, whose items its `run` changes."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def id(self) -> str:
        """See `Source`."""
        return self._source.id

    @property
    def stopped(self) -> str | None:
        """See `Source`."""
        return self._source.stopped

    def stop(self, reason: str) -> None:
        """See `Source.stop`."""
        self._source.stop(reason)

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`."""
        await self._source.confirm(parts)

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`."""
        await self._source.release(keys)


class Stage(Protocol):
    """Changes items between a source and a sink. One instance serves one source on one path."""

    async def process(self, item: Item) -> Sequence[Item]:
        """Return what `item` becomes, in order. Items that the stage has no use for pass unchanged.

        A stage that holds items back returns them no later than at the next `Position`.

        Raises:
            StreamFailed: a stream cannot go on; the router stops it, and calls again for the others.
            PipelineFailed: no stream can go on.
            Exception: as `StreamFailed`, for the stream of `item`.
        """
        ...

    async def finish(self) -> Sequence[Item]:
        """Return what is still held back, after the source has ended well."""
        ...

    async def close(self) -> None:
        """Free what the stage holds (threads, processes, files), however the flow ended."""
        ...


class ImmediateStage:
    """The end of a stage that holds no items back and nothing open; such stages inherit from it."""

    async def finish(self) -> Sequence[Item]:
        """See `Stage.finish`."""
        return ()

    async def close(self) -> None:
        """See `Stage.close`."""


class StartableStage(Stage, Protocol):
    """A stage that has to be made ready."""

    async def start(self) -> None:
        """Get ready, before any flow of the run moves anything.

        Raises:
            StreamlineError: it cannot; no flow is run.
        """
        ...


class FlushableStage(Stage, Protocol):
    """A stage that gathers small batches while more are coming."""

    @property
    def pending(self) -> bool:
        """Whether it holds items back."""
        ...

    async def flush(self) -> Sequence[Item]:
        """Return what is held back, because nothing more is waiting right now."""
        ...


class KeyedStage(Stage, Protocol):
    """A stage that holds something of its source's keys."""

    def forget(self, keys: Collection[str], number: int) -> None:
        """Drop what it holds of these keys: they belong to somebody else. What comes of them before the source's
        position of this number was given before."""
        ...


class Sink(Protocol):
    """Takes items of several sources in one order, and reports how far they are durable."""

    @property
    def id(self) -> str:
        """Names the sink in outcomes."""
        ...

    async def run(self, proven: Proven, failed: Failed) -> None:
        """Do what the sink does in the background, until it is closed and has ended.

        It has begun before anything is sent. Cancelled, it ends at once and frees everything.

        Args:
            proven: where to report proof, until `close` returns. A number proves all smaller ones.
            failed: where to report at once that the sink has failed; raising from here or from `close` does so as
                well. What was proven before stays proven, and nothing is proven after it. All flows that feed the sink
                end.
        """
        ...

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """Take items of one source, all of them before those of any other caller.

        Raises:
            StreamlineError: they were not taken. This ends the flow that sent them, and no other.
        """
        ...

    async def source_ended(self, source: str) -> None:
        """Note that the source has no more items. A position that was held back goes out now."""
        ...

    def limit(self, seconds: float) -> None:
        """End within so many seconds, whatever is going on: the run was interrupted."""
        ...

    async def close(self) -> None:
        """Make durable and prove all that was sent. Called once, after the last `send`, unless `run` has raised.

        Raises:
            StreamlineError: not all of it is durable.
        """
        ...


class RefusingSink(Sink, Protocol):
    """A sink that may refuse single records, such as a message that a broker finds too large."""

    refused: Refused
    """Set by the runtime before `run`."""


class HandingOverSink(Sink, Protocol):
    """A sink that helps when a source has to give keys away (see `SharedSource`)."""

    def hurry(self, source: str, number: int) -> None:
        """Prove a source's positions up to a number as soon as they are sent: somebody waits for that."""
        ...

    def forget(self, source: str, keys: Collection[str], number: int) -> None:
        """Make nothing more durable of these keys that is sent before the source's next position after a number: they
        belong to somebody else. What can be made durable twice need not be forgotten.
        """
        ...


class PositionStore(Protocol):
    """Where positions are kept, as far as a flow needs it."""

    def save(
        self, source: str, parts: Mapping[str, bytes], refused: Sequence[BadRecord], number: int = 0
    ) -> Mapping[str, bytes]:
        """Save parts of a source's position and the records refused before it, in one transaction.

        It blocks, and is called in a worker thread, one call at a time. Keys that are not named keep their values;
        those that are `FORGOTTEN` lose them.

        Args:
            parts: may be empty, and may hold what was saved before.
            refused: in the order in which they were refused; kept once more if the call before this one failed.
            number: of the position; 0: there is none, only refused records.

        Returns:
            The parts whose saved values changed.
        """
        ...


class Decoder(Protocol):
    """Turns values as read into data."""

    def decode(self, value: bytes, origin: Origin) -> Any:
        """Return the data of one value.

        Raises:
            ValueError: the value cannot be decoded; the message becomes a dead letter.
            StreamlineError: nothing can be decoded now (the registry does not answer, access is denied).
        """
        ...

    def decode_batch(self, values: Sequence[bytes | None], origins: Sequence[Origin]) -> list[Any]:
        """Return the data of many values, in their order; None stays None. Faster than one by one.

        Raises:
            ValueError: one of them cannot be decoded, it is not said which.
        """
        ...
