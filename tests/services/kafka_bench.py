"""Clients of Kafka behind the port, for tests: made for one library, closed afterwards."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from streamline.connectors.kafka.client import (
    Admin,
    Connection,
    Consumer,
    ConsumerOptions,
    KafkaClient,
    Outgoing,
    Partition,
    Producer,
    ProducerOptions,
    Undelivered,
)
from streamline.flow.items import Origin

SECONDS = 120.0
"""More than anything here takes, also on a busy machine."""


class Group:
    """A listener that has a consumer read where its group stopped, or from the beginning, and notes what it is told."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.events: list[tuple[str, list[Partition]]] = []
        self.on_revoked: Callable[[Collection[Partition]], None] = lambda partitions: None

    def assigned(self, partitions: Collection[Partition]) -> None:
        self.events.append(("assigned", sorted(partitions)))
        committed = self.consumer.committed(partitions, SECONDS)
        for partition in partitions:
            offset = committed[partition].offset if partition in committed else 0
            self.consumer.seek(partition, offset)

    def revoked(self, partitions: Collection[Partition]) -> None:
        self.events.append(("revoked", sorted(partitions)))
        self.on_revoked(partitions)

    def lost(self, partitions: Collection[Partition]) -> None:
        self.events.append(("lost", sorted(partitions)))


class Bench:
    """Makes clients of one library, and closes them."""

    def __init__(self, client: KafkaClient, servers: tuple[str, ...], **security: Any) -> None:
        self.client = client
        self.connection = Connection(servers=servers, client=client.name, **security)
        self._close: list[Callable[[], None]] = []

    def consumer(self, *topics: str, group: str | None = None, **options: Any) -> tuple[Consumer, Group]:
        """A consumer that has subscribed."""
        wanted = ConsumerOptions(group=group or f"g-{secrets.token_hex(4)}", client_id="test", **options)
        consumer = self.client.consumer(self.connection, wanted)
        self._close.append(lambda: consumer.close(5))
        listener = Group(consumer)
        consumer.subscribe(topics, listener)
        return consumer, listener

    def producer(self, **options: Any) -> Producer:
        producer = self.client.producer(self.connection, ProducerOptions(client_id="test", **options))
        self._close.append(lambda: producer.close(5))
        return producer

    def admin(self) -> Admin:
        admin = self.client.admin(self.connection)
        self._close.append(admin.close)
        return admin

    def closing(self, close: Callable[[], None]) -> None:
        self._close.append(close)

    def close(self) -> None:
        for close in reversed(self._close):
            close()


def read(consumer: Consumer, count: int, limit: int = 1000) -> list[Origin]:
    """Poll until so many messages have come."""
    origins: list[Origin] = []
    deadline = time.monotonic() + SECONDS
    while len(origins) < count:
        assert time.monotonic() < deadline, f"{len(origins)} of {count} messages came"
        batch = consumer.poll_batch(limit, 0.2)
        assert len(batch) <= limit
        origins += batch
    return origins


def poll_until(consumer: Consumer, reached: Callable[[], bool]) -> list[Origin]:
    """Poll until something is so; returns what came meanwhile."""
    origins: list[Origin] = []
    deadline = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < deadline
        origins += consumer.poll_batch(1000, 0.1)
    return origins


def deliver(producer: Producer, *messages: Outgoing) -> list[Undelivered]:
    """Produce and flush."""
    producer.produce_batch(messages)
    undelivered = producer.flush(SECONDS)
    assert undelivered is not None, "not flushed in time"
    return undelivered


def values(origins: Sequence[Any]) -> list[bytes | None]:
    return [origin.value for origin in origins]


def numbered(topic: str, count: int, key: bytes | None = b"k") -> list[Outgoing]:
    return [Outgoing(topic, key, str(number).encode()) for number in range(count)]
