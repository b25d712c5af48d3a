"""A Kafka cluster in memory, behind the port: topics, groups and rebalances that a test drives, and errors on demand.

`FakeCluster` is both the cluster and the client library. Rebalances are cooperative: what another member owns is
assigned when that one has let go of it, from within its next `poll_batch`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from streamline.connectors.kafka.client import (
    Admin,
    Committed,
    Connection,
    Consumer,
    ConsumerOptions,
    KafkaError,
    NotMember,
    OffsetLost,
    Outgoing,
    Partition,
    Producer,
    ProducerOptions,
    RebalanceListener,
    TopicInfo,
    Undelivered,
)
from streamline.flow.items import Origin

CONNECTION = Connection(servers=("kafka.test:9092",))


class Log:
    """A partition: records by offset; None is a marker of a transaction, or a record that compaction has removed."""

    def __init__(self) -> None:
        self.records: list[Origin | None] = []
        self.first = 0
        self.stable: int | None = None
        """The last stable offset, while a transaction is open."""

    @property
    def end(self) -> int:
        return len(self.records)

    @property
    def readable(self) -> int:
        """The end for readers of committed transactions."""
        return self.end if self.stable is None else self.stable

    def record(self, offset: int) -> Origin | None:
        return self.records[offset]

    def append(self, record: Origin | None) -> None:
        self.records.append(record)


class EndlessLog(Log):
    """A partition with so many records, made when they are read. `made` makes the record of an offset."""

    def __init__(self, count: int, made: Callable[[int], Origin]) -> None:
        super().__init__()
        self._count = count
        self._made = made

    @property
    def end(self) -> int:
        return self._count

    def record(self, offset: int) -> Origin | None:
        return self._made(offset)


class FakeTopic:
    def __init__(self, name: str, partitions: int, id: str) -> None:
        self.name = name
        self.id = id
        self.logs = [Log() for _ in range(partitions)]
        self.config: dict[str, str] = {"max.message.bytes": "1048588"}


class FakeGroup:
    """A consumer group. Without `assign`, partitions are spread over the members by themselves."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self.offsets: dict[Partition, Committed] = {}
        self.history: list[tuple[str, Partition, Committed]] = []
        """Each commit: the member, the partition, the offset."""
        self.members: list[FakeConsumer] = []
        self.fixed: dict[str, set[Partition]] | None = None

    def assign(self, partitions: Mapping[str, Collection[Partition]] | None) -> None:
        """Fix which partitions each client id has; None: they are spread again."""
        with self._cluster.lock:
            self.fixed = None if partitions is None else {name: set(owned) for name, owned in partitions.items()}

    def target(self, member: FakeConsumer) -> set[Partition]:
        if self.fixed is not None:
            return set(self.fixed.get(member.options.client_id, ()))
        topics = sorted({topic for each in self.members for topic in each.topics_read})
        wanted = []
        for topic in topics:
            if topic in self._cluster.known:
                readers = [each for each in self.members if topic in each.topics_read]
                wanted += [
                    (readers[number % len(readers)], Partition(topic, number))
                    for number in range(len(self._cluster.known[topic].logs))
                ]
        return {partition for reader, partition in wanted if reader is member}


