"""An admin client of confluent-kafka."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import Consumer as LibraryConsumer
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from streamline.connectors.kafka.client import Committed, Connection, KafkaError, Partition, TopicInfo
from streamline.connectors.kafka.confluent_shared_client import Troubles, settings
from streamline.connectors.kafka.deadlines import within
from streamline.connectors.kafka.failures import failure

Result = TypeVar("Result")

STALE = ("_TIMED_OUT", "_TRANSPORT")
"""Errors of a client that may go on waiting for a controller that has died: it asks for no other one by itself."""
NO_TOPIC = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "TOPIC_EXCEPTION")


class ConfluentAdmin:
    """See `Admin`."""

    def __init__(self, connection: Connection, client_id: str = "streamline") -> None:
        self._connection = connection
        self._client_id = client_id
        self._troubles = Troubles()
        self._lock = threading.Lock()
        self._library: Any = None
        self._mock: bool | None = None

    def topics(self, timeout: float, names: Collection[str] | None = None) -> dict[str, TopicInfo]:
        """See `Admin.topics`."""
        deadline = time.monotonic() + timeout
        if self._is_mock(timeout):
            return self._topics_of_mock(timeout, names)
        if names is None:
            listed = self._call("list topics", lambda library: library.list_topics(timeout=timeout))
            names = listed.topics.keys()
        if not names:
            return {}
        described = self._call(
            "list topics",
            lambda library: library.describe_topics(TopicCollection(sorted(names)), request_timeout=_left(deadline)),
        )
        topics: dict[str, TopicInfo] = {}
        for name, future in described.items():
            try:
                found = self._result("list topics", future, deadline)
            except KafkaException as error:
                if error.args[0].name() not in NO_TOPIC:
                    raise self._failure(error, f"describe topic {name}") from error
                continue
            topics[name] = TopicInfo(
                name=name,
                partitions=len(found.partitions),
                id=_topic_id(found.topic_id),
                internal=bool(found.is_internal),
            )
        return topics

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str], timeout: float) -> bool:
        """See `Admin.create_topic`."""
        request, deadline = f"create topic {name}", time.monotonic() + timeout
        topic = NewTopic(name, num_partitions=partitions, config=dict(config))
        created = self._call(
            request, lambda library: library.create_topics([topic], request_timeout=timeout, operation_timeout=timeout)
        )
        try:
            self._result(request, created[name], deadline)
        except KafkaException as error:
            if error.args[0].name() == "TOPIC_ALREADY_EXISTS":
                return False
            raise self._failure(error, request) from error
        while name not in self.topics(_left(deadline), [name]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return True

    def topic_config(self, name: str, timeout: float) -> dict[str, str]:
        """See `Admin.topic_config`."""
        if self._is_mock(timeout):
            return {}
        request, deadline = f"read the configuration of topic {name}", time.monotonic() + timeout
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        futures = self._call(request, lambda library: library.describe_configs([resource], request_timeout=timeout))
        with self._errors(request):
            entries = self._result(request, futures[resource], deadline)
        return {key: str(entry.value) for key, entry in entries.items() if entry.value is not None}

    def ends(
        self, partitions: Collection[Partition], isolation_level: str, timeout: float
    ) -> dict[Partition, tuple[int, int]]:
        """Return the first offset and the end of partitions."""
        request, deadline = "read the offsets of a topic", time.monotonic() + timeout
        level = (
            IsolationLevel.READ_COMMITTED if isolation_level == "read_committed" else IsolationLevel.READ_UNCOMMITTED
        )
        offsets: list[dict[Partition, int]] = []
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
            places = {TopicPartition(*partition): spec for partition in partitions}
            if not places:
                return {}
            ask = partial(_list_offsets, places=places, isolation_level=level, request_timeout=_left(deadline))
            futures = self._call(request, ask)
            with self._errors(request):
                offsets.append(
                    {
                        Partition(place.topic, place.partition): self._result(request, future, deadline).offset
                        for place, future in futures.items()
                    }
                )
        # While leaders move, librdkafka may give the -1 that it was asked with, and no error.
        if unknown := sorted(partition for each in offsets for partition, offset in each.items() if offset < 0):
            raise failure(request, "OFFSET_NOT_AVAILABLE", f"the brokers do not tell those of {unknown[0]}")
        return {partition: (offsets[0][partition], offsets[1][partition]) for partition in partitions}

    def group_offsets(self, group: str, timeout: float) -> dict[Partition, Committed]:
        """See `Admin.group_offsets`."""
        # `list_consumer_group_offsets` has crashed the interpreter while the coordinator was loading; a consumer that
        # subscribes to nothing does not join the group.
        request, deadline = f"read the offsets of group {group}", time.monotonic() + timeout
        places = [
            TopicPartition(topic.name, number)
            for topic in self.topics(timeout).values()
            for number in range(topic.partitions)
        ]
        configuration = settings(self._connection, self._client_id, self._troubles) | {"group.id": group}

        def read() -> list[Any]:
            consumer = LibraryConsumer(configuration)
            try:
                return list(consumer.committed(places, timeout=_left(deadline)))
            finally:
                consumer.close()

        with self._errors(request):
            found = within(timeout, request, read) if places else []
        for place in found:
            if place.error is not None:
                raise self._failure(KafkaException(place.error), request)
        return {
            Partition(place.topic, place.partition): Committed(place.offset, place.metadata or "")
            for place in found
            if place.offset >= 0
        }

    def delete_records(self, offsets: Mapping[Partition, int], timeout: float) -> None:
        """See `Admin.delete_records`."""
        request, deadline = "delete records", time.monotonic() + timeout
        places = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        futures = self._call(request, lambda library: library.delete_records(places, request_timeout=timeout))
        with self._errors(request):
            for future in futures.values():
                self._result(request, future, deadline)

    def set_group_offsets(self, group: str, offsets: Mapping[Partition, Committed | None], timeout: float) -> None:
        """See `Admin.set_group_offsets`."""
        request, deadline = f"set offsets of group {group}", time.monotonic() + timeout
        kept = [
            TopicPartition(*place, value.offset, value.metadata)
            for place, value in offsets.items()
            if value is not None
        ]
        dropped = {place for place, value in offsets.items() if value is None}
        if dropped:
            self._drop_offsets(group, dropped, deadline)
        if not kept:
            return
        futures = self._call(
            request,
            lambda library: library.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group, kept)], request_timeout=timeout
            ),
        )
        with self._errors(request):
            answer = self._result(request, futures[group], deadline)
        for place in answer.topic_partitions:
            if place.error is not None:
                raise self._failure(KafkaException(place.error), f"{request} for {place.topic}/{place.partition}")

    def close(self) -> None:
        """See `Admin.close`."""
        library, self._library = self._library, None
        if library is not None:
            threading.Thread(target=_forget, args=([library],), name="kafka close", daemon=True).start()

    def _is_mock(self, timeout: float) -> bool:
        """Return whether the brokers are librdkafka's mock cluster, which cannot describe topics and has no ids."""
        if self._mock is None:
            # It is always there, and asking a real cluster for all its topics may be expensive.
            if not all(server.startswith("127.0.0.1:") for server in self._connection.servers):
                return False
            listed = self._call("list topics", lambda library: library.list_topics(timeout=timeout))
            self._mock = str(listed.cluster_id).startswith("mockCluster")
        return self._mock

    def _topics_of_mock(self, timeout: float, names: Collection[str] | None) -> dict[str, TopicInfo]:
        listed = self._call("list topics", lambda library: library.list_topics(timeout=timeout))
        return {
            name: TopicInfo(name=name, partitions=len(topic.partitions))
            for name, topic in listed.topics.items()
            if topic.error is None and (names is None or name in names)
        }

    def _drop_offsets(self, group: str, dropped: Collection[Partition], deadline: float) -> None:
        """Delete offsets; the library can only delete a whole group, so the others are written again."""
        request = f"set offsets of group {group}"
        before = self.group_offsets(group, _left(deadline))
        if not dropped & before.keys():
            return
        futures = self._call(
            request, lambda library: library.delete_consumer_groups([group], request_timeout=_left(deadline))
        )
        with self._errors(request):
            self._result(request, futures[group], deadline)
        rest = {place: value for place, value in before.items() if place not in dropped}
        if rest:
            self.set_group_offsets(group, rest, _left(deadline))

    def _call(self, request: str, call: Callable[[Any], Result]) -> Result:
        with self._lock:
            if self._library is None:
                self._library = AdminClient(settings(self._connection, self._client_id, self._troubles))
            library = self._library
        with self._errors(request):
            return call(library)

    def _result(self, request: str, future: Future[Any], deadline: float) -> Any:
        try:
            return future.result(timeout=_left(deadline) + 1)
        except FutureTimeoutError:
            self.close()
            raise failure(request, "_TIMED_OUT", "no answer in time") from None

    @contextlib.contextmanager
    def _errors(self, request: str) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise self._failure(error, request) from error

    def _failure(self, error: KafkaException, request: str) -> KafkaError:
        if self._library is not None:
            self._library.poll(0)  # what it has to tell of its connections
        failed = self._troubles.failure(error, request)
        if failed.kafka_code in STALE:
            self.close()  # the next request asks a new one
        return failed


def _list_offsets(library: Any, places: Any, **options: Any) -> Any:
    return library.list_offsets(places, **options)


def _left(deadline: float) -> float:
    """Return what is left until a deadline by the monotonic clock, in seconds, more than 0."""
    return max(0.1, deadline - time.monotonic())


def _topic_id(value: Any) -> str | None:
    """Return a topic's id as Kafka's tools write it; None: the broker gives none."""
    text = str(value).translate(str.maketrans("+/", "-_")).rstrip("=") if value is not None else ""
    return text if text.strip("A") else None


def _forget(library: list[Any]) -> None:
    """Destroy a client: that happens with its last reference, and may take time."""
    library.clear()
