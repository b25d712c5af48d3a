"""Sources of messages that the suite is run on. Their items are `MessageBatch`es, which only sinks of messages take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import anyio

from streamline.connectors.kafka.client import (
    Connection,
    Consumer,
    ConsumerOptions,
    KafkaClient,
    KafkaError,
    Partition,
)
from streamline.connectors.kafka.offset_parts import committed_of, decode_part, encode_part
from streamline.connectors.kafka.source import KafkaSource
from streamline.flow.items import Origin
from streamline.flow.protocols import Source
from tests.connectors.kafka.fake import EndlessLog, FakeCluster, FakeConsumer
from tests.connectors.kafka.running import context, settings
from tests.protocols.cases import SourceCase
from tests.protocols.memory import EVERY


class Broken(FakeCluster):
    """A cluster whose polls hold so many messages as there are between positions, and fail at one of them."""

    def __init__(self, fail_at: int | None) -> None:
        super().__init__()
        self._fail_at = fail_at

    def consumer(self, connection: Connection, options: ConsumerOptions) -> Consumer:
        consumer = FailingConsumer(self, options)
        consumer.max_messages = EVERY
        consumer.fail_at = self._fail_at
        self.consumers.append(consumer)
        return consumer


class FailingConsumer(FakeConsumer):
    fail_at: int | None = None

    def poll_batch(self, limit: int, timeout: float) -> list[Origin]:
        messages = super().poll_batch(limit, timeout)
        if self.fail_at is not None and any(message.offset == self.fail_at - 1 for message in messages):
            raise KafkaError("the source failed", kafka_code="UNKNOWN_SERVER_ERROR")
        return messages


class Kafka(SourceCase):
    """Number n is at offset n - 1."""

    name = "KafkaSource"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._sources: list[KafkaSource] = []

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        cluster: KafkaClient = (broken := Broken(fail_at))
        broken.create("t").logs = [
            EndlessLog(count, lambda offset: Origin("t", 0, offset, None, b'{"id":%d}' % (offset + 1)))
        ]
        for value in (start or {}).values():
            part = decode_part(value)
            broken.group("g").offsets[Partition("t", 0)] = committed_of(part.offset, part.topic_id)
        source = KafkaSource(settings(), cluster, context(block=id, until_caught_up=True))
        self._sources.append(source)
        return source

    def parts(self, number: int) -> dict[str, bytes]:
        return {"t/0": encode_part(number, "id-1", epoch=1)}

    def end(self) -> None:
        async def close() -> None:
            for source in self._sources:
                await source.close()

        anyio.run(close)


MESSAGE_SOURCES: list[type[SourceCase]] = [Kafka]
