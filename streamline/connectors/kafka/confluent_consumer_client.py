"""A consumer of confluent-kafka."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streamline.connectors.kafka.client import (
    Committed,
    Connection,
    ConsumerOptions,
    OffsetLost,
    Partition,
    RebalanceListener,
    TopicInfo,
    Unavailable,
)
from streamline.connectors.kafka.confluent_admin_client import ConfluentAdmin
from streamline.connectors.kafka.confluent_shared_client import Troubles, settings
from streamline.connectors.kafka.deadlines import within
from streamline.connectors.kafka.failures import failure, not_member
from streamline.flow.items import Origin

COMMIT_WAIT_SECONDS = 0.05
LOST = ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "_NO_OFFSET", "_LOG_TRUNCATION")


class ConfluentConsumer:
    """See `Consumer`."""

    def __init__(self, connection: Connection, options: ConsumerOptions) -> None:
        self._connection = connection
        self._options = options
        self._troubles = Troubles()
        self._library: Any = Consumer(self._configuration())
        self._admin: ConfluentAdmin | None = None
        self._listener: RebalanceListener | None = None
        self._starts: dict[Partition, int] | None = None  # of partitions that are just being assigned
        self._paused: set[Partition] = set()
        self._ends: dict[Partition, int] = {}
        self._sought: dict[Partition, int] = {}  # where nothing has come since
        self._errors: list[BaseException] = []
        self._early: list[Origin] = []  # came while a commit was waited for
        self._asked: dict[Partition, int] = {}  # of the newest commit
        self._answers: list[tuple[Any, list[Any]]] = []
        self._rebalancing = False
        self._closing = False

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """See `Consumer.subscribe`."""
        self._listener = listener
        self._library.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """See `Consumer.assign`."""
        self._forget(offsets)
        self._sought.update(offsets)
        with self._troubles.errors("read"):
            self._library.assign([TopicPartition(*partition, offset) for partition, offset in offsets.items()])

    def poll_batch(self, limit: int, timeout: float) -> list[Origin]:
        """See `Consumer.poll_batch`."""
        if self._early:
            origins, self._early = self._early[:limit], self._early[limit:]
            for partition in _places(origins):
                self._sought.pop(partition, None)
            return origins
        if not self._errors:
            with self._troubles.errors("read"):
                # It waits for all that it is asked for: so it is asked for one, and then for what is there.
                messages = self._library.consume(1, timeout)
                if messages and limit > 1:
                    messages += self._library.consume(limit - 1, 0)
            origins = [origin for message in messages if (origin := self._origin(message)) is not None]
            if self._sought:
                for partition in _places(origins):
                    self._sought.pop(partition, None)
            if origins:
                return origins
        if self._errors:
            raise self._errors.pop(0)
        if self._troubles.fatal is not None:
            raise self._troubles.fatal
        return []

    def position(self, partition: Partition) -> int | None:
        """See `Consumer.position`."""
        if self._starts is not None and partition in self._starts:
            offset = self._starts[partition]
        elif early := [origin.offset for origin in self._early if (origin.topic, origin.partition) == partition]:
            offset = early[0]
        else:
            offset = self._sought.get(partition, -1)
            if offset < 0:
                with contextlib.suppress(KafkaException):
                    offset = self._library.position([TopicPartition(*partition)])[0].offset
            # The end is told when it is reached, which may be behind a transaction's marker.
            offset = max(offset, self._ends.get(partition, -1))
        return offset if offset >= 0 else None

    def assignment(self) -> frozenset[Partition]:
        """See `Consumer.assignment`."""
        assigned = {Partition(place.topic, place.partition) for place in self._library.assignment()}
        return frozenset(assigned.union(self._starts or ()))

    def pause(self, partitions: Collection[Partition]) -> None:
        """See `Consumer.pause`."""
        self._paused.update(partitions)
        if here := self._owned(partitions):
            self._library.pause(here)

    def resume(self, partitions: Collection[Partition]) -> None:
        """See `Consumer.resume`."""
        self._paused.difference_update(partitions)
        if here := self._owned(partitions):
            self._library.resume(here)

    def seek(self, partition: Partition, offset: int) -> None:
        """See `Consumer.seek`."""
        self._forget([partition])
        if self._starts is not None and partition in self._starts:
            self._starts[partition] = offset
            return
        self._sought[partition] = offset
        place = TopicPartition(*partition, offset)
        with self._troubles.errors(f"read {partition} from offset {offset} on"):
            try:
                self._library.seek(place)
            except KafkaException as error:
                if error.args[0].name() != "_STATE":
                    raise
                # It has stopped reading this partition, whose offset was lost.
                self._library.incremental_unassign([TopicPartition(*partition)])
                self._library.incremental_assign([place])
                if partition in self._paused:
                    self._library.pause([TopicPartition(*partition)])

    def committed(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, Committed]:
        """See `Consumer.committed`."""
        request = "read the consumer group's offsets"
        places = [TopicPartition(*partition) for partition in partitions]
        with self._troubles.errors(request):
            found = self._library.committed(places, timeout=timeout) if places else []
        self._raise_first(found, request)
        return {
            Partition(place.topic, place.partition): Committed(place.offset, place.metadata or "")
            for place in found
            if place.offset >= 0
        }

    def commit(self, offsets: Mapping[Partition, Committed], timeout: float) -> None:
        """See `Consumer.commit`."""
        if not offsets:
            return
        request = "commit offsets"
        places = [TopicPartition(*place, value.offset, value.metadata) for place, value in offsets.items()]
        with self._troubles.errors(request):
            if self._rebalancing:
                # Here nothing can be polled for, so this waits as long as librdkafka does for a coordinator: at most
                # the group's session.
                error, committed = None, self._library.commit(offsets=places, asynchronous=False)
            else:
                error, committed = self._commit(places, timeout)
            if error is not None:
                raise KafkaException(error)
        self._raise_first(committed or [], request)

    def _commit(self, places: list[Any], timeout: float) -> tuple[Any, list[Any]]:
        """Commit offsets; return what the broker answers.

        A commit that is waited for inside librdkafka has no timeout, and blocks calls of other threads.
        """
        deadline = time.monotonic() + timeout
        self._answers = []
        self._asked = {Partition(place.topic, place.partition): place.offset for place in places}
        self._library.commit(offsets=places, asynchronous=True)
        while not self._answers:
            if time.monotonic() > deadline:
                raise failure("commit offsets", "_TIMED_OUT", f"no answer within {timeout:g} seconds")
            for message in self._library.consume(1, COMMIT_WAIT_SECONDS):
                if (origin := self._origin(message)) is not None:
                    self._early.append(origin)
        return self._answers[0]

    def range(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, tuple[int, int]]:
        """See `Consumer.range`."""
        return self._opened_admin().ends(partitions, self._options.isolation_level, timeout)

    def at_time(self, times: Mapping[Partition, int], timeout: float) -> dict[Partition, int | None]:
        """See `Consumer.at_time`."""
        request = "look up offsets by time"
        places = [TopicPartition(*partition, time_ms) for partition, time_ms in times.items()]
        with self._troubles.errors(request):
            found = self._library.offsets_for_times(places, timeout=timeout) if places else []
        self._raise_first(found, request)
        return {Partition(place.topic, place.partition): place.offset if place.offset >= 0 else None for place in found}

    def topics(self, timeout: float, names: Collection[str] | None = None) -> dict[str, TopicInfo]:
        """See `Consumer.topics`."""
        return self._opened_admin().topics(timeout, names)

    def group_metadata(self) -> Any:
        """See `Consumer.group_metadata`."""
        member = self._library.memberid()
        metadata = self._library.consumer_group_metadata()
        # A member that was evicted has no id, until it joins again, and brokers take offsets without one.
        if not member or self._library.memberid() != member:
            raise not_member()
        return metadata

    def close(self, timeout: float) -> None:
        """See `Consumer.close`. The listener is not called."""
        if self._closing:
            return
        self._closing = True
        if self._admin is not None:
            self._admin.close()
        with contextlib.suppress(Unavailable, KafkaException, RuntimeError):
            within(timeout, "leave the consumer group", self._library.close)

    def _on_assign(self, _: Any, places: list[Any]) -> None:
        starts = {Partition(place.topic, place.partition): -1 for place in places}
        self._forget(starts)
        self._starts = starts
        try:
            self._tell("assigned", starts)
        finally:
            self._starts = None
        for place in places:
            partition = Partition(place.topic, place.partition)
            if starts[partition] >= 0:
                place.offset = self._sought[partition] = starts[partition]
        self._library.incremental_assign(places)
        if paused := [place for place in places if Partition(place.topic, place.partition) in self._paused]:
            self._library.pause([TopicPartition(place.topic, place.partition) for place in paused])

    def _on_revoke(self, _: Any, places: list[Any]) -> None:
        self._give_up("revoked", places)

    def _on_lost(self, _: Any, places: list[Any]) -> None:
        self._give_up("lost", places)

    def _give_up(self, event: str, places: list[Any]) -> None:
        partitions = [Partition(place.topic, place.partition) for place in places]
        self._tell(event, partitions)
        self._paused.difference_update(partitions)
        self._forget(partitions)
        self._library.incremental_unassign(places)

    def _forget(self, partitions: Collection[Partition]) -> None:
        """Forget what came of partitions and was not returned."""
        self._early = [each for each in self._early if (each.topic, each.partition) not in partitions]
        for partition in partitions:
            self._ends.pop(partition, None)
            self._sought.pop(partition, None)

    def _on_commit(self, error: Any, places: list[Any]) -> None:
        offsets = {Partition(place.topic, place.partition): place.offset for place in places}
        if offsets == self._asked:  # and not an earlier one, which was given up
            self._answers.append((error, places))

    def _tell(self, event: str, partitions: Collection[Partition]) -> None:
        """Call the listener. What it raises is raised by `poll_batch`: inside librdkafka it would be lost."""
        if self._closing or not partitions:
            return
        self._rebalancing = True
        try:
            getattr(self._listener, event)(list(partitions))
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._rebalancing = False

    def _origin(self, message: Any) -> Origin | None:
        """Return the message; None: it is an event, which is noted."""
        error = message.error()
        if error is None:
            kind, time_ms = message.timestamp()
            return Origin(
                message.topic(),
                message.partition(),
                message.offset(),
                message.key(),
                message.value(),
                message.headers() or None,
                time_ms if kind and time_ms >= 0 else None,
            )
        name = error.name()
        if name == "_PARTITION_EOF":
            self._ends[Partition(message.topic(), message.partition())] = message.offset()
        elif name in LOST and message.topic() is not None:
            self._errors.append(lost(Partition(message.topic(), message.partition()), message.offset(), error.str()))
        else:
            failed = self._troubles.failure(KafkaException(error), "read")
            if not failed.transient or failed.fenced or failed.fatal:
                self._errors.append(failed)
        return None

    def _owned(self, partitions: Collection[Partition]) -> list[Any]:
        """Return those that are assigned: librdkafka refuses the others."""
        assigned = {Partition(place.topic, place.partition) for place in self._library.assignment()}
        return [TopicPartition(*partition) for partition in partitions if partition in assigned]

    def _raise_first(self, places: list[Any], request: str) -> None:
        for place in places:
            if place.error is not None:
                raise self._troubles.failure(
                    KafkaException(place.error), f"{request} ({place.topic}/{place.partition})"
                )

    def _opened_admin(self) -> ConfluentAdmin:
        if self._admin is None:
            self._admin = ConfluentAdmin(self._connection, self._options.client_id)
        return self._admin

    def _configuration(self) -> dict[str, Any]:
        options = self._options
        found = settings(self._connection, options.client_id, self._troubles) | {
            "group.id": options.group or "streamline",  # librdkafka wants one, also if it joins none
            "topic.metadata.refresh.interval.ms": int(options.metadata_seconds * 1000),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "on_commit": self._on_commit,
            "isolation.level": options.isolation_level,
            "enable.partition.eof": True,
            "max.poll.interval.ms": int(options.max_poll_seconds * 1000),
            "max.partition.fetch.bytes": options.max_partition_bytes,
            "fetch.max.bytes": options.fetch_bytes,
            "receive.message.max.bytes": options.fetch_bytes + options.max_partition_bytes + 1024,
            "queued.max.messages.kbytes": max(1, options.fetch_bytes >> 10),
        }
        if options.instance_id is not None:
            found["group.instance.id"] = options.instance_id
        if options.protocol == "consumer":  # session and assignor are the broker's
            return found | {"group.protocol": "consumer"}
        return found | {
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": int(options.session_seconds * 1000),
            "heartbeat.interval.ms": int(min(3.0, options.session_seconds / 3) * 1000),
        }


def _places(origins: list[Origin]) -> set[Partition]:
    return {Partition(origin.topic, origin.partition) for origin in origins}


def lost(partition: Partition, offset: int, reason: str) -> OffsetLost:
    """Return the error of an offset that cannot be read."""
    return OffsetLost(f"{partition}: cannot read offset {offset}: {reason}", partition, offset)
