"""A source that is not told what was saved of its positions."""

from __future__ import annotations

from collections.abc import Mapping

from streamline.flow.protocols import Emit, WrappedSource


class UnconfirmedSource(WrappedSource):
    """A source whose positions wait for more than the sinks' proof: it releases nothing yet."""

    async def run(self, emit: Emit) -> None:
        """See `Source.run`."""
        await self._source.run(emit)

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """Tell the source nothing."""
