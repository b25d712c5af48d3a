"""A source whose positions wait is told nothing of them; all else reaches it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

import anyio

from streamline.flow.protocols import Emit, Source
from streamline.flow.unconfirmed import UnconfirmedSource


class Heard:
    """A source that records what it is told."""

    id = "load"
    stopped: str | None = None

    def __init__(self) -> None:
        self.told: list[object] = []

    async def run(self, emit: Emit) -> None:
        self.told.append("run")

    def stop(self, reason: str) -> None:
        self.stopped = reason

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        self.told.append(parts)

    async def release(self, keys: Collection[str]) -> None:
        self.told.append(keys)


def test_it_is_told_of_no_position() -> None:
    heard = Heard()
    source = UnconfirmedSource(heard)

    async def use() -> None:
        await source.run(cast(Emit, None))
        await source.confirm({"s": b"1"})
        await source.release(["s"])

    anyio.run(use)
    source.stop("enough")
    assert heard.told == ["run", ["s"]]
    assert (source.id, source.stopped) == ("load", "enough")
    checked: Source = source
    assert checked is source
