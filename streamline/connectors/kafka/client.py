"""The port to Kafka: what Streamline asks of a client library. kafka-python and confluent-kafka implement it.

A consumer, and a producer, belongs to one thread, which alone calls it. Batches cross the boundary, never single
messages. Every default that the two libraries disagree on is set by the
implementation: keys are partitioned as Java does (murmur2), topics are never created by the way, offsets are committed
only when asked, transactions are read when committed, assignments are cooperative.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from streamline.errors import StreamlineError
from streamline.flow.items import Origin


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        """Return `topic/partition`: the key of its part of a position."""
        return f"{self.topic}/{self.partition}"


class Committed(NamedTuple):
    """An offset of a consumer group.

    Args:
        offset: of the next message to read.
        metadata: text beside it; Streamline keeps the topic's id there.
    """

    offset: int
    metadata: str = ""


class TopicInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster says about a topic.

    Args:
        partitions: their number.
        id: changes if the topic is deleted and created again; None: the cluster gives none.
        internal: it is Kafka's own.
    """

    name: str
    partitions: int
    id: str | None = None
    internal: bool = False


class Outgoing(msgspec.Struct, gc=False):
    """A message to produce. `time` is in milliseconds since 1970 in UTC; None: now."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None = None
    time: int | None = None
    partition: int | None = None


class Undelivered(NamedTuple):
    """A message that was not delivered, for a reason of its own.

    Args:
        number: its number among the messages of this producer since the last `flush`, from 0 on.
        code: librdkafka's name of the error. `UNKNOWN_TOPIC_OR_PART`, `TOPIC_EXCEPTION` (an invalid name) and
            `TOPIC_AUTHORIZATION_FAILED` are true of all messages of the topic; others, such as `MSG_SIZE_TOO_LARGE`
            or `INVALID_RECORD`, of this one.
    """

    number: int
    code: str
    message: str


class KafkaError(StreamlineError):
    """A request to the cluster failed.

    Args:
        kafka_code: Kafka's name of the error.
        transient: the same request may succeed later.
        fenced: another client has taken this one's place; it must not go on.
        fatal: this client is unusable; another must be made.
    """

    code = "kafka.request_failed"

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        kafka_code: str = "",
        transient: bool = False,
        fenced: bool = False,
        fatal: bool = False,
        code: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint, code=code)
        self.kafka_code = kafka_code
        self.transient = transient
        self.fenced = fenced
        self.fatal = fatal


class NotMember(KafkaError):
    """The consumer is not, or no longer, an active member of its group: nothing was committed."""


class Unavailable(KafkaError):
    """No broker answers, or not in time. Always transient."""


class OffsetLost(KafkaError):
    """The broker does not have the offset that is to be read.

    Args:
        partition, offset: the place.
    """

    def __init__(self, message: str, partition: Partition, offset: int) -> None:
        super().__init__(message, kafka_code="OFFSET_OUT_OF_RANGE", code="kafka.offset_lost")
        self.partition = partition
        self.offset = offset


class RebalanceListener(Protocol):
    """Told about a consumer's assignment, in its thread, from within `Consumer.poll_batch`.

    Within these calls all methods of the consumer but `poll_batch` may be called.
    """

    def assigned(self, partitions: Collection[Partition]) -> None:
        """These were added. Nothing is read of them before it returns."""
        ...

    def revoked(self, partitions: Collection[Partition]) -> None:
        """These are taken away when it returns; offsets can still be committed."""
        ...

    def lost(self, partitions: Collection[Partition]) -> None:
        """These belong to another member already; nothing can be committed."""
        ...


class Consumer(Protocol):
    """A member of a consumer group. Methods raise `KafkaError`; timeouts are seconds."""

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Read these topics from now on, instead of those before."""
        ...

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets on, outside of any group; instead of `subscribe`."""
        ...

    def poll_batch(self, limit: int, timeout: float) -> list[Origin]:
        """Return up to `limit` messages, of each partition in order; an empty list if none came in time.

        It returns as soon as there are some, and does not wait for `limit` of them.

        Serves the group: it has to be called at least every few seconds, also while all partitions are paused.

        Raises:
            OffsetLost: the broker does not have the next offset. Other partitions are not affected.
        """
        ...

    def position(self, partition: Partition) -> int | None:
        """Return the offset to be read next: past what was delivered, past markers of transactions and gaps, and never
        past a message that is still to be delivered. After `seek` it is that offset. None if none is known yet."""
        ...

    def assignment(self) -> frozenset[Partition]:
        """Return the partitions that are read."""
        ...

    def pause(self, partitions: Collection[Partition]) -> None:
        """Deliver nothing of these until `resume`."""
        ...

    def resume(self, partitions: Collection[Partition]) -> None:
        """Deliver them again."""
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Read an assigned partition from this offset on; also from within `assigned`."""
        ...

    def committed(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, Committed]:
        """Return the group's offsets, of those that have one."""
        ...

    def commit(self, offsets: Mapping[Partition, Committed], timeout: float) -> None:
        """Commit offsets of the group.

        Raises:
            NotMember: see there.
            Unavailable: it is not known whether they were committed.
        """
        ...

    def range(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, tuple[int, int]]:
        """Return the first offset, and the end (the offset that the next message gets; for readers of committed
        transactions the last stable offset)."""
        ...

    def at_time(self, times: Mapping[Partition, int], timeout: float) -> dict[Partition, int | None]:
        """Return the first offset whose message is not older than a time (milliseconds since 1970); None: no such."""
        ...

    def topics(self, timeout: float, names: Collection[str] | None = None) -> dict[str, TopicInfo]:
        """Return what exists of `names`; None: all topics."""
        ...

    def group_metadata(self) -> Any:
        """Return what a producer of the same library takes in `send_offsets`, as it is now.

        Raises:
            NotMember: the group has evicted the consumer, and it has not joined again.
        """
        ...

    def close(self, timeout: float) -> None:
        """Leave the group and close, without telling the listener. Returns in time whatever the cluster does."""
        ...


