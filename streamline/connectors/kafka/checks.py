"""`streamline check` for Kafka: whether the cluster answers, the topics exist, and how far the group is behind."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from streamline.connectors.kafka.client import (
    Admin,
    Connection,
    ConsumerOptions,
    KafkaClient,
    KafkaError,
    Partition,
    Unavailable,
)
from streamline.connectors.kafka.serde_settings import Serde
from streamline.connectors.kafka.serialization.registry import SchemaRegistry
from streamline.connectors.kafka.settings import KafkaSinkSettings, KafkaSourceSettings
from streamline.connectors.kafka.topics import TopicSelection
from streamline.connectors.kafka.user_errors import addresses, explained
from streamline.connectors.stream_connector import StreamContext, Where
from streamline.errors import StreamlineError
from streamline.project.suggest import suggestion

TIMEOUT = 8.0
_REGISTRY_SECONDS = 5.0
_RETRY_SECONDS = 0.2
_NO_COORDINATOR = ("NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS")


def check_source(settings: KafkaSourceSettings, client: KafkaClient, context: StreamContext, where: Where) -> str:
    """Return what a source would read, in one line.

    Raises:
        StreamlineError: the cluster or the registry does not answer, or a topic is missing.
    """
    selection = TopicSelection(settings.topics, settings.pattern)
    try:
        partitions = _partitions(client, settings.connection, selection, where)
        behind = _behind(client, settings, context, partitions)
    except KafkaError as error:
        if isinstance(error, Unavailable):
            raise _unreachable(settings.connection, where) from None
        raise explained(error, settings.connection, topics=str(selection), group=settings.group) from None
    _check_registry(settings.serde)
    topics = len({partition.topic for partition in partitions})
    return f"{_count(topics, 'topic')}, {_count(len(partitions), 'partition')}; {behind}"


def check_sink(settings: KafkaSinkSettings, client: KafkaClient, where: Where) -> str:
    """Return what a sink would write to, in one line.

    Raises:
        StreamlineError: the cluster or the registry does not answer, or its topic is missing.
    """
    by_stream = "{stream}" in settings.topic
    selection = TopicSelection(() if by_stream else (settings.topic,), "" if by_stream else None)
    try:
        partitions = _partitions(client, settings.connection, selection, where)
    except KafkaError as error:
        if isinstance(error, Unavailable):
            raise _unreachable(settings.connection, where) from None
        raise explained(error, settings.connection, topics=settings.topic, write=True) from None
    _check_registry(settings.serde)
    if by_stream:
        return f"the cluster answers; messages of a stream go to {settings.topic}"
    return f"topic {settings.topic}, {_count(len(partitions), 'partition')}"


def _partitions(
    client: KafkaClient, connection: Connection, selection: TopicSelection, where: Where
) -> list[Partition]:
    admin = client.admin(connection)
    try:
        topics = admin.topics(TIMEOUT, selection.wanted)
        missing = selection.missing(topics)
        if missing:
            names = [name for name, topic in admin.topics(TIMEOUT).items() if not topic.internal]
            raise StreamlineError(
                f"the cluster has no topic {missing[0]!r}",
                where=where("topics" if len(missing) > 1 else "topic"),
                hint=suggestion(missing[0], names, what="topics"),
                code="kafka.topic_missing",
            )
    finally:
        admin.close()
    chosen = selection.choose(topics).values()
    return [Partition(topic.name, number) for topic in chosen for number in range(topic.partitions)]


def _behind(
    client: KafkaClient, settings: KafkaSourceSettings, context: StreamContext, partitions: Collection[Partition]
) -> str:
    """Return how many messages the group has not read."""
    consumer = client.consumer(
        settings.connection,
        ConsumerOptions(
            group=settings.group,
            client_id=f"streamline-{context.pipeline}-{context.block}-check",
            isolation_level=settings.isolation_level,
        ),
    )
    try:
        ranges = consumer.range(partitions, TIMEOUT) if partitions else {}
    finally:
        consumer.close(TIMEOUT)
    committed = _committed(client.admin(settings.connection), settings.group)
    new = [partition for partition in partitions if partition not in committed]
    behind = sum(
        max(0, end - max(first, committed[partition]))
        for partition, (first, end) in ranges.items()
        if partition in committed
    )
    group = f"consumer group {settings.group}"
    if new and len(new) == len(partitions):
        return f"{group} has not read them yet"
    rest = f", and has not begun with {_count(len(new), 'partition')}" if new else ""
    return f"{group} is {_count(behind, 'message')} behind{rest}"


def _committed(admin: Admin, group: str) -> Mapping[Partition, int]:
    deadline = time.monotonic() + TIMEOUT
    try:
        while True:
            try:
                offsets = admin.group_offsets(group, TIMEOUT)
            except KafkaError as error:
                # A new cluster makes the topic of its groups when it is asked for one for the first time.
                if error.kafka_code not in _NO_COORDINATOR or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                return {partition: committed.offset for partition, committed in offsets.items()}
    finally:
        admin.close()


def _unreachable(connection: Connection, where: Where) -> StreamlineError:
    return StreamlineError(
        f"no broker could be reached at {addresses(connection)}",
        where=where("bootstrap_server"),
        hint="look at bootstrap_server, at security_protocol, and whether the brokers run",
        code="kafka.unreachable",
    )


def _check_registry(serde: Serde) -> None:
    for each in (serde, serde.key):
        if each is not None and each.registry is not None:
            SchemaRegistry(each.registry, retry_seconds=_REGISTRY_SECONDS).subjects()


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