class FakeCluster:
    """The cluster, and a client library for it.

    Attributes:
        errors: by method (`commit`, `topics`, `poll_batch`, `committed`, `range`, `flush`, `send_offsets`, …), what the
            next calls raise, in order; an error that is not to be used up is in `down`.
        down: what every call of a method raises; `*`: of all methods.
        refuse: called with each message that is produced; Kafka's name of the error that refuses it, or None.
        stuck: `flush` does not end in time.
    """

    name = "kafka-python"

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.known: dict[str, FakeTopic] = {}
        self.groups: dict[str, FakeGroup] = {}
        self.errors: dict[str, list[KafkaError]] = {}
        self.down: dict[str, KafkaError] = {}
        self.refuse: Callable[[Outgoing], str | None] = lambda message: None
        self.stuck = False
        self.calls: list[str] = []
        self.consumers: list[FakeConsumer] = []
        self.producers: list[FakeProducer] = []
        self._ids = 0

    # -- what a test does

    def create(self, name: str, partitions: int = 1) -> FakeTopic:
        """Create a topic; one of this name that was deleted before had another id."""
        with self.lock:
            self._ids += 1
            self.known[name] = FakeTopic(name, partitions, f"id-{self._ids}")
            return self.known[name]

    def delete(self, name: str) -> None:
        with self.lock:
            del self.known[name]

    def add_partitions(self, name: str, count: int) -> None:
        with self.lock:
            self.known[name].logs += [Log() for _ in range(count)]

    def write(
        self,
        topic: str,
        *values: bytes | None,
        partition: int = 0,
        key: bytes | None = None,
        headers: list[tuple[str, bytes | None]] | None = None,
        time: int | None = None,
    ) -> None:
        """Append messages to a partition."""
        with self.lock:
            log = self.known[topic].logs[partition]
            for value in values:
                log.append(Origin(topic, partition, log.end, key, value, headers, time))

    def mark(self, topic: str, partition: int = 0, count: int = 1) -> None:
        """Append offsets without messages, as markers of transactions are."""
        with self.lock:
            for _ in range(count):
                self.known[topic].logs[partition].append(None)

    def expire(self, topic: str, first: int, partition: int = 0) -> None:
        """Remove the messages before an offset."""
        with self.lock:
            self.known[topic].logs[partition].first = first

    def values(self, topic: str) -> list[list[bytes | None]]:
        """The values in each partition."""
        with self.lock:
            return [[record.value for record in log.records if record is not None] for log in self.known[topic].logs]

    def records(self, topic: str) -> list[Origin]:
        """All messages of a topic, partition by partition."""
        with self.lock:
            return [record for log in self.known[topic].logs for record in log.records if record is not None]

    def group(self, name: str) -> FakeGroup:
        with self.lock:
            return self.groups.setdefault(name, FakeGroup(self))

    def offset(self, group: str, topic: str, partition: int = 0) -> int | None:
        """The group's offset of a partition."""
        committed = self.group(group).offsets.get(Partition(topic, partition))
        return committed.offset if committed is not None else None

    def fail(self, method: str, error: KafkaError, times: int = 1) -> None:
        """Have the next calls of a method fail."""
        with self.lock:
            self.errors.setdefault(method, []).extend([error] * times)

    def called(self, method: str) -> None:
        with self.lock:
            self.calls.append(method)
            for name in (method, "*"):
                if name in self.down:
                    raise self.down[name]
            if self.errors.get(method):
                raise self.errors[method].pop(0)

    # -- the port

    def consumer(self, connection: Connection, options: ConsumerOptions) -> Consumer:
        self.called("consumer")
        self.consumers.append(FakeConsumer(self, options))
        return self.consumers[-1]

    def producer(self, connection: Connection, options: ProducerOptions) -> Producer:
        self.called("producer")
        self.producers.append(FakeProducer(self, options))
        return self.producers[-1]

    def admin(self, connection: Connection) -> Admin:
        return FakeAdmin(self)

    def described(self, names: Collection[str] | None) -> dict[str, TopicInfo]:
        with self.lock:
            return {
                topic.name: TopicInfo(
                    name=topic.name,
                    partitions=len(topic.logs),
                    id=topic.id,
                    internal=topic.name.startswith("__"),
                )
                for topic in self.known.values()
                if names is None or topic.name in names
            }


