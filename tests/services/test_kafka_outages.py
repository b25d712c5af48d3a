"""Both client libraries return in time, whatever happens to the brokers, and go on afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import TypeVar

import pytest

from streamline.connectors.kafka.client import Committed, KafkaError, Outgoing, Partition, Unavailable
from streamline.connectors.kafka.clients import CLIENTS, kafka_client
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


def outages(bench: Bench, topic: str, group: str) -> Iterator[None]:
    """Use all clients of a library; each `yield` changes what the broker does."""
    partition = Partition(topic, 0)
    producer, in_transaction, admin = bench.producer(), bench.producer(transactional_id=group), bench.admin()
    consumer, _ = bench.consumer(topic, group=group)
    assert deliver(producer, *numbered(topic, 10)) == []
    assert len(read(consumer, 10)) == 10
    assert topic in admin.topics(SECONDS)
    yield  # it is killed
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
    yield  # it is started again
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
    in_transaction.init_transactions(SECONDS)
    in_transaction.begin()
    assert deliver(in_transaction, *numbered(topic, 3)) == []
    yield  # it is suspended
    metadata = consumer.group_metadata()
    for each in (producer, in_transaction):
        each.produce_batch(numbered(topic, 3))
    with InTime(2):
        assert producer.flush(2) is None
    with InTime(2), pytest.raises(KafkaError) as caught:
        consumer.commit({partition: Committed(1)}, 2)
    assert caught.value.transient
    with InTime(2), pytest.raises(KafkaError) as caught:
        in_transaction.send_offsets({partition: Committed(1)}, metadata, 2)
    assert caught.value.fatal, "it may hang in the library, and cannot be used again"
    for close in (consumer.close, producer.close, in_transaction.close):
        with InTime(3):
            close(3)


def test_case_32_everything_goes_on_after_an_outage_and_ends_in_time_during_one(
    new_kafka: Callable[..., KafkaCluster],
) -> None:
    kafka = new_kafka()
    with ExitStack() as stack:
        parts = []
        for name in CLIENTS:
            bench = stack.enter_context(closing(Bench(kafka_client(name), kafka.servers)))
            parts.append(outages(bench, kafka.create_topic(), name))
        for change in (lambda node: None, kafka.kill, kafka.start, kafka.stop):
            change(1)
            for part in parts:
                next(part, None)
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


def test_case_23_a_broker_of_three_that_dies_loses_nothing(new_kafka: Callable[..., KafkaCluster]) -> None:
    kafka = new_kafka(3)
    keys = [b"%d" % number for number in range(3000)]
    with ExitStack() as stack:
        benches = {name: stack.enter_context(closing(Bench(kafka_client(name), kafka.servers))) for name in CLIENTS}
        topics = {name: kafka.create_topic(partitions=6) for name in CLIENTS}
        producers = {name: bench.producer() for name, bench in benches.items()}
        admins = {name: bench.admin() for name, bench in benches.items()}
        for admin in admins.values():
            admin.topics(SECONDS)
        # librdkafka sends such requests to the broker that it takes for the controller.
        victim = admins["confluent"]._library.list_topics(timeout=SECONDS).controller_id  # type: ignore[attr-defined]
        for begin in range(0, len(keys), 100):
            for name, producer in producers.items():
                producer.produce_batch([Outgoing(topics[name], key, key) for key in keys[begin : begin + 100]])
            if begin == 1500:
                kafka.kill(victim)
        for name, producer in producers.items():
            topic, admin = topics[name], admins[name]
            assert producer.flush(3 * SECONDS) == []
            assert topic in answered(partial(admin.topics, 3, [topic]))
            assert "retention.ms" in answered(partial(admin.topic_config, topic, 3))
            assert {record.key for record in kafka.consume_all(topic)} == set(keys)
            consumer, _ = benches[name].consumer(topic)
            assert {origin.key for origin in read(consumer, len(keys))} == set(keys)
