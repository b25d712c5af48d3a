"""Both client libraries return in time, whatever happens to the brokers, and go on afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from streamline.connectors.kafka.client import Committed, KafkaError, Outgoing, Partition, Unavailable
from tests.services.kafka import KafkaCluster
from tests.services.kafka_bench import SECONDS, Bench, deliver, numbered, poll_until, read, values
from tests.services.process import quiet_port

MakeBench = Callable[..., Bench]
Result = TypeVar("Result")


class InTime:
    """Fails if what is inside the `with` takes much longer than it may."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.begin = time.monotonic()

    def __exit__(self, *_: object) -> None:
        assert time.monotonic() - self.begin < self.seconds + 10


def test_a_broker_that_is_not_there_is_named_with_the_reason(make_bench: MakeBench) -> None:
    server = f"127.0.0.1:{quiet_port()}"
    bench = make_bench((server,))
    for ask in (bench.admin().topics, bench.consumer("t")[0].topics):
        with InTime(2), pytest.raises(Unavailable) as caught:
            ask(2)
        assert caught.value.code == "kafka.unavailable"
        assert caught.value.transient
        assert server in caught.value.message
        assert "refused" in caught.value.message.lower()
    producer = bench.producer()
    with InTime(2):
        producer.produce_batch([Outgoing("t", b"k", b"v")])
        assert producer.flush(2) is None
    with InTime(2), pytest.raises(Unavailable):
        bench.producer(transactional_id="x").init_transactions(2)


def test_everything_goes_on_after_the_broker_is_started_again(
    make_bench: MakeBench, new_kafka: Callable[..., KafkaCluster]
) -> None:
    kafka = new_kafka()
    topic, group = kafka.create_topic(), "g"
    partition = Partition(topic, 0)
    bench = make_bench(kafka.servers)
    producer, admin = bench.producer(), bench.admin()
    consumer, _ = bench.consumer(topic, group=group)
    assert deliver(producer, *numbered(topic, 10)) == []
    assert len(read(consumer, 10)) == 10
    assert topic in admin.topics(SECONDS)
    kafka.kill(1)
    with InTime(2), pytest.raises(Unavailable):
        admin.topics(2)
    producer.produce_batch([Outgoing(topic, b"k", b"after")])
    with InTime(2):
        assert producer.flush(2) is None
    with InTime(2), pytest.raises(KafkaError) as caught:
        consumer.commit({partition: Committed(10)}, 2)
    assert caught.value.transient
    for _ in range(10):
        with InTime(0.5):
            assert consumer.poll_batch(10, 0.5) == []
    kafka.start(1)
    assert producer.flush(SECONDS) == []
    assert values(read(consumer, 1)) == [b"after"]
    assert topic in admin.topics(SECONDS)

    def committed() -> bool:
        try:
            consumer.commit({partition: Committed(11)}, 5)
        except KafkaError as error:
            if not error.transient:
                raise
            return False
        return True

    poll_until(consumer, committed)
    assert consumer.committed([partition], SECONDS) == {partition: Committed(11)}


def test_case_32_clients_close_in_time_though_the_broker_does_not_answer(
    make_bench: MakeBench, new_kafka: Callable[..., KafkaCluster]
) -> None:
    kafka = new_kafka()
    topic = kafka.create_topic()
    bench = make_bench(kafka.servers)
    producer, in_transaction = bench.producer(), bench.producer(transactional_id="x")
    in_transaction.init_transactions(SECONDS)
    in_transaction.begin()
    consumer, _ = bench.consumer(topic)
    for each in (producer, in_transaction):
        assert deliver(each, *numbered(topic, 3)) == []
    poll_until(consumer, lambda: bool(consumer.assignment()))
    kafka.stop(1)
    metadata = consumer.group_metadata()
    for each in (producer, in_transaction):
        each.produce_batch(numbered(topic, 3))
    with InTime(2):
        assert producer.flush(2) is None
    with InTime(2), pytest.raises(KafkaError) as caught:
        consumer.commit({Partition(topic, 0): Committed(1)}, 2)
    assert caught.value.transient
    with InTime(2), pytest.raises(KafkaError) as caught:
        in_transaction.send_offsets({Partition(topic, 0): Committed(1)}, metadata, 2)
    assert caught.value.fatal, "it may hang in the library, and cannot be used again"
    for close in (consumer.close, producer.close, in_transaction.close):
        with InTime(3):
            close(3)
    kafka.cont(1)


def answered(ask: Callable[[], Result]) -> Result:
    """Ask until there is an answer."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return ask()
        except KafkaError as error:
            if not error.transient or time.monotonic() > deadline:
                raise


def test_case_23_a_broker_of_three_that_dies_loses_nothing(
    make_bench: MakeBench, new_kafka: Callable[..., KafkaCluster]
) -> None:
    kafka = new_kafka(3)
    topic = kafka.create_topic(partitions=6)
    bench = make_bench(kafka.servers)
    producer, admin = bench.producer(), bench.admin()
    admin.topics(SECONDS)
    # librdkafka sends such requests to the broker that it takes for the controller.
    victim = admin._library.list_topics(timeout=SECONDS).controller_id if bench.client.name == "confluent" else 2  # type: ignore[attr-defined]
    keys = [b"%d" % number for number in range(3000)]
    for begin in range(0, len(keys), 100):
        producer.produce_batch([Outgoing(topic, key, key) for key in keys[begin : begin + 100]])
        if begin == 1500:
            kafka.kill(victim)
    assert producer.flush(3 * SECONDS) == []
    assert topic in answered(lambda: admin.topics(3, [topic]))
    assert "retention.ms" in answered(lambda: admin.topic_config(topic, 3))
    assert {record.key for record in kafka.consume_all(topic)} == set(keys)
    consumer, _ = bench.consumer(topic)
    assert {origin.key for origin in read(consumer, len(keys))} == set(keys)
