"""A consumer of kafka-python.

The library tells a rebalance listener in its own network thread, which must not be blocked, and blocks the thread that
polls meanwhile. So a thread of ours polls; the consumer's owner waits for it in `poll_batch` and there runs what the
listener has to do, while the network thread goes on with heartbeats and can commit.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from kafka import AsyncConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.future import Future

from streamline.connectors.kafka.client import (
    Committed,
    Connection,
    ConsumerOptions,
    KafkaError,
    Partition,
    RebalanceListener,
    TopicInfo,
    Unavailable,
)
from streamline.connectors.kafka.deadlines import within
from streamline.connectors.kafka.failures import not_member
from streamline.connectors.kafka.kafka_python_admin_client import KafkaPythonAdmin
from streamline.connectors.kafka.kafka_python_batches_client import batches_known
from streamline.connectors.kafka.kafka_python_records_client import OriginRecords
from streamline.connectors.kafka.kafka_python_shared_client import (
    keep_refreshing,
    lost,
    milliseconds,
    open_library,
    settings,
    translated,
)
from streamline.errors import ConfigError
from streamline.flow.items import Origin

OPEN_SECONDS = 10.0
"""For the first request of a method that has no timeout."""
STUCK_SECONDS = 30.0
"""A poll that has not returned for so long never will: its network thread was seen to run in circles."""
GRACE_SECONDS = 1.0
"""That a poll may take longer than it was asked to."""


class KafkaPythonConsumer:
    """See `Consumer`. It connects with its first request."""

    def __init__(self, connection: Connection, options: ConsumerOptions) -> None:
        if options.protocol == "consumer":
            raise ConfigError(
                "kafka-python does not know group_protocol: consumer",
                hint="use client: confluent, or leave group_protocol out",
                code="kafka.group_protocol_unsupported",
            )
        self._connection = connection
        self._options = options
        self._library: Any = None
        self._takes_origins = batches_known()
        self._admin: KafkaPythonAdmin | None = None
        self._listener: RebalanceListener | None = None
        self._topics: tuple[str, ...] = ()
        self._assigned: dict[Partition, int] | None = None  # without a group
        self._subscribed = False
        self._events: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
        self._polls: queue.SimpleQueue[tuple[Sequence[str], int, int] | None] = queue.SimpleQueue()
        self._polling = False
        self._polling_since = 0.0
        self._telling = False
        self._sought: dict[Any, int] = {}
        self._closed = False

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """See `Consumer.subscribe`."""
        self._topics, self._listener, self._subscribed = tuple(topics), listener, False

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """See `Consumer.assign`."""
        self._assigned, self._subscribed = dict(offsets), False

    def poll_batch(self, limit: int, timeout: float) -> list[Origin]:
        """See `Consumer.poll_batch`."""
        deadline = time.monotonic() + timeout
        try:
            library = self._opened(max(timeout, OPEN_SECONDS))
        except Unavailable:
            time.sleep(max(0.0, deadline - time.monotonic()))
            raise
        if not self._subscribed and self._assigned is not None:
            library.assign([TopicPartition(*partition) for partition in self._assigned])
            for partition, offset in self._assigned.items():
                library.seek(TopicPartition(*partition), offset)
            self._subscribed = True
        elif not self._subscribed:
            self._subscribed = True
            self._polls.put((self._topics, 0, 0))
        if not self._polling:
            self._polls.put(((), limit, milliseconds(deadline)))
            self._polling = True
            self._polling_since = time.monotonic()
        while True:
            try:
                kind, value, done = self._events.get(timeout=max(0.0, deadline - time.monotonic()) + GRACE_SECONDS)
            except queue.Empty:
                if time.monotonic() - self._polling_since > STUCK_SECONDS:
                    raise KafkaError(
                        f"kafka-python has not returned from a poll for {STUCK_SECONDS:.0f} seconds",
                        fatal=True,
                        code="kafka.client_stuck",
                    ) from None
                return []  # the library is late; the next call waits for the same poll
            if kind == "records":
                self._polling = False
                self._drop_sought(value)
                records = chain.from_iterable(value.values())
                return list(records) if self._takes_origins else [*map(_origin, records)]
            if kind == "error":
                self._polling = False
                error = translated(value, "read")
                if isinstance(error, Unavailable) or (error.transient and not error.fenced):
                    time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))
                    return []
                raise error from value
            self._telling = True
            try:
                getattr(self._listener, kind)(value)
            finally:
                self._telling = False
                self._polling_since = time.monotonic()
                done()

    @property
    def _late(self) -> bool:
        """Whether a poll goes on that may have taken messages which are still to be returned."""
        return self._polling and not self._telling

    def _drop_sought(self, records: dict[Any, Any]) -> None:
        """Drop what a late poll brought of partitions that were to be read from elsewhere meanwhile."""
        sought, self._sought = self._sought, {}
        for place, offset in sought.items():
            if records.pop(place, None) is not None and place in self._library.assignment():
                self._library.seek(place, offset)

    def position(self, partition: Partition) -> int | None:
        """See `Consumer.position`."""
        if self._assigned is not None and not self._subscribed:
            return self._assigned.get(partition)
        if self._library is None or self._late:
            return None
        try:
            offset = self._library.position(TopicPartition(*partition), timeout_ms=1)
        except (errors.IllegalStateError, errors.NoOffsetForPartitionError, errors.KafkaTimeoutError):
            return None
        return None if offset is None else int(offset)

    def assignment(self) -> frozenset[Partition]:
        """See `Consumer.assignment`."""
        if self._assigned is not None:
            return frozenset(self._assigned)
        assigned = self._library.assignment() if self._library is not None else ()
        return frozenset(Partition(place.topic, place.partition) for place in assigned)

    def pause(self, partitions: Collection[Partition]) -> None:
        """See `Consumer.pause`."""
        if here := self._owned(partitions):
            self._library.pause(*here)

    def resume(self, partitions: Collection[Partition]) -> None:
        """See `Consumer.resume`."""
        if here := self._owned(partitions):
            self._library.resume(*here)

    def seek(self, partition: Partition, offset: int) -> None:
        """See `Consumer.seek`."""
        place = TopicPartition(*partition)
        try:
            self._library.seek(place, offset)
        except ValueError as error:
            raise lost(partition, offset) from error
        if self._late:
            self._sought[place] = offset

    def committed(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, Committed]:
        """See `Consumer.committed`."""
        offsets: dict[Partition, Committed] = {}
        with self._request("read the consumer group's offsets", timeout) as (library, deadline):
            for partition in partitions:
                value = library.committed(TopicPartition(*partition), metadata=True, timeout_ms=milliseconds(deadline))
                if value is not None:
                    offsets[partition] = Committed(value.offset, value.metadata or "")
        return offsets

    def commit(self, offsets: Mapping[Partition, Committed], timeout: float) -> None:
        """See `Consumer.commit`."""
        values = {
            TopicPartition(*place): OffsetAndMetadata(each.offset, each.metadata, -1) for place, each in offsets.items()
        }
        with self._request("commit offsets", timeout) as (library, deadline):
            library.commit(values, timeout_ms=milliseconds(deadline))

    def range(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, tuple[int, int]]:
        """See `Consumer.range`."""
        places = [TopicPartition(*partition) for partition in partitions]
        with self._request("read the offsets of a topic", timeout) as (library, deadline):
            first = library.beginning_offsets(places, timeout_ms=milliseconds(deadline))
            end = library.end_offsets(places, timeout_ms=milliseconds(deadline))
            return {Partition(place.topic, place.partition): (first[place], end[place]) for place in places}

    def at_time(self, times: Mapping[Partition, int], timeout: float) -> dict[Partition, int | None]:
        """See `Consumer.at_time`."""
        with self._request("look up offsets by time", timeout) as (library, deadline):
            places = {TopicPartition(*partition): time for partition, time in times.items()}
            offsets = library.offsets_for_times(places, timeout_ms=milliseconds(deadline))
            return {
                Partition(place.topic, place.partition): None if value is None or value.offset < 0 else value.offset
                for place, value in offsets.items()
            }

    def topics(self, timeout: float, names: Collection[str] | None = None) -> dict[str, TopicInfo]:
        """See `Consumer.topics`."""
        if self._admin is None:
            self._admin = KafkaPythonAdmin(self._connection, self._options.client_id)
        return self._admin.topics(timeout, names)

    def group_metadata(self) -> Any:
        """See `Consumer.group_metadata`."""
        metadata = self._opened(OPEN_SECONDS).group_metadata()
        # A member that was evicted has neither, until it joins again, and brokers take offsets without them.
        if metadata.generation_id < 0 or not metadata.member_id:
            raise not_member()
        return metadata

    def close(self, timeout: float) -> None:
        """See `Consumer.close`. The listener is not called."""
        if self._closed:
            return
        self._closed = True
        if self._admin is not None:
            self._admin.close()
        self._polls.put(None)
        library = self._library
        if library is None:
            return

        def close() -> None:
            threading.Thread(target=_answer, args=(self._events,), name="kafka close", daemon=True).start()
            try:
                library.close(autocommit=False, timeout_ms=max(1, int(timeout * 500)))
            finally:
                self._events.put(("closed", None, None))

        with contextlib.suppress(Unavailable, errors.KafkaError):
            within(timeout, "leave the consumer group", close)

    @contextlib.contextmanager
    def _request(self, request: str, timeout: float) -> Iterator[tuple[Any, float]]:
        """Give the library and a deadline; errors of the library inside are raised as the port's."""
        deadline = time.monotonic() + timeout
        library = self._opened(timeout)
        try:
            yield library, deadline
        except errors.KafkaError as error:
            raise translated(error, request) from error

    def _opened(self, timeout: float) -> Any:
        if self._library is None:
            self._library = open_library(KafkaConsumer, self._configuration(), self._connection, timeout)
            if self._takes_origins:
                self._library._fetcher.PartitionRecords = OriginRecords
            threading.Thread(target=_serve, args=(self._library, self._polls, self._events), daemon=True).start()
        return self._library

    def _owned(self, partitions: Collection[Partition]) -> list[Any]:
        """Return those that are assigned: the library knows no others."""
        assigned = self._library.assignment() if self._library is not None else ()
        return [place for place in (TopicPartition(*partition) for partition in partitions) if place in assigned]

    def _configuration(self) -> dict[str, Any]:
        options = self._options
        return settings(self._connection, options.client_id) | {
            "group_id": None if self._assigned is not None else options.group or None,
            "group_instance_id": options.instance_id,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": options.isolation_level,
            "allow_auto_create_topics": False,
            "partition_assignment_strategy": [CooperativeStickyAssignor],
            "session_timeout_ms": int(options.session_seconds * 1000),
            "heartbeat_interval_ms": int(min(3.0, options.session_seconds / 3) * 1000),
            "max_poll_interval_ms": int(options.max_poll_seconds * 1000),
            "max_partition_fetch_bytes": options.max_partition_bytes,
            "fetch_max_bytes": options.fetch_bytes,
            "metadata_max_age_ms": int(options.metadata_seconds * 1000),
            "metrics_enabled": False,
        }


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python is not typed
    """Hands what the library tells over to the thread that polls."""

    def __init__(self, events: queue.SimpleQueue[tuple[str, Any, Any]], library: Any) -> None:
        self._events = events
        self._library = library

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        await self._hand_over("assigned", assigned)

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        await self._hand_over("revoked", revoked)

    async def on_partitions_lost(self, lost: Collection[Any]) -> None:
        await self._hand_over("lost", lost)

    async def _hand_over(self, kind: str, places: Collection[Any]) -> None:
        done = Future()

        def resume() -> None:
            with contextlib.suppress(RuntimeError):  # the library was closed meanwhile
                self._library._net.call_soon_threadsafe(lambda: done.success(None))

        self._events.put((kind, [Partition(place.topic, place.partition) for place in sorted(places)], resume))
        await done


