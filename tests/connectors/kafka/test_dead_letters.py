"""Dead letters in a Kafka topic, against a small model of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec
import pytest

from streamline.connectors.kafka import dead_letter_topic
from streamline.connectors.kafka.client import (
    Connection,
    ConsumerOptions,
    KafkaClient,
    KafkaError,
    Outgoing,
    Partition,
    ProducerOptions,
    TopicInfo,
    Unavailable,
    Undelivered,
)
from streamline.connectors.kafka.dead_letter_messages import FIRST_ID, letter_message, read_entry
from streamline.connectors.kafka.dead_letter_topic import DeadLetterTopic
from streamline.errors import StreamlineError
from streamline.flow.items import Origin
from streamline.state.store import DeadLetter, LetterKey


class Cluster:
    """One topic of two partitions. Attributes that are set make it misbehave."""

    def __init__(self) -> None:
        self.partitions: list[list[Origin | None]] = [[], []]
        self.exists = True
        self.config = {"cleanup.policy": "delete", "max.message.bytes": "1000"}
        self.may_create = True
        self.hidden = 0
        """Messages at the end of the first partition that a transaction hides."""
        self.slow_flushes = 0
        self.fatal = 0
        self.away = 0
        self.producers = 0
        self.open_clients = 0

    def topics(self) -> dict[str, TopicInfo]:
        if self.away:
            self.away -= 1
            raise Unavailable("no broker answers", transient=True)
        return {"dead": TopicInfo(name="dead", partitions=2)} if self.exists else {}

    def add(self, message: Outgoing) -> None:
        number = message.partition if message.partition is not None else (message.key or b"\x00")[0] % 2
        log = self.partitions[number]
        time = 1_700_000_000_000 + 1000 * sum(map(len, self.partitions))
        log.append(Origin("dead", number, len(log), message.key, message.value, message.headers, time))

    def consumer(self, connection: Connection, options: ConsumerOptions) -> FakeConsumer:
        self.open_clients += 1
        return FakeConsumer(self, options)

    def producer(self, connection: Connection, options: ProducerOptions) -> FakeProducer:
        self.open_clients += 1
        self.producers += 1
        return FakeProducer(self, options)

    def admin(self, connection: Connection) -> FakeAdmin:
        self.open_clients += 1
        return FakeAdmin(self)


class FakeAdmin:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def topics(self, timeout: float, names: Collection[str] | None = None) -> dict[str, TopicInfo]:
        return self._cluster.topics()

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str], timeout: float) -> bool:
        if not self._cluster.may_create:
            raise KafkaError("not allowed", kafka_code="TOPIC_AUTHORIZATION_FAILED")
        self._cluster.exists = True
        self._cluster.config = dict(config)
        return True

    def topic_config(self, name: str, timeout: float) -> dict[str, str]:
        return self._cluster.config

    def close(self) -> None:
        self._cluster.open_clients -= 1


class FakeProducer:
    def __init__(self, cluster: Cluster, options: ProducerOptions) -> None:
        self._cluster = cluster
        self._options = options
        self._undelivered: list[Undelivered] = []
        self._count = 0

    def produce_batch(self, messages: Sequence[Outgoing]) -> None:
        if self._cluster.fatal:
            self._cluster.fatal -= 1
            raise KafkaError("fenced by itself", fatal=True)
        for message in messages:
            if len(message.value or b"") > self._options.max_message_bytes:
                self._undelivered.append(Undelivered(self._count, "MSG_SIZE_TOO_LARGE", "too large"))
            else:
                self._cluster.add(message)
            self._count += 1

    def flush(self, timeout: float) -> list[Undelivered] | None:
        if self._cluster.slow_flushes:
            self._cluster.slow_flushes -= 1
            return None
        undelivered, self._undelivered, self._count = self._undelivered, [], 0
        return undelivered

    def close(self, timeout: float) -> None:
        self._cluster.open_clients -= 1


class FakeConsumer:
    def __init__(self, cluster: Cluster, options: ConsumerOptions) -> None:
        self._cluster = cluster
        self._all = options.isolation_level == "read_uncommitted"
        self._next: dict[Partition, int] = {}

    def _end(self, partition: Partition) -> int:
        end = len(self._cluster.partitions[partition.partition])
        return end if self._all or partition.partition else end - self._cluster.hidden

    def topics(self, timeout: float, names: Collection[str] | None = None) -> dict[str, TopicInfo]:
        return self._cluster.topics()

    def range(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, tuple[int, int]]:
        return {partition: (0, self._end(partition)) for partition in partitions}

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        self._next = dict(offsets)

    def position(self, partition: Partition) -> int | None:
        return self._next.get(partition)

    def poll_batch(self, limit: int, timeout: float) -> list[Origin]:
        for partition, begin in self._next.items():
            messages = self._cluster.partitions[partition.partition][begin : min(begin + limit, self._end(partition))]
            if messages:
                self._next[partition] = begin + len(messages)
                return [message for message in messages if message is not None]
        return []

    def close(self, timeout: float) -> None:
        self._cluster.open_clients -= 1


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


Open = Callable[..., DeadLetterTopic]


@pytest.fixture
def open_topic(cluster: Cluster) -> Iterator[Open]:
    made: list[DeadLetterTopic] = []

    def make(pipeline: str = "p", **options: Any) -> DeadLetterTopic:
        connection = Connection(servers=("broker:9092",))
        topic = DeadLetterTopic(cast(KafkaClient, cluster), connection, "dead", pipeline, **options)
        made.append(topic)
        topic.open()
        return topic

    yield make
    for topic in made:
        topic.close()
    assert cluster.open_clients == 0


def letter(offset: int | None = 1, **fields: Any) -> DeadLetter:
    defaults: dict[str, Any] = {
        "pipeline": "p",
        "block": "read",
        "stream": "orders",
        "run_id": "r1",
        "record": "",
        "form": "value",
        "error": "odd",
        "stage": "decode",
        "topic": "orders",
        "partition": 3,
        "offset": offset,
        "key": b"k",
        "value": b"\xff\x00",
    }
    return DeadLetter(**{**defaults, **fields})


def as_read(message: Outgoing) -> Origin:
    return Origin("dead", 0, 0, message.key, message.value, message.headers, 1_700_000_000_123)


# -- messages


@pytest.mark.parametrize(
    "written",
    [
        letter(headers=[("a", b"\xff"), ("a", None)], message_time=1_600_000_000_000, trace="Traceback …\n"),
        letter(key=None, value=None, destination="write", stage="write"),
        letter(record='{"n":1}', form="json", stage="clean", output=True, copy="1"),
        letter(record="/wA=", form="base64", stage="clean", error="ünïcode\n"),
        letter(None, topic=None, partition=None, value=None, key=None, record='{"n":1}', form="json", copy="r1 1"),
        letter(None, topic=None, partition=None, value=None, key=None, record="/wA=", form="base64", copy="r1 1"),
        letter(None, topic=None, partition=None, copy="r1 1"),
        letter(None, topic=None, partition=None, record='{"n":1}', form="json", copy="r1 1"),
        letter(headers=[("streamline.pipeline", b"q"), ("streamline.error", b"of an earlier letter")]),
    ],
)
def test_a_letter_is_read_as_it_was_written(written: DeadLetter) -> None:
    found = read_entry(as_read(letter_message(written, "dead")), "p")
    assert isinstance(found, DeadLetter)
    assert found.id >= FIRST_ID
    assert found.time == "2023-11-14T22:13:20.123Z"
    found.id, found.time = 0, ""
    assert found == written


def test_a_letter_keeps_the_message_and_adds_headers() -> None:
    message = letter_message(letter(7, headers=[("trace-id", b"\x01")], trace="Traceback"), "dead")
    assert (message.topic, message.key, message.value) == ("dead", b"k", b"\xff\x00")
    headers = dict(message.headers or [])
    assert headers["trace-id"] == b"\x01"
    names = ("topic", "partition", "offset", "stage", "error", "traceback")
    assert [headers[f"streamline.{name}"] for name in names] == [b"orders", b"3", b"7", b"decode", b"odd", b"Traceback"]


def test_what_is_no_letter_of_the_pipeline_is_passed_over() -> None:
    others = [
        Origin("dead", 0, 0, b"k", b"v"),
        Origin("dead", 0, 0, b"k", b"v", [("streamline.error", b"odd")]),
        Origin("dead", 0, 0, b"k", b"v", [("streamline.pipeline", b"p")]),
        Origin("dead", 0, 0, b"k", b"v", [("streamline.pipeline", b"p"), ("streamline.done", b"x")]),
        as_read(letter_message(letter(pipeline="q"), "dead")),
    ]
    assert [read_entry(message, "p") for message in others] == [None] * 5


# -- the topic


def test_letters_are_read_until_they_are_settled(open_topic: Open) -> None:
    topic = open_topic()
    letters = [letter(1), letter(2, key=b"l"), letter(3, key=None), letter(4, pipeline="q")]
    assert topic.write(letters) == []
    contents = topic.read()
    assert [each.offset for each in contents.letters.values()] == [1, 2, 3]
    topic.settle([each for each in contents.letters.values() if each.offset in (1, 3)], contents)
    assert [each.offset for each in topic.read().letters.values()] == [2]
    topic.write([letter(1, error="refused once more")])
    assert [each.error for each in topic.read().letters.values()] == ["odd", "refused once more"]


def test_the_same_letter_written_twice_is_one(open_topic: Open, cluster: Cluster) -> None:
    topic = open_topic()
    topic.write([letter(1, key=None), letter(2), letter(1, key=None, error="odder")])
    (first,) = [message for message in cluster.partitions[0][:1] if message is not None]
    cluster.partitions[1].append(msgspec.structs.replace(first, partition=1))
    contents = topic.read()
    assert sorted((each.offset, each.times) for each in contents.letters.values()) == [(1, 3), (2, 1)]
    topic.settle(list(contents.letters.values()), contents)
    assert topic.read().letters == {}


def test_what_the_topic_cannot_take_is_given_back(open_topic: Open) -> None:
    topic = open_topic()
    letters = [letter(1), letter(2, value=b"x" * 2000), letter(3)]
    ((refused, reason),) = topic.write(letters)
    assert refused.offset == 2
    assert "MSG_SIZE_TOO_LARGE" in reason
    assert [each.offset for each in topic.read().letters.values()] == [1, 3]


def test_many_letters_are_written_in_parts(open_topic: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_topic, "MAX_MESSAGES", 3)
    topic = open_topic()
    refused = topic.write([letter(n, value=b"x" * (2000 if n in (4, 8) else 1)) for n in range(10)])
    assert [each.offset for each, _ in refused] == [4, 8]
    assert len(topic.read().letters) == 8


def test_a_cluster_that_is_away_is_waited_for(open_topic: Open, cluster: Cluster) -> None:
    notes: list[tuple[str, str]] = []
    topic = open_topic(note=lambda message, level: notes.append((message, level)))
    cluster.slow_flushes = 3
    topic.write([letter(1)])
    assert [level for _, level in notes] == ["WARNING"]
    cluster.away = 1
    assert len(topic.read().letters) == 1


def test_a_run_that_has_to_end_does_not_wait(open_topic: Open, cluster: Cluster) -> None:
    topic = open_topic(ending=lambda: True)
    cluster.slow_flushes = 99
    with pytest.raises(StreamlineError) as failure:
        topic.write([letter(1)])
    assert failure.value.code == "dead_letter.not_written"


def test_a_producer_that_is_unusable_is_replaced(open_topic: Open, cluster: Cluster) -> None:
    topic = open_topic()
    cluster.fatal = 1
    topic.write([letter(1)])
    assert cluster.producers == 2
    assert len(topic.read().letters) == 1
    cluster.fatal = 2
    topic = open_topic()
    with pytest.raises(KafkaError):
        topic.write([letter(1)])


def test_keys_that_were_written_since(open_topic: Open) -> None:
    topic = open_topic()
    topic.write([letter(3), letter(7), letter(4, key=b"l")])
    topic.note_key_written(LetterKey(block="read", topic="orders", partition=3, key=b"k", written=5))
    since = {(each.key, each.offset): each.written_since for each in topic.read().letters.values()}
    assert since == {(b"k", 3): 5, (b"k", 7): None, (b"l", 4): None}


def test_a_topic_that_is_missing_is_made(open_topic: Open, cluster: Cluster) -> None:
    cluster.exists = False
    open_topic()
    assert cluster.config == {"cleanup.policy": "delete", "retention.ms": "-1"}


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ({"exists": False, "may_create": False}, "dead_letter.topic_not_created"),
        ({"config": {"cleanup.policy": "compact,delete"}}, "dead_letter.topic_compacted"),
    ],
)
def test_a_topic_that_cannot_be_used(open_topic: Open, cluster: Cluster, state: dict[str, Any], code: str) -> None:
    for name, value in state.items():
        setattr(cluster, name, value)
    with pytest.raises(StreamlineError) as failure:
        open_topic()
    assert failure.value.code == code


def test_case_21_letters_behind_an_open_transaction_are_not_overlooked(open_topic: Open, cluster: Cluster) -> None:
    topic = open_topic(timeout=0.01)
    topic.write([letter(n, key=b"\x00") for n in range(3)])
    cluster.hidden = 1
    with pytest.raises(StreamlineError) as failure:
        topic.read()
    assert failure.value.code == "dead_letter.topic_blocked"
    assert failure.value.where == "dead/0"