class FakeConsumer:
    """See `Consumer`.

    Attributes:
        max_messages: of one poll, whatever its limit.
        closed: it has left the group.
        mute: partitions of which it delivers nothing, without a reason.
    """

    max_messages = 1 << 30

    def __init__(self, cluster: FakeCluster, options: ConsumerOptions) -> None:
        self.options = options
        self.topics_read: list[str] = []
        self.owned: set[Partition] = set()
        self.paused: set[Partition] = set()
        self.positions: dict[Partition, int] = {}
        self.closed = False
        self.evicted: set[Partition] = set()
        self.mute: set[Partition] = set()
        self._cluster = cluster
        self._group = cluster.group(options.group)
        self._listener: RebalanceListener | None = None

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        self._cluster.called("subscribe")
        with self._cluster.lock:
            self.topics_read = list(topics)
            self._listener = listener
            if self not in self._group.members:
                self._group.members.append(self)

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        self._cluster.called("assign")
        with self._cluster.lock:
            self.owned = set(offsets)
            self.positions = dict(offsets)

    def poll_batch(self, limit: int, timeout: float) -> list[Origin]:
        self._cluster.called("poll_batch")
        self._rebalance()
        deadline = time.monotonic() + timeout
        while not (messages := self._read(min(limit, self.max_messages))) and time.monotonic() < deadline:
            time.sleep(0.001)
        return messages

    def evict(self, partitions: Collection[Partition]) -> None:
        """Have partitions lost at the next poll; meanwhile nothing can be committed for them."""
        with self._cluster.lock:
            self.evicted |= set(partitions)

    def _rebalance(self) -> None:
        listener = self._listener
        if listener is None:
            return
        with self._cluster.lock:
            lost = self.evicted & self.owned
            self.evicted = set()
            self.owned -= lost
        if lost:
            listener.lost(lost)
        with self._cluster.lock:
            revoked = self.owned - self._group.target(self)
        if revoked:
            listener.revoked(revoked)
            with self._cluster.lock:
                self.owned -= revoked
        with self._cluster.lock:
            others = {partition for each in self._group.members if each is not self for partition in each.owned}
            added = self._group.target(self) - self.owned - others
            self.owned |= added
            self.paused -= added
            for partition in added:
                self.positions.pop(partition, None)
        if added:
            listener.assigned(added)

    def _read(self, limit: int) -> list[Origin]:
        messages: list[Origin] = []
        with self._cluster.lock:
            for partition in sorted(self.owned - self.paused - self.mute):
                topic = self._cluster.known.get(partition.topic)
                position = self.positions.get(partition)
                if topic is None or position is None or partition.partition >= len(topic.logs):
                    continue
                log = topic.logs[partition.partition]
                end = log.readable if self.options.isolation_level == "read_committed" else log.end
                if not log.first <= position <= max(log.end, log.first):
                    if messages:
                        break
                    raise OffsetLost(f"{partition}: no offset {position}", partition, position)
                while position < end and len(messages) < limit:
                    record = log.record(position)
                    position += 1
                    if record is not None:
                        messages.append(record)
                self.positions[partition] = position
        return messages

    def position(self, partition: Partition) -> int | None:
        with self._cluster.lock:
            return self.positions.get(partition)

    def assignment(self) -> frozenset[Partition]:
        with self._cluster.lock:
            return frozenset(self.owned)

    def pause(self, partitions: Collection[Partition]) -> None:
        with self._cluster.lock:
            self.paused |= set(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        with self._cluster.lock:
            self.paused -= set(partitions)

    def seek(self, partition: Partition, offset: int) -> None:
        with self._cluster.lock:
            self.positions[partition] = offset

    def committed(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, Committed]:
        self._cluster.called("committed")
        with self._cluster.lock:
            return {each: self._group.offsets[each] for each in partitions if each in self._group.offsets}

    def commit(self, offsets: Mapping[Partition, Committed], timeout: float) -> None:
        self._cluster.called("commit")
        with self._cluster.lock:
            if self.closed or self.evicted & offsets.keys() or not offsets.keys() <= self.owned:
                raise NotMember("not a member", kafka_code="ILLEGAL_GENERATION")
            self._commit(offsets)

    def _commit(self, offsets: Mapping[Partition, Committed]) -> None:
        self._group.offsets.update(offsets)
        self._group.history += [(self.options.client_id, partition, offset) for partition, offset in offsets.items()]

    def range(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, tuple[int, int]]:
        self._cluster.called("range")
        with self._cluster.lock:
            logs = {each: self._cluster.known[each.topic].logs[each.partition] for each in partitions}
            committed = self.options.isolation_level == "read_committed"
            return {each: (log.first, log.readable if committed else log.end) for each, log in logs.items()}

    def at_time(self, times: Mapping[Partition, int], timeout: float) -> dict[Partition, int | None]:
        self._cluster.called("at_time")
        with self._cluster.lock:
            return {
                each: next(
                    (
                        record.offset
                        for record in self._cluster.known[each.topic].logs[each.partition].records
                        if record is not None and record.time is not None and record.time >= since
                    ),
                    None,
                )
                for each, since in times.items()
            }

    def topics(self, timeout: float, names: Collection[str] | None = None) -> dict[str, TopicInfo]:
        self._cluster.called("topics")
        return self._cluster.described(names)

    def group_metadata(self) -> Any:
        return self

    def close(self, timeout: float) -> None:
        self._cluster.called("close")
        if self.closed:
            return
        if self.owned and self._listener is not None:
            self._listener.revoked(set(self.owned))
        with self._cluster.lock:
            self.owned = set()
            self.closed = True
            if self in self._group.members:
                self._group.members.remove(self)


class FakeProducer:
    """See `Producer`. Messages are delivered by `flush` and `commit`. In a transaction one that is refused has all of
    its partition's messages refused, as in a batch.

    Attributes:
        transactions: `commit` or `abort` of each transaction.
    """

    def __init__(self, cluster: FakeCluster, options: ProducerOptions) -> None:
        self.options = options
        self.closed = False
        self.transactions: list[str] = []
        self._in_transaction = False
        self._cluster = cluster
        self._waiting: list[Outgoing] = []
        self._flushed: list[Outgoing] = []
        self._broken = False
        self._offsets: list[tuple[FakeConsumer, Mapping[Partition, Committed]]] = []

    def produce_batch(self, messages: Sequence[Outgoing]) -> None:
        self._cluster.called("produce_batch")
        if self.options.transactional_id is not None:
            assert self._in_transaction
            if self._broken:
                raise KafkaError("the transaction has failed", kafka_code="_STATE")
        self._waiting += messages

    def flush(self, timeout: float) -> list[Undelivered] | None:
        self._cluster.called("flush")
        if self._cluster.stuck:
            time.sleep(min(timeout, 0.01))
            return None
        messages, self._waiting = self._waiting, []
        refused = {number: code for number, each in enumerate(messages) if (code := self._cluster.refuse(each))}
        if self.options.transactional_id is None:
            for number, message in enumerate(messages):
                if number not in refused:
                    self._append(message)
        elif refused:
            self._broken = True
            codes = {self._place(messages[number]): code for number, code in refused.items()}
            refused = {
                number: codes[self._place(each)] for number, each in enumerate(messages) if self._place(each) in codes
            }
        else:
            self._flushed += messages
        return [Undelivered(number, code, f"refused: {code}") for number, code in refused.items()]

    def _place(self, message: Outgoing) -> tuple[str, int]:
        partitions = len(self._cluster.known[message.topic].logs)
        number = message.partition if message.partition is not None else sum(message.key or b"") % partitions
        return message.topic, number

    def _append(self, message: Outgoing) -> tuple[str, int]:
        topic, number = self._place(message)
        with self._cluster.lock:
            log = self._cluster.known[topic].logs[number]
            log.append(Origin(topic, number, log.end, message.key, message.value, message.headers, message.time))
        return topic, number

    def init_transactions(self, timeout: float) -> None:
        self._cluster.called("init_transactions")

    def begin(self) -> None:
        self._cluster.called("begin")
        assert not self._in_transaction
        self._in_transaction = True

    def send_offsets(self, offsets: Mapping[Partition, Committed], group_metadata: Any, timeout: float) -> None:
        self._cluster.called("send_offsets")
        with self._cluster.lock:
            if group_metadata.evicted or not offsets.keys() <= group_metadata.owned:
                raise NotMember("not a member", kafka_code="ILLEGAL_GENERATION")
        self._offsets.append((group_metadata, dict(offsets)))

    def commit(self, timeout: float) -> None:
        self._cluster.called("commit_transaction")
        assert self._in_transaction
        assert not self._broken
        assert not self._waiting
        with self._cluster.lock:
            for partition in {self._append(message) for message in self._flushed}:
                self._cluster.mark(*partition)
            for consumer, offsets in self._offsets:
                consumer._commit(offsets)
        self._end("commit")

    def abort(self, timeout: float) -> None:
        self._cluster.called("abort_transaction")
        self._end("abort")

    def _end(self, how: str) -> None:
        self.transactions.append(how)
        self._waiting, self._flushed, self._offsets = [], [], []
        self._in_transaction = self._broken = False

    def close(self, timeout: float) -> None:
        self.closed = True


class FakeAdmin:
    """See `Admin`."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    def topics(self, timeout: float, names: Collection[str] | None = None) -> dict[str, TopicInfo]:
        self._cluster.called("topics")
        return self._cluster.described(names)

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str], timeout: float) -> bool:
        self._cluster.called("create_topic")
        with self._cluster.lock:
            if name in self._cluster.known:
                return False
            self._cluster.create(name, partitions).config.update(config)
            return True

    def topic_config(self, name: str, timeout: float) -> dict[str, str]:
        self._cluster.called("topic_config")
        return dict(self._cluster.known[name].config)

    def group_offsets(self, group: str, timeout: float) -> dict[Partition, Committed]:
        self._cluster.called("group_offsets")
        return dict(self._cluster.group(group).offsets)

    def delete_records(self, offsets: Mapping[Partition, int], timeout: float) -> None:
        self._cluster.called("delete_records")
        for partition, offset in offsets.items():
            self._cluster.expire(partition.topic, offset, partition.partition)

    def set_group_offsets(self, group: str, offsets: Mapping[Partition, Committed | None], timeout: float) -> None:
        self._cluster.called("set_group_offsets")
        if self._cluster.group(group).members:
            raise KafkaError("the group has members", kafka_code="NON_EMPTY_GROUP")
        for partition, committed in offsets.items():
            if committed is None:
                self._cluster.group(group).offsets.pop(partition, None)
            else:
                self._cluster.group(group).offsets[partition] = committed

    def close(self) -> None:
        pass
