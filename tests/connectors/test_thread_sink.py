"""Sinks that write on a thread of their own."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from streamline.connectors.thread_sink import StreamWriter, ThreadSink
from streamline.flow.items import MessageBatch, Position
from tests.connectors.singer.running import PATIENCE, until

pytestmark = pytest.mark.anyio


class Lazy(ThreadSink):
    """Proves nothing unless somebody waits for it."""

    def __init__(self) -> None:
        super().__init__("export", room=100)
        self.written: list[int] = []
        self._numbers_written: dict[str, int] = {}

    def _open(self) -> StreamWriter:
        return self

    def take(self, source: str, batch: MessageBatch) -> None:
        self.written += batch.data

    def reach(self, source: str, position: Position) -> None:
        self._numbers_written[source] = position.number

    def patience(self) -> float | None:
        return None

    def rest(self, *, hurry: bool) -> None:
        if hurry:
            self._prove(dict(self._numbers_written))


async def test_a_position_that_is_sent_later_is_proven_when_it_comes() -> None:
    sink, proven = Lazy(), {"load": 0}
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sink.run, proven.__setitem__, lambda error: None)
            await anyio.lowlevel.checkpoint()
            await sink.send("load", [MessageBatch("load", [1]), Position("load", 1, {})])
            sink.hurry("load", 3)
            await until(lambda: proven["load"] == 1)
            await sink.send("load", [MessageBatch("load", [2]), Position("load", 2, {})])
            await until(lambda: sink.written == [1, 2])
            await sink.send("load", [MessageBatch("load", [3]), Position("load", 3, {})])
            await until(lambda: proven["load"] == 3)
            await sink.close()