class Producer(Protocol):
    """An idempotent producer. Methods raise `KafkaError`; timeouts are seconds.

    Deliveries are retried by the library for as long as it takes: only what can never be delivered is `Undelivered`.
    """

    def produce_batch(self, messages: Sequence[Outgoing]) -> None:
        """Take messages for delivery. The caller bounds what is taken between two flushes.

        Raises:
            KafkaError: fatal or fenced.
        """
        ...

    def flush(self, timeout: float) -> list[Undelivered] | None:
        """Wait until each message since the last flush is delivered or cannot be; None: not within the timeout.

        In a transaction a message that is not delivered has failed the transaction: `abort` it. Brokers refuse whole
        batches, so not every message that is returned then is to blame.

        Raises:
            KafkaError: fatal or fenced; or, in a transaction, messages failed through no fault of their own.
        """
        ...

    def init_transactions(self, timeout: float) -> None:
        """Take over the transactional id: an open transaction of an earlier owner is aborted."""
        ...

    def begin(self) -> None:
        """Begin a transaction."""
        ...

    def send_offsets(self, offsets: Mapping[Partition, Committed], group_metadata: Any, timeout: float) -> None:
        """Make offsets of a consumer group part of the transaction.

        It may hang in the library: it returns or raises within the timeout, and the producer is then `fatal`.
        """
        ...

    def commit(self, timeout: float) -> None:
        """Commit the transaction."""
        ...

    def abort(self, timeout: float) -> None:
        """Abort the transaction."""
        ...

    def close(self, timeout: float) -> None:
        """Close; what is not flushed is dropped. Returns in time whatever the cluster does."""
        ...


class Admin(Protocol):
    """What is asked of the cluster outside of reading and writing. Any thread may call it."""

    def topics(self, timeout: float, names: Collection[str] | None = None) -> dict[str, TopicInfo]:
        """See `Consumer.topics`."""
        ...

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str], timeout: float) -> bool:
        """Create a topic with the cluster's default replication; False: it exists."""
        ...

    def topic_config(self, name: str, timeout: float) -> dict[str, str]:
        """Return a topic's configuration (`max.message.bytes`, `cleanup.policy`, …)."""
        ...

    def group_offsets(self, group: str, timeout: float) -> dict[Partition, Committed]:
        """Return all offsets of a group."""
        ...

    def delete_records(self, offsets: Mapping[Partition, int], timeout: float) -> None:
        """Delete the messages of partitions before these offsets."""
        ...

    def set_group_offsets(self, group: str, offsets: Mapping[Partition, Committed | None], timeout: float) -> None:
        """Set offsets of a group without members; None deletes.

        Raises:
            KafkaError: the group has members.
        """
        ...

    def close(self) -> None:
        """Close."""
        ...


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a cluster.

    Args:
        servers: `host:port`, several.
        protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        client: `kafka-python` or `confluent`.
        ssl: `cafile, certfile, keyfile, password, check_hostname`.
        sasl: `mechanism, username, password`, or `oauth_token_url, oauth_client_id, oauth_client_secret, oauth_scope`.
    """

    servers: tuple[str, ...]
    protocol: str = "PLAINTEXT"
    client: str = "kafka-python"
    ssl: Mapping[str, Any] = {}
    sasl: Mapping[str, Any] = {}

    @property
    def cluster(self) -> str:
        """Return a name that is equal for connections to the same servers."""
        return ",".join(sorted(self.servers))


class ConsumerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a consumer.

    Args:
        group: the consumer group.
        protocol: `classic` or `consumer` (KIP-848).
        max_poll_seconds: a member that does not poll for so long is evicted.
        metadata_seconds: the cluster is asked so often for new partitions of the topics.
        max_partition_bytes: the most that one request reads of a partition.
        fetch_bytes: the most that one request reads, and that waits in the client.
    """

    group: str
    client_id: str
    protocol: str = "classic"
    instance_id: str | None = None
    isolation_level: str = "read_committed"
    session_seconds: float = 45.0
    max_poll_seconds: float = 300.0
    metadata_seconds: float = 10.0
    max_partition_bytes: int = 1 << 20
    fetch_bytes: int = 16 << 20


class ProducerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a producer.

    Args:
        transactional_id: None: no transactions.
        compression: `none`, `gzip`, `lz4`, `zstd` or `snappy`.
        linger_seconds: waits so long for more messages of a partition.
        batch_bytes: the most that a batch of a partition holds, unless a single message is larger. A broker refuses a
            batch as a whole, so it should not exceed the smallest `max.message.bytes` of the topics.
        max_message_bytes: larger messages are `Undelivered` without asking the broker.
    """

    client_id: str
    transactional_id: str | None = None
    transaction_seconds: float = 60.0
    compression: str = "none"
    linger_seconds: float = 0.005
    batch_bytes: int = 1_000_000
    max_message_bytes: int = 64 << 20


class KafkaClient(Protocol):
    """A client library."""

    name: str
    """`kafka-python` or `confluent`."""

    def consumer(self, connection: Connection, options: ConsumerOptions) -> Consumer:
        """Make a consumer. Nothing is connected yet, or a failure to connect shows in the first request."""
        ...

    def producer(self, connection: Connection, options: ProducerOptions) -> Producer:
        """Make a producer."""
        ...

    def admin(self, connection: Connection) -> Admin:
        """Make an admin client."""
        ...
