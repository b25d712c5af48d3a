"""A Kafka source that runs on a cluster in memory, with what a test wants to see of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from streamline.connectors.kafka.client import Partition
from streamline.connectors.kafka.settings import KafkaSourceSettings, StartOffset
from streamline.connectors.kafka.source import KafkaSource
from streamline.connectors.stream_connector import StreamContext
from streamline.flow.items import Item, MessageBatch, Origin, Position
from tests.connectors.kafka.fake import CONNECTION, FakeCluster

PATIENCE = 60.0
EARLIEST = StartOffset(kind="earliest", elsewhere="earliest")


class Notes:
    """What a source tells the operator."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, text: str, level: str) -> None:
        self.lines.append((level, text))

    def having(self, *words: str) -> list[str]:
        return [text for _, text in self.lines if all(word in text for word in words)]


class Taker:
    """What a source gave; `gate` may be closed so that it has to wait."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.gate = anyio.Event()
        self.gate.set()

    async def emit(self, items: Sequence[Item]) -> None:
        self.items += items
        await self.gate.wait()

    def close_gate(self) -> None:
        self.gate = anyio.Event()

    @property
    def messages(self) -> list[Origin]:
        return [
            origin
            for item in self.items
            if isinstance(item, MessageBatch)
            for origin in item.origins or ()
            if origin is not None
        ]

    @property
    def values(self) -> list[bytes | None]:
        return [message.value for message in self.messages]

    @property
    def parts(self) -> Mapping[str, bytes]:
        """The parts of the newest position."""
        return next((item.parts for item in reversed(self.items) if isinstance(item, Position)), {})


class Running:
    """A source that is being run."""

    def __init__(self, source: KafkaSource, notes: Notes) -> None:
        self.source = source
        self.notes = notes
        self.taken = Taker()
        self.given_up: list[tuple[set[str], float]] = []
        self.error: Exception | None = None
        self.ended = anyio.Event()

    async def run(self) -> None:
        try:
            await self.source.run(self.taken.emit)
        except Exception as error:
            self.error = error
        self.ended.set()

    async def commit(self, parts: Mapping[str, bytes] | None = None) -> Mapping[str, bytes]:
        """Save parts, as the checkpoint does; by default those of the newest position."""
        return await anyio.to_thread.run_sync(self.source.commit, self.taken.parts if parts is None else parts)

    async def give_up(self, keys: Collection[str], within: float) -> None:
        """What the runtime does where everything is proven at once."""
        self.given_up.append((set(keys), within))
        await self.source.release(keys)
        await self.commit()


def context(cluster: FakeCluster | None = None, **given: Any) -> StreamContext:
    return StreamContext(
        **{"pipeline": "p", "block": "load", "root": Path(), "startup_timeout": 5.0, "memory": {}, **given}
    )


def settings(**given: Any) -> KafkaSourceSettings:
    topics = () if "pattern" in given else ("t",)
    quick = {"metadata_refresh": 0.02, "close_seconds": 2.0, "drain_seconds": 5.0}
    return KafkaSourceSettings(
        **{"connection": CONNECTION, "group": "g", "topics": topics, "offset": EARLIEST, **quick, **given}
    )


@asynccontextmanager
async def running(cluster: FakeCluster, *, slot: int = 0, **given: Any) -> AsyncIterator[Running]:
    """A source of topic `t` with settings, or a context, that differ by what is given."""
    names = ("until_caught_up", "startup_timeout", "delivery", "memory", "start")
    about = {key: given.pop(key) for key in names if key in given}
    notes = Notes()
    source = KafkaSource(settings(**given), cluster, context(slot=slot, note=notes, **about))
    run = Running(source, notes)
    source.give_up = run.give_up
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.run)
            try:
                yield run
            finally:
                source.stop("the test has ended")
                run.taken.gate.set()
                await source.close()
                tasks.cancel_scope.cancel()


def member(slot: int = 0) -> str:
    """The client id of a source."""
    return f"streamline-p-load-{slot}"


def partitions(*numbers: int, topic: str = "t") -> list[Partition]:
    return [Partition(topic, number) for number in numbers]


def numbers(first: int, last: int) -> list[bytes]:
    """Values of messages."""
    return [b"%d" % number for number in range(first, last + 1)]


async def until_offset(cluster: FakeCluster, offset: int, partition: int = 0, group: str = "g") -> None:
    """Wait until the group's offset is so."""
    while cluster.offset(group, "t", partition) != offset:
        await anyio.sleep(0.005)
