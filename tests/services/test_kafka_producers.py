"""Both client libraries write as the port to Kafka promises, on a real broker."""

from __future__ import annotations

import secrets

import pytest

from streamline.connectors.kafka.client import (
    Committed,
    KafkaError,
    Outgoing,
    Partition,
)
from streamline.connectors.kafka.clients import CLIENTS, kafka_client
from tests.services.kafka import Kafka
from tests.services.kafka_bench import SECONDS, Bench, deliver, numbered, read, values

KEYS = [b"", b"a", b"ab", b"abc", b"abcd", "ключ".encode(), *(f"user-{number}".encode() for number in range(40))]


def test_case_26_both_clients_write_a_key_to_the_same_partition(kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(partitions=7)
    for name in CLIENTS:
        bench = Bench(kafka_client(name), kafka_server.servers)
        assert deliver(bench.producer(), *(Outgoing(topic, key, name.encode()) for key in KEYS)) == []
        bench.close()
    partitions: dict[bytes, set[int]] = {}
    for record in kafka_server.consume_all(topic):
        partitions.setdefault(record.key, set()).add(record.partition)
    assert partitions.keys() == set(KEYS)
    assert all(len(places) == 1 for places in partitions.values()), partitions
    assert len(set().union(*partitions.values())) == 7


def test_case_25_one_too_large_among_small_ones_is_alone_undelivered(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(config={"max.message.bytes": "20000"})
    messages = [Outgoing(topic, b"k", b"x" * (30_000 if number == 4 else 100) + b"%d" % number) for number in range(10)]
    producer = bench.producer()
    undelivered = deliver(producer, *messages)
    assert [(each.number, each.code) for each in undelivered] == [(4, "MSG_SIZE_TOO_LARGE")]
    assert deliver(producer, Outgoing(topic, b"k", b"after")) == []
    last_of = [value[-1:] for value in values(kafka_server.consume_all(topic)) if value is not None]
    seen = [value for index, value in enumerate(last_of) if value not in last_of[index + 1 :]]
    assert seen == [b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"8", b"9", b"r"]


def test_a_batch_that_is_too_large_as_a_whole_is_divided(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(config={"max.message.bytes": "20000"})
    messages = [Outgoing(topic, b"%d" % number, b"x" * 5000) for number in range(20)]
    assert deliver(bench.producer(), *messages) == []
    assert {record.key for record in kafka_server.consume_all(topic)} == {message.key for message in messages}


def test_a_message_larger_than_the_limit_is_not_sent(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic()
    undelivered = deliver(
        bench.producer(max_message_bytes=5000),
        Outgoing(topic, b"k", b"x" * 10_000, [("h", b"v")]),
        Outgoing(topic, b"k", b"small"),
    )
    assert [(each.number, each.code) for each in undelivered] == [(0, "MSG_SIZE_TOO_LARGE")]
    assert values(kafka_server.consume_all(topic)) == [b"small"]


def test_a_transaction_names_the_message_that_the_broker_refused(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(config={"max.message.bytes": "20000"})
    messages = [Outgoing(topic, b"k", b"x" * (30_000 if number == 4 else 100)) for number in range(10)]
    producer = bench.producer(transactional_id=f"x-{topic}", batch_bytes=10_000)
    producer.init_transactions(SECONDS)
    producer.begin()
    undelivered = deliver(producer, *messages)
    assert (4, "MSG_SIZE_TOO_LARGE") in [(each.number, each.code) for each in undelivered]
    producer.abort(SECONDS)
    producer.begin()
    assert deliver(producer, *messages[:4], *messages[5:]) == []
    producer.commit(SECONDS)
    assert len(kafka_server.consume_all(topic)) == 9


def test_what_a_broker_refuses_for_itself_is_told_apart(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(config={"cleanup.policy": "compact"})
    undelivered = deliver(
        bench.producer(), Outgoing(topic, b"k", b"0"), Outgoing(topic, None, b"no key"), Outgoing(topic, b"k", b"1")
    )
    assert [(each.number, each.code) for each in undelivered] == [(1, "INVALID_RECORD")]
    assert values(kafka_server.consume_all(topic))[-1] == b"1"


def test_a_topic_that_does_not_exist_is_not_created_by_the_way(bench: Bench, kafka_server: Kafka) -> None:
    name, topic = f"missing-{secrets.token_hex(4)}", kafka_server.create_topic()
    producer = bench.producer()
    producer.produce_batch([Outgoing(name, b"k", b"0"), Outgoing(topic, b"k", b"1"), Outgoing("no topic!", b"k", b"2")])
    undelivered = producer.flush(60)
    assert undelivered is not None
    assert [(each.number, each.code) for each in undelivered] == [
        (0, "UNKNOWN_TOPIC_OR_PART"),
        (2, "TOPIC_EXCEPTION"),
    ]
    undelivered = deliver(producer, Outgoing(topic, b"k", b"3", partition=9))
    assert [(each.number, each.code) for each in undelivered] == [(0, "_UNKNOWN_PARTITION")]
    assert values(kafka_server.consume_all(topic)) == [b"1"]
    assert name not in bench.admin().topics(SECONDS)


def test_only_what_a_transaction_has_committed_is_read(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic()
    producer = bench.producer(transactional_id=f"x-{topic}")
    producer.init_transactions(SECONDS)
    producer.begin()
    deliver(producer, Outgoing(topic, b"k", b"aborted"))
    producer.abort(SECONDS)
    producer.begin()
    deliver(producer, Outgoing(topic, b"k", b"committed"))
    consumer, _ = bench.consumer(topic)
    assert consumer.poll_batch(10, 1.0) == []
    assert consumer.range([Partition(topic, 0)], SECONDS)[Partition(topic, 0)][1] == 2  # not behind the open one
    producer.commit(SECONDS)
    assert values(read(consumer, 1)) == [b"committed"]


def test_offsets_are_part_of_a_transaction(bench: Bench, kafka_server: Kafka) -> None:
    source, target = kafka_server.create_topic(), kafka_server.create_topic()
    kafka_server.produce(source, [b"0", b"1"])
    consumer, _ = bench.consumer(source, group=f"g-{source}")
    read(consumer, 2)
    producer = bench.producer(transactional_id=f"x-{source}")
    producer.init_transactions(SECONDS)
    for commits in (False, True):
        producer.begin()
        deliver(producer, *numbered(target, 2))
        producer.send_offsets({Partition(source, 0): Committed(2, "id")}, consumer.group_metadata(), SECONDS)
        if commits:
            producer.commit(SECONDS)
        else:
            producer.abort(SECONDS)
            assert consumer.committed([Partition(source, 0)], SECONDS) == {}
    assert consumer.committed([Partition(source, 0)], SECONDS) == {Partition(source, 0): Committed(2, "id")}
    assert values(kafka_server.consume_all(target)) == [b"0", b"1"]


def test_a_new_owner_of_a_transactional_id_fences_the_old_one_and_stays_the_owner(
    bench: Bench, kafka_server: Kafka
) -> None:
    topic = kafka_server.create_topic()
    old = bench.producer(transactional_id=f"x-{topic}")
    old.init_transactions(SECONDS)
    old.begin()
    deliver(old, Outgoing(topic, b"k", b"old"))
    new = bench.producer(transactional_id=f"x-{topic}")
    new.init_transactions(SECONDS)
    new.begin()
    assert deliver(new, Outgoing(topic, b"k", b"1")) == []
    with pytest.raises(KafkaError) as caught:
        old.produce_batch([Outgoing(topic, b"k", b"late")])
        old.flush(SECONDS)
        old.commit(SECONDS)
    assert caught.value.fenced
    assert caught.value.fatal
    # kafka-python would ask for a newer epoch now, and fence the new owner.
    for number in (2, 3, 4):
        assert deliver(new, Outgoing(topic, b"k", b"%d" % number)) == []
    new.commit(SECONDS)
    assert values(kafka_server.consume_all(topic)) == [b"1", b"2", b"3", b"4"]


def test_a_request_of_a_transaction_is_not_lost_while_its_coordinator_is_away(
    kafka_server: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kafka.errors import KafkaConnectionError
    from kafka.net.compat import KafkaNetClient

    ready = KafkaNetClient.await_ready
    unready = [True] * 3

    def await_ready(*args: object, **more: object) -> object:
        if opened and unready:
            unready.pop()
            raise KafkaConnectionError("not ready")
        return ready(*args, **more)

    opened: list[bool] = []
    monkeypatch.setattr(KafkaNetClient, "await_ready", await_ready)
    topic, bench = kafka_server.create_topic(), Bench(kafka_client("kafka-python"), kafka_server.servers)
    producer = bench.producer(transactional_id=f"x-{topic}")
    producer.init_transactions(SECONDS)
    producer.begin()
    opened.append(True)
    assert deliver(producer, Outgoing(topic, b"k", b"v")) == []
    producer.commit(SECONDS)
    bench.close()
    assert not unready
    assert values(kafka_server.consume_all(topic)) == [b"v"]
