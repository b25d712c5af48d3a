"""Both client libraries read and administrate as the port to Kafka promises, on a real broker."""

from __future__ import annotations

import secrets
import time

import pytest

from streamline.connectors.kafka.client import (
    Committed,
    ConsumerOptions,
    KafkaError,
    NotMember,
    OffsetLost,
    Outgoing,
    Partition,
)
from streamline.connectors.kafka.clients import CLIENTS, kafka_client
from streamline.flow.items import Origin
from tests.services.kafka import Kafka
from tests.services.kafka_bench import SECONDS, Bench, deliver, numbered, poll_until, read, values


def test_messages_arrive_in_order_as_they_were_written(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(partitions=2)
    messages = [
        Outgoing(topic, b"k", b"value", [("a", b"1"), ("a", b""), ("ä", b"\xff")], 1_600_000_000_123, 0),
        Outgoing(topic, b"k", None, None, 1, 0),
        Outgoing(topic, b"", b"", None, None, 0),
        Outgoing(topic, None, b"\x00\xff", [], 1_700_000_000_000, 0),
    ]
    before = int(time.time() * 1000)
    assert deliver(bench.producer(), *messages) == []
    consumer, _ = bench.consumer(topic)
    first, tombstone, empty, last = read(consumer, 4)
    assert first == Origin(topic, 0, 0, b"k", b"value", [("a", b"1"), ("a", b""), ("ä", b"\xff")], 1_600_000_000_123)
    assert tombstone == Origin(topic, 0, 1, b"k", None, None, 1)
    assert (empty.key, empty.value, empty.headers) == (b"", b"", None)
    assert empty.time is not None
    assert before - 1000 <= empty.time <= time.time() * 1000 + 1000
    assert last == Origin(topic, 0, 3, None, b"\x00\xff", None, 1_700_000_000_000)


def test_a_poll_returns_no_more_than_it_was_asked_for(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(partitions=3)
    deliver(bench.producer(), *(Outgoing(topic, str(n).encode(), str(n).encode()) for n in range(500)))
    consumer, _ = bench.consumer(topic)
    origins = read(consumer, 500, limit=7)
    assert sorted(values(origins)) == sorted(str(n).encode() for n in range(500))
    for partition in range(3):
        offsets = [origin.offset for origin in origins if origin.partition == partition]
        assert offsets == list(range(len(offsets)))


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd", "snappy"])
def test_each_compression_is_read_by_both_clients(bench: Bench, kafka_server: Kafka, compression: str) -> None:
    topic = kafka_server.create_topic()
    assert deliver(bench.producer(compression=compression), *numbered(topic, 500)) == []
    for name in CLIENTS:
        other = Bench(kafka_client(name), kafka_server.servers)
        consumer, _ = other.consumer(topic)
        assert values(read(consumer, 500)) == [str(number).encode() for number in range(500)]
        other.close()


def test_committed_offsets_come_back_with_their_metadata(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(partitions=2)
    first, second = Partition(topic, 0), Partition(topic, 1)
    kafka_server.produce(topic, [b"0", b"1", b"2"], partition=0)
    consumer, listener = bench.consumer(topic, group=f"g-{topic}")
    read(consumer, 3)
    assert consumer.committed([first, second], SECONDS) == {}
    consumer.commit({first: Committed(2, "topic id ✓")}, SECONDS)
    assert consumer.committed([first, second], SECONDS) == {first: Committed(2, "topic id ✓")}
    assert bench.admin().group_offsets(f"g-{topic}", SECONDS) == {first: Committed(2, "topic id ✓")}
    assert consumer.assignment() == {first, second}
    assert listener.events == [("assigned", [first, second])]
    consumer.close(5)
    again, _ = bench.consumer(topic, group=f"g-{topic}")
    assert values(read(again, 1)) == [b"2"]


def test_partitions_are_read_without_a_group(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(partitions=2)
    first, second = Partition(topic, 0), Partition(topic, 1)
    kafka_server.produce(topic, [b"0", b"1", b"2"], partition=0)
    kafka_server.produce(topic, [b"other"], partition=1)
    options = ConsumerOptions(group="", client_id="test")
    consumer = bench.client.consumer(bench.connection, options)
    bench.closing(lambda: consumer.close(5))
    assert consumer.range([first], SECONDS) == {first: (0, 3)}
    consumer.assign({first: 1})
    assert consumer.position(first) == 1
    assert consumer.assignment() == {first}
    assert values(read(consumer, 2)) == [b"1", b"2"]
    poll_until(consumer, lambda: consumer.position(first) == 3)
    consumer.assign({first: 2, second: 0})
    assert sorted(values(read(consumer, 2))) == [b"2", b"other"]


def test_offsets_and_ends_can_be_looked_up(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(partitions=2)
    first, second = Partition(topic, 0), Partition(topic, 1)
    kafka_server.produce(topic, [{"value": b"x", "time": 1000 * (n + 1)} for n in range(5)], partition=0)
    kafka_server.delete_before(topic, 2)
    consumer, _ = bench.consumer(topic)
    assert consumer.range([first, second], SECONDS) == {first: (2, 5), second: (0, 0)}
    assert consumer.at_time({first: 3500, second: 0}, SECONDS) == {first: 3, second: None}
    assert consumer.at_time({first: 9000}, SECONDS) == {first: None}


def test_records_can_be_deleted(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(partitions=2)
    first, second = Partition(topic, 0), Partition(topic, 1)
    kafka_server.produce(topic, [b"0", b"1", b"2"], partition=0)
    bench.admin().delete_records({first: 2, second: 0}, SECONDS)
    consumer, _ = bench.consumer(topic)
    assert consumer.range([first, second], SECONDS) == {first: (2, 3), second: (0, 0)}


def test_paused_partitions_deliver_nothing_until_they_are_resumed(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(partitions=2)
    first, second = Partition(topic, 0), Partition(topic, 1)
    consumer, _ = bench.consumer(topic)
    poll_until(consumer, lambda: consumer.assignment() == {first, second})
    consumer.pause([first])
    kafka_server.produce(topic, [b"first"], partition=0)
    kafka_server.produce(topic, [b"second"], partition=1)
    assert values(read(consumer, 1)) == [b"second"]
    assert consumer.poll_batch(10, 1.0) == []
    consumer.resume([first])
    assert values(read(consumer, 1)) == [b"first"]


def test_an_offset_that_is_gone_is_an_error_and_nothing_is_skipped(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(partitions=2)
    kafka_server.produce(topic, [str(number).encode() for number in range(10)], partition=0)
    kafka_server.produce(topic, [b"other"], partition=1)
    kafka_server.delete_before(topic, 6)
    consumer, _ = bench.consumer(topic)
    origins: list[Origin] = []
    with pytest.raises(OffsetLost) as caught:
        for _ in range(100):
            origins += consumer.poll_batch(100, 0.2)
    assert caught.value.code == "kafka.offset_lost"
    assert (caught.value.partition, caught.value.offset) == (Partition(topic, 0), 0)
    consumer.seek(Partition(topic, 0), 6)
    origins += read(consumer, 5 - len(origins))
    assert sorted(values(origins)) == [b"6", b"7", b"8", b"9", b"other"]


def test_the_position_passes_the_marker_of_a_transaction(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic()
    partition = Partition(topic, 0)
    producer = bench.producer(transactional_id=f"x-{topic}")
    producer.init_transactions(SECONDS)
    producer.begin()
    assert deliver(producer, *numbered(topic, 5)) == []
    producer.commit(SECONDS)
    consumer, _ = bench.consumer(topic, group=f"g-{topic}")
    read(consumer, 5)
    poll_until(consumer, lambda: consumer.position(partition) == 6)
    assert consumer.range([partition], SECONDS) == {partition: (0, 6)}
    consumer.commit({partition: Committed(5)}, SECONDS)
    consumer.close(5)
    behind, _ = bench.consumer(topic, group=f"g-{topic}")  # only the marker is left to it
    poll_until(behind, lambda: behind.position(partition) == 6)


def test_a_poll_does_not_wait_for_all_that_it_may_return(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic()
    partition = Partition(topic, 0)
    consumer, _ = bench.consumer(topic)
    poll_until(consumer, lambda: bool(consumer.assignment()))
    assert consumer.position(partition) == 0
    kafka_server.produce(topic, [b"0", b"1"])
    origins: list[Origin] = []
    while len(origins) < 2:
        origins += consumer.poll_batch(1000, 10 * SECONDS)
        assert consumer.position(partition) == len(origins)
    consumer.seek(partition, 1)
    assert consumer.position(partition) == 1
    assert values(read(consumer, 1)) == [b"1"]


def test_a_member_that_was_evicted_commits_nothing(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic()
    kafka_server.produce(topic, [b"0"])
    group, partition = f"g-{topic}", Partition(topic, 0)
    consumer, _ = bench.consumer(topic, group=group)
    read(consumer, 1)
    kafka_server.evict_members(group)
    with pytest.raises(NotMember) as caught:
        consumer.commit({partition: Committed(1)}, SECONDS)
    assert caught.value.code == "kafka.not_member"
    assert kafka_server.committed(group) == {}
    poll_until(consumer, lambda: consumer.assignment() == {partition})  # it joins again by itself


def test_a_rebalance_moves_partitions_and_their_offsets_can_still_be_committed(
    bench: Bench, kafka_server: Kafka
) -> None:
    topic = kafka_server.create_topic(partitions=2)
    kafka_server.produce(topic, [b"0"], partition=0)
    kafka_server.produce(topic, [b"1"], partition=1)
    group = f"g-{topic}"
    old, old_listener = bench.consumer(topic, group=group)
    read(old, 2)
    old_listener.on_revoked = lambda partitions: old.commit({each: Committed(1) for each in partitions}, SECONDS)
    new, new_listener = bench.consumer(topic, group=group)
    deadline = time.monotonic() + SECONDS
    while not (new.assignment() and len(old.assignment()) == 1):
        assert time.monotonic() < deadline
        assert new.poll_batch(10, 0.1) == []  # what the old one has committed does not come again
        assert old.poll_batch(10, 0.1) == []
    (moved,) = new.assignment()
    assert ("revoked", [moved]) in old_listener.events
    assert new_listener.events == [("assigned", [moved])]
    assert kafka_server.committed(group) == {tuple(moved): 1}


def _topic_id(client: str, kafka_server: Kafka, topic: str) -> str:
    bench = Bench(kafka_client(client), kafka_server.servers)
    try:
        topic_id = bench.admin().topics(SECONDS, [topic])[topic].id
    finally:
        bench.close()
    assert topic_id
    return topic_id


def test_a_topic_that_is_made_again_has_another_id(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(partitions=2)
    admin = bench.admin()
    before = admin.topics(SECONDS, [topic, "not-there"])
    assert before.keys() == {topic}
    assert before[topic].partitions == 2
    ids = {kafka_client(name).name: _topic_id(name, kafka_server, topic) for name in CLIENTS}
    assert set(ids.values()) == {before[topic].id}, "either client may go on"
    assert admin.topics(SECONDS, [topic]) == before
    assert admin.topics(SECONDS)[topic] == before[topic]
    consumer, _ = bench.consumer(topic)
    assert consumer.topics(SECONDS, [topic]) == before
    kafka_server.delete_topic(topic)
    assert admin.topics(SECONDS, [topic]) == {}
    kafka_server.create_topic(topic, partitions=2)
    assert admin.topics(SECONDS, [topic])[topic].id != before[topic].id


def test_topics_are_created_and_their_configuration_is_read(bench: Bench) -> None:
    admin, name = bench.admin(), f"made-{secrets.token_hex(4)}"
    assert admin.create_topic(name, 3, {"cleanup.policy": "compact"}, SECONDS)
    assert not admin.create_topic(name, 3, {}, SECONDS)
    assert admin.topics(SECONDS, [name])[name].partitions == 3
    configuration = admin.topic_config(name, SECONDS)
    assert configuration["cleanup.policy"] == "compact"
    assert int(configuration["max.message.bytes"]) > 1_000_000
    with pytest.raises(KafkaError) as caught:
        admin.topic_config("not-there", SECONDS)
    assert caught.value.kafka_code == "UNKNOWN_TOPIC_OR_PART"


def test_offsets_of_a_group_without_members_can_be_set(bench: Bench, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic(partitions=2)
    first, second = Partition(topic, 0), Partition(topic, 1)
    admin, group = bench.admin(), f"g-{topic}"
    assert admin.group_offsets(group, SECONDS) == {}
    admin.set_group_offsets(group, {first: Committed(3, "id"), second: Committed(4)}, SECONDS)
    assert admin.group_offsets(group, SECONDS) == {first: Committed(3, "id"), second: Committed(4)}
    admin.set_group_offsets(group, {first: None, second: Committed(1)}, SECONDS)
    assert admin.group_offsets(group, SECONDS) == {second: Committed(1)}
    kafka_server.produce(topic, [b"0", b"1"], partition=1)
    consumer, _ = bench.consumer(topic, group=group)
    assert values(read(consumer, 1)) == [b"1"]
    with pytest.raises(KafkaError):
        admin.set_group_offsets(group, {second: Committed(0)}, SECONDS)
    assert admin.group_offsets(group, SECONDS) == {second: Committed(1)}
