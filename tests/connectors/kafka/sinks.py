"""Kafka sinks on the cluster in memory, run beside a test's body."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec

from streamline.connectors.kafka.client import Committed, KafkaClient, Partition
from streamline.connectors.kafka.outgoing import Destination
from streamline.connectors.kafka.serialization.json_text import JsonSerializer
from streamline.connectors.kafka.settings import KafkaSinkSettings
from streamline.connectors.kafka.sink import KafkaSink, TransactionalKafkaSink
from streamline.connectors.stream_connector import StreamContext
from streamline.flow.items import BadRecord, MessageBatch, Origin, Position
from streamline.state.store import DeadLetter
from tests.connectors.kafka.fake import CONNECTION, FakeCluster, FakeConsumer
from tests.connectors.singer.running import PATIENCE, until


def destination(block: str = "export", topic: str = "out", **settings: Any) -> Destination:
    """A block that writes JSON."""
    connection = settings.pop("connection", CONNECTION)
    return Destination(
        block=block,
        settings=KafkaSinkSettings(connection=connection, topic=topic, **settings),
        values=JsonSerializer(),
    )


def context(**more: Any) -> StreamContext:
    """What a sink is opened with."""
    values = {"pipeline": "p", "block": "export", "root": Path(), "checkout": "folder"}
    return StreamContext(**{**values, "checkpoint_interval": 0.05, "startup_timeout": 0.3, **more})


def origin(offset: int = 0, value: bytes | None = b"{}", partition: int = 0, **more: Any) -> Origin:
    """Where a message of the topic `in` was read."""
    return Origin("in", partition, offset, more.pop("key", None), value, **more)


def read(*origins: Origin) -> MessageBatch:
    """A batch of messages as they were read."""
    return MessageBatch("in", [each.value for each in origins], list(origins))


def at(number: int, source: str = "load", **offsets: int) -> Position:
    """A position: offsets by partition (`p0=3`)."""
    parts = {f"in/{name[1:]}": msgspec.json.encode({"offset": offset}) for name, offset in offsets.items()}
    return Position(source, number, parts)


class Owner:
    """A source whose offsets are committed in transactions: partitions of the topic `in`."""

    def __init__(self, cluster: FakeCluster, *partitions: int) -> None:
        from streamline.connectors.kafka.client import ConsumerOptions

        self.consumer = FakeConsumer(cluster, ConsumerOptions(group="g", client_id="c"))
        self.consumer.owned = {Partition("in", number) for number in partitions or (0,)}
        self.errors: list[Exception] = []

    def transaction_offsets(self, parts: Mapping[str, bytes]) -> tuple[Mapping[Any, Any], Any]:
        if self.errors:
            raise self.errors.pop(0)
        offsets = {}
        for key, value in parts.items():
            topic, _, number = key.rpartition("/")
            offsets[Partition(topic, int(number))] = Committed(msgspec.json.decode(value)["offset"])
        return offsets, self.consumer


class Running:
    """A sink that runs, and what it has reported."""

    def __init__(self, sink: KafkaSink) -> None:
        self.sink = sink
        self.proven: dict[str, int] = {}
        self.failures: list[Exception] = []
        self.refused: list[BadRecord] = []
        self.unkept: list[DeadLetter] = []
        sink.refused = self._refuse

    def _refuse(self, source: str, records: Sequence[BadRecord]) -> None:
        self.refused += records
        if isinstance(self.sink, TransactionalKafkaSink):
            self.sink.dead_letters(source, [letter(record) for record in records])

    def prove(self, source: str, number: int) -> None:
        assert number > self.proven.get(source, 0)
        self.proven[source] = number

    async def until_proven(self, number: int, source: str = "load") -> None:
        await until(lambda: self.failures or self.proven.get(source, 0) >= number)
        assert not self.failures


def letter(record: BadRecord) -> DeadLetter:
    """The letter of a record that was refused."""
    from_topic = record.origin or Origin("in", 0, 0, None, None)
    return DeadLetter(
        pipeline="p",
        block="load",
        stream=record.stream,
        run_id="r",
        record=record.record.decode(),
        error=record.error,
        stage=record.stage,
        form="value",
        topic=from_topic.topic,
        partition=from_topic.partition,
        offset=from_topic.offset,
        key=from_topic.key,
        value=from_topic.value,
    )


@asynccontextmanager
async def running(sink: KafkaSink) -> AsyncIterator[Running]:
    """Run a sink beside the body."""
    reports = Running(sink)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sink.run, reports.prove, reports.failures.append)
            await anyio.lowlevel.checkpoint()
            yield reports
            tasks.cancel_scope.cancel()


def plain(
    cluster: KafkaClient, *, topic: str = "out", more: Mapping[str, Any] | None = None, **settings: Any
) -> KafkaSink:
    """A sink that delivers at least once."""
    return KafkaSink("export", [destination(topic=topic, **settings)], cluster, context(**(more or {})))


def transactional(
    cluster: KafkaClient,
    owners: Mapping[str, Any],
    *,
    letters: str | None = None,
    more: Mapping[str, Any] | None = None,
    destinations: Sequence[Destination] = (),
    **settings: Any,
) -> TransactionalKafkaSink:
    """A sink that delivers exactly once."""
    blocks = list(destinations) or [destination(**settings)]
    sink = TransactionalKafkaSink("export", blocks, cluster, context(**(more or {})))
    sink.offsets_from = owners
    sink.dead_letter_topic = letters
    sink.letters_refused = lambda refused: None
    return sink
