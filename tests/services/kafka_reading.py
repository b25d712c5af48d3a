"""Kafka sources that the flow runtime runs on a real broker, into a sink that keeps what it got."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from streamline.connectors.kafka.client import Connection, KafkaClient
from streamline.connectors.kafka.settings import KafkaSourceSettings, StartOffset
from streamline.connectors.kafka.source import KafkaSource
from streamline.connectors.stream_connector import StreamContext
from streamline.flow.items import BadRecord, Item, MessageBatch, Origin, Position
from streamline.flow.protocols import Failed, Proven
from streamline.flow.router import Route
from streamline.flow.runtime import Flow, FlowOutcome, Runtime
from tests.connectors.kafka.running import EARLIEST, Notes

SECONDS = 180.0
"""After so long a test is taken for hung."""


class Keep:
    """A sink that keeps messages, and proves them after `delay` seconds; while `gate` is closed it takes none."""

    id = "keep"

    def __init__(self, delay: float = 0.0) -> None:
        self.messages: list[Origin] = []
        self.gate = anyio.Event()
        self.gate.set()
        self._delay = delay
        self._newest: dict[str, int] = {}
        self._sent = anyio.Event()

    async def run(self, proven: Proven, failed: Failed) -> None:
        self._proven = proven
        while True:
            await self._sent.wait()
            self._sent = anyio.Event()
            newest = dict(self._newest)
            await anyio.sleep(self._delay)
            for source, number in newest.items():
                proven(source, number)

    async def send(self, source: str, items: Sequence[Item]) -> None:
        await self.gate.wait()
        for item in items:
            if isinstance(item, MessageBatch):
                self.messages += [origin for origin in item.origins or () if origin is not None]
            elif isinstance(item, Position):
                self._newest[source] = item.number
                self._sent.set()

    async def source_ended(self, source: str) -> None:
        pass

    def limit(self, seconds: float) -> None:
        pass

    async def close(self) -> None:
        await anyio.sleep(self._delay)
        for source, number in self._newest.items():
            self._proven(source, number)

    @property
    def values(self) -> list[bytes | None]:
        return [message.value for message in self.messages]


class InGroup:
    """A store that has a source commit."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    def save(
        self, source: str, parts: Mapping[str, bytes], refused: Sequence[BadRecord], number: int = 0
    ) -> Mapping[str, bytes]:
        return self._source.commit(parts)


class Reading:
    """A source that is run, and the sink that it feeds."""

    def __init__(self, source: KafkaSource, sink: Keep, notes: Notes) -> None:
        self.source = source
        self.sink = sink
        self.notes = notes
        self.ended = anyio.Event()
        self.outcome: FlowOutcome | None = None

    async def run(self) -> None:
        flow = Flow(source=self.source, route=Route(sinks=[self.sink]))
        (self.outcome,) = await Runtime([flow], store=InGroup(self.source)).run()
        self.ended.set()

    async def stop(self) -> None:
        self.source.stop("the test is done with it")
        await self.ended.wait()

    @property
    def code(self) -> str | None:
        """The error's code."""
        return getattr(self.outcome.error, "code", None) if self.outcome is not None else None


class Group:
    """Starts members of one consumer group.

    Args:
        settings: of all of them.
    """

    def __init__(self, client: KafkaClient, servers: Sequence[str], **settings: Any) -> None:
        self._client = client
        connection = Connection(servers=tuple(servers), client=client.name, **settings.pop("security", {}))
        self._settings = {"connection": connection, "offset": EARLIEST, "metadata_refresh": 1.0, **settings}

    @asynccontextmanager
    async def member(
        self,
        slot: int = 0,
        *,
        delay: float = 0.0,
        until_caught_up: bool = False,
        startup: float = 30.0,
        **settings: Any,
    ) -> AsyncIterator[Reading]:
        """Run a member until the end of the `with`."""
        notes = Notes()
        about = StreamContext(
            pipeline="p",
            block="load",
            root=Path(),
            slot=slot,
            startup_timeout=startup,
            until_caught_up=until_caught_up,
            note=notes,
        )
        source = KafkaSource(KafkaSourceSettings(**{**self._settings, **settings}), self._client, about)
        reading = Reading(source, Keep(delay), notes)
        with anyio.fail_after(SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reading.run)
                try:
                    yield reading
                finally:
                    reading.sink.gate.set()
                    with anyio.CancelScope(shield=True), anyio.move_on_after(SECONDS):
                        await reading.stop()

    async def all(self, **settings: Any) -> Reading:
        """Run one member until it has caught up."""
        async with self.member(until_caught_up=True, **settings) as reading:
            await reading.ended.wait()
        return reading


LATEST = StartOffset(kind="latest")
