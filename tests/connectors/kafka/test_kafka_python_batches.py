"""Messages in batches of kafka-python: each arrives as `KafkaProducer.send` sends it, or is known to have failed."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition, errors
from kafka.partitioner.default import DefaultPartitioner, murmur2
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.record.memory_records import MemoryRecords

from streamline.connectors.kafka import kafka_python_batches_client as batches
from streamline.connectors.kafka.client import Connection, Outgoing, ProducerOptions, Undelivered
from streamline.connectors.kafka.kafka_python_batches_client import BatchDeliveries, append, hash_of
from streamline.connectors.kafka.kafka_python_producer_client import KafkaPythonProducer

PLACE = TopicPartition("t", 1)
BATCH_BYTES = 2_000


class Cluster:
    """Topic `t` with three partitions, of which one has no leader."""

    _refresh_loop_future = None

    def topics(self) -> set[str]:
        return {"t"}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {0, 1, 2} if topic == "t" else None

    def available_partitions_for_topic(self, topic: str) -> set[int]:
        return {0, 2}


class FakeLibrary:
    """The parts of a `KafkaProducer` that messages are given to; nothing is sent."""

    def __init__(self) -> None:
        self._accumulator = RecordAccumulator(batch_size=BATCH_BYTES)
        self._transaction_manager = None
        self._metadata = Cluster()
        self._sender = SimpleNamespace(wakeup=lambda: None)
        self.largest = 1_000_000

    def partitions_for(self, topic: str) -> set[int]:
        partitions = self._metadata.partitions_for_topic(topic)
        if partitions is None:
            raise errors.KafkaTimeoutError(topic)
        return partitions

    def _estimate_size_in_bytes(self, key: bytes | None, value: bytes | None, headers: Any) -> int:
        return len(key or b"") + len(value or b"") + sum(len(name) + len(each) for name, each in headers or ())

    def _ensure_valid_record_size(self, size: int) -> None:
        if size > self.largest:
            raise errors.MessageSizeTooLargeError("too large")

    def flush(self, timeout: float) -> None:
        for waiting in self._accumulator._batches.values():
            while waiting:
                waiting.popleft().complete(0, -1)

    def send(self, topic: str, *, partition: int | None, **fields: Any) -> Any:
        place = TopicPartition(topic, partition or 0)
        return self._accumulator.append(place, fields["timestamp_ms"], fields["key"], fields["value"], [])[0]

    def waiting(self, place: Any = PLACE) -> list[Any]:
        """The batches of a partition."""
        return list(self._accumulator._batches[place])


def message(number: int, size: int = 100, **fields: Any) -> Outgoing:
    return Outgoing("t", b"k%d" % number, b"%d" % number + b"-" * size, **fields)


def values(batch: Any) -> list[bytes]:
    batch.records.close()
    return [record.value for part in MemoryRecords(batch.records.buffer()) for record in part]


def numbered(count: int) -> list[tuple[int, Outgoing]]:
    return [(number, message(number)) for number in range(count)]


def producer(library: FakeLibrary) -> KafkaPythonProducer:
    made = KafkaPythonProducer(
        Connection(servers=("nowhere:1",)), ProducerOptions(client_id="test", max_message_bytes=library.largest)
    )
    made._library = library
    return made


def test_hash_is_that_of_javas_client() -> None:
    keys = [random.Random(size).randbytes(size) for size in range(70)]
    assert [hash_of(key) for key in keys] == [murmur2(key) & 0x7FFFFFFF for key in keys]


def test_partitions_are_those_that_the_library_chooses() -> None:
    places = batches.Places("t", FakeLibrary())
    keys = [b"%d" % number for number in range(50)] + [b"", b"long" * 100]
    chosen = [places.place(Outgoing("t", key, b"v")).partition for key in keys]
    assert chosen == [DefaultPartitioner().partition("t", key, key, b"v", b"v", Cluster()) for key in keys]


def test_messages_without_key_go_to_partitions_that_have_a_leader() -> None:
    places = batches.Places("t", FakeLibrary())
    assert {places.place(Outgoing("t", None, b"v")).partition for _ in range(100)} == {0, 2}


def test_messages_are_in_batches_in_their_order_with_key_headers_and_time() -> None:
    library = FakeLibrary()
    sent = [(0, message(0, headers=[("h", b"1")], time=5)), (1, message(1, time=6)), *numbered(40)[2:]]
    deliveries = append(library, PLACE, sent[:10]) + append(library, PLACE, sent[10:])
    waiting = library.waiting()
    assert len(waiting) == len(deliveries) > 1
    assert [number for each in deliveries for number in each.numbers] == list(range(40))
    assert [value for batch in waiting for value in values(batch)] == [each.value for _, each in sent]
    first = next(iter(next(iter(MemoryRecords(waiting[0].records.buffer())))))
    assert (first.key, first.headers, first.timestamp) == (b"k0", [("h", b"1")], 5)


def test_batch_tells_which_of_its_messages_failed() -> None:
    library = FakeLibrary()
    (deliveries,) = append(library, PLACE, [(7, message(7)), (8, message(8)), (9, message(9))])
    assert not deliveries.is_done
    reasons = {1: errors.InvalidRecordError("bad")}
    library.waiting()[0].complete_exceptionally(errors.InvalidRecordError("x"), lambda index: reasons.get(index, OTHER))
    assert deliveries.is_done
    assert list(deliveries.failures()) == [(7, OTHER), (8, reasons[1]), (9, OTHER)]


OTHER = errors.KafkaError("of the batch")


def test_batch_that_was_too_large_is_taken_apart_until_only_one_message_fails() -> None:
    library = FakeLibrary()
    (deliveries,) = append(library, PLACE, numbered(8))
    take_apart(library, library.waiting()[0], bad=b"5-")
    assert deliveries.is_done
    assert [(number, type(error)) for number, error in deliveries.failures()] == [(5, errors.MessageSizeTooLargeError)]


def test_messages_are_not_added_to_a_part_of_a_batch() -> None:
    library = FakeLibrary()
    (deliveries,) = append(library, PLACE, numbered(2))
    batch = library._accumulator._batches[PLACE].popleft()
    batch.records.close()
    library._accumulator.split_and_reenqueue(batch)
    (later,) = append(library, PLACE, [(2, message(2))])
    library.flush(1)
    assert deliveries.is_done
    assert later.is_done
    assert later.numbers == [2]


def take_apart(library: FakeLibrary, batch: Any, bad: bytes) -> None:
    """Answer a batch as a broker does for which one of the messages is too large."""
    accumulator = library._accumulator
    accumulator._batches[PLACE].remove(batch)
    batch.records.close()
    if not any(value.startswith(bad) for value in values(batch)):
        batch.complete(0, -1)
    elif batch.record_count == 1:
        error = errors.MessageSizeTooLargeError("one")
        batch.complete_exceptionally(error, lambda _: error)
    else:
        accumulator.split_and_reenqueue(batch)
        for part in library.waiting():
            if part in accumulator._batches[PLACE]:
                take_apart(library, part, bad)


@pytest.mark.parametrize("known", [True, False])
def test_producer_delivers_whether_the_library_is_known_or_not(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches.kafka, "__version__", "3.0.12" if known else "9.0")
    library = FakeLibrary()
    made = producer(library)
    made.produce_batch([message(number, partition=1) for number in range(30)])
    waiting = library.waiting()
    assert [isinstance(batch._record_futures, BatchDeliveries) for batch in waiting] == [known] * len(waiting)
    assert made.flush(5) == []


def test_what_cannot_be_appended_is_undelivered_and_the_others_arrive() -> None:
    library = FakeLibrary()
    made = producer(library)
    library.largest = 1_000
    large = [message(1, 2_000_000), Outgoing("t", b"k", b"v", headers=[("h", b"x" * 2_000)])]
    made.produce_batch([message(0), *large, Outgoing("t", None, None), message(4, partition=9), message(5)])
    assert sum(batch.record_count for place in range(3) for batch in library.waiting(TopicPartition("t", place))) == 2
    undelivered: list[Undelivered] = made.flush(5) or []
    assert [(each.number, each.code) for each in undelivered] == [
        (1, "MSG_SIZE_TOO_LARGE"),
        (2, "MSG_SIZE_TOO_LARGE"),
        (3, "INVALID_RECORD"),
        (4, "_UNKNOWN_PARTITION"),
    ]
