"""A source that is not told what was saved of its positions."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from streamline.flow.protocols import Emit, Source


class UnconfirmedSource:
    """A source whose positions wait for more than the sinks' proof: it releases nothing yet."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def id(self) -> str:
        """See `Source.id`."""
        return self._source.id

    @property
    def stopped(self) -> str | None:
        """See `Source.stopped`."""
        return self._source.stopped

    async def run(self, emit: Emit) -> None:
        """See `Source.run`."""
        await self._source.run(emit)

    def stop(self, reason: str) -> None:
        """See `Source.stop`."""
        self._source.stop(reason)

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """Tell the source nothing."""

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`."""
        await self._source.release(keys)