def _serve(
    library: Any,
    polls: queue.SimpleQueue[tuple[Sequence[str], int, int] | None],
    events: queue.SimpleQueue[tuple[str, Any, Any]],
) -> None:
    """Subscribe and poll whenever it is asked for, until None is."""
    while (poll := polls.get()) is not None:
        topics, limit, timeout_ms = poll
        try:
            keep_refreshing(library._cluster)
            if topics:
                # The network thread goes through the subscription without a lock when metadata come.
                listener = _Listener(events, library)
                library._net.run(partial(library.subscribe, topics=list(topics), listener=listener))
                _learn_topics(library, topics)
            else:
                _keep_joining(library)
                events.put(("records", library.poll(timeout_ms=timeout_ms, max_records=limit), None))
        except Exception as error:
            events.put(("error", error, None))


def _learn_topics(library: Any, topics: Sequence[str]) -> None:
    """Let the library know topics: it may assign no partitions, and not notice, if it joins before it does.

    `partitions_for_topic` would wait without a deadline.
    """
    cluster = library._cluster
    for _ in range(2):  # the first refresh may have begun before the topics were subscribed to
        if all(cluster.partitions_for_topic(topic) is not None for topic in topics):
            return
        with contextlib.suppress(errors.KafkaError):
            library._net.run(library._manager.wait_for, cluster.request_update(), OPEN_SECONDS * 1000)


def _keep_joining(library: Any) -> None:
    """Do what the library omits when it joins its group.

    Raises:
        errors.FencedInstanceIdError: another member has the same instance id.
    """
    coordinator = library._coordinator
    if coordinator.rebalance_in_progress():
        # A poll ended before the group had answered. If this member has computed the assignment meanwhile, the library
        # takes it for applied, and stays without partitions.
        coordinator.request_rejoin()
    elif coordinator.group_instance_id and coordinator.stable() and not coordinator._heartbeat_enabled:
        # It stops its heartbeats then, and tells nobody.
        raise errors.FencedInstanceIdError(coordinator.group_instance_id)


def _answer(events: queue.SimpleQueue[tuple[str, Any, Any]]) -> None:
    """Let the library go on after a rebalance without asking the listener, until it is closed."""
    kind = ""
    while kind != "closed":
        kind, _, done = events.get()
        if done is not None:
            done()


def _origin(record: Any) -> Origin:
    time_ms = record.timestamp
    return Origin(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        list(record.headers) or None,
        None if time_ms is None or time_ms < 0 else time_ms,
    )
