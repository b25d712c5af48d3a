"""Members of consumer groups come and go; both client libraries, and both group protocols of confluent."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator

import pytest

from streamline.connectors.kafka.client import (
    Committed,
    Consumer,
    KafkaError,
    NotMember,
    Outgoing,
    Partition,
)
from streamline.connectors.kafka.clients import kafka_client
from streamline.errors import ConfigError
from tests.services.kafka import Kafka
from tests.services.kafka_bench import SECONDS, Bench, Group, deliver, poll_until, read, values


@pytest.fixture(params=[("kafka-python", "classic"), ("confluent", "classic"), ("confluent", "consumer")], ids="-".join)
def members(request: pytest.FixtureRequest, kafka_server: Kafka) -> Iterator[tuple[Bench, str]]:
    """What makes members of a group, and the group's protocol."""
    name, protocol = request.param
    bench = Bench(kafka_client(name), kafka_server.servers)
    yield bench, protocol
    bench.close()


def test_kafka_python_does_not_know_the_newer_protocol(kafka_server: Kafka) -> None:
    bench = Bench(kafka_client("kafka-python"), kafka_server.servers)
    with pytest.raises(ConfigError) as caught:
        bench.consumer("t", protocol="consumer")
    assert caught.value.code == "kafka.group_protocol_unsupported"


def test_case_12_kafka_python_learns_of_topics_after_an_error_has_ended_its_refreshes(kafka_server: Kafka) -> None:
    bench = Bench(kafka_client("kafka-python"), kafka_server.servers)
    try:
        first, second = kafka_server.create_topic(), kafka_server.create_topic()
        kafka_server.produce(first, [b"1"])
        kafka_server.produce(second, [b"2"])
        consumer, listener = bench.consumer(first)
        assert values(read(consumer, 1)) == [b"1"]
        cluster = consumer._library._cluster  # type: ignore[attr-defined]

        def fail_once(cluster: object) -> None:
            cluster.remove_listener(fail_once)  # type: ignore[attr-defined]
            raise RuntimeError("Set changed size during iteration")

        cluster.add_listener(fail_once)
        cluster.request_update()
        poll_until(consumer, lambda: cluster._refresh_loop_future.is_done)
        consumer.subscribe([first, second], listener)
        assert values(read(consumer, 1)) == [b"2"]
    finally:
        bench.close()


def test_a_group_reads_and_goes_on_where_it_stopped(members: tuple[Bench, str], kafka_server: Kafka) -> None:
    bench, protocol = members
    topic, group = kafka_server.create_topic(), f"g-{secrets.token_hex(4)}"
    partition = Partition(topic, 0)
    kafka_server.produce(topic, [b"0", b"1", b"2"])
    consumer, listener = bench.consumer(topic, group=group, protocol=protocol)
    assert values(read(consumer, 3)) == [b"0", b"1", b"2"]
    consumer.commit({partition: Committed(2, "id")}, SECONDS)
    consumer.close(5)
    again, _ = bench.consumer(topic, group=group, protocol=protocol)
    assert values(read(again, 1)) == [b"2"]
    assert again.committed([partition], SECONDS) == {partition: Committed(2, "id")}
    assert [event for event, _ in listener.events] == ["assigned"]


def test_partitions_that_are_added_to_a_topic_are_read(members: tuple[Bench, str], kafka_server: Kafka) -> None:
    bench, protocol = members
    topic = kafka_server.create_topic()
    consumer, _ = bench.consumer(topic, protocol=protocol, metadata_seconds=1.0)
    poll_until(consumer, lambda: bool(consumer.assignment()))
    kafka_server.admin.create_partitions({topic: 3})
    poll_until(consumer, lambda: len(consumer.assignment()) == 3)
    kafka_server.admin.wait_for_topics([topic])
    kafka_server.produce(topic, [b"new"], partition=2)
    assert values(read(consumer, 1)) == [b"new"]


class Member(threading.Thread):
    """Reads and commits after each batch until it is stopped; keeps what it has read."""

    def __init__(self, consumer: Consumer, listener: Group) -> None:
        super().__init__(daemon=True)
        self.consumer = consumer
        self.listener = listener
        self.read: list[bytes | None] = []
        self.errors: list[BaseException] = []
        self.evictions = 0
        self.stopping = threading.Event()
        self.done: dict[Partition, int] = {}

    def run(self) -> None:
        self.listener.on_revoked = lambda partitions: self.commit(partitions)
        try:
            while not self.stopping.is_set():
                origins = self.consumer.poll_batch(50, 0.1)
                self.read += values(origins)
                self.done |= {Partition(each.topic, each.partition): each.offset + 1 for each in origins}
                self.commit(self.consumer.assignment())
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.consumer.close(5)

    def commit(self, partitions: object) -> None:
        offsets = {place: Committed(offset) for place, offset in self.done.items() if place in partitions}  # type: ignore[operator]
        try:
            self.consumer.commit(offsets, 5)
        except NotMember:
            self.evictions += 1
        except KafkaError as error:
            if not error.transient:
                raise
        for place in set(self.done) - self.consumer.assignment():
            del self.done[place]


def test_nothing_is_lost_while_members_come_and_go(members: tuple[Bench, str], kafka_server: Kafka) -> None:
    bench, protocol = members
    topic, group = kafka_server.create_topic(partitions=6), f"g-{secrets.token_hex(4)}"
    producer = bench.producer()
    running: list[Member] = []
    ended: list[Member] = []

    def join() -> None:
        # A member that does not get to leave in time stays in the group for its session.
        running.append(Member(*bench.consumer(topic, group=group, protocol=protocol, session_seconds=10.0)))
        running[-1].start()

    join()
    written: list[bytes] = []
    for _ in range(15):
        batch = [b"%d" % (len(written) + number) for number in range(200)]
        assert deliver(producer, *(Outgoing(topic, value, value) for value in batch)) == []
        written += batch
        if len(running) < 3 and secrets.randbelow(3):
            join()
        elif len(running) > 1:
            running[0].stopping.set()
            ended.append(running.pop(0))
        time.sleep(0.5)
    deadline = time.monotonic() + SECONDS
    everybody = ended + running
    while {value for member in everybody for value in member.read} < set(written):
        assert time.monotonic() < deadline, [member.errors for member in everybody]
        time.sleep(0.2)
    for member in running:
        member.stopping.set()
    for member in everybody:
        member.join(SECONDS)
        assert member.errors == []


def test_a_new_instance_of_a_static_member_replaces_the_old_one(bench: Bench, kafka_server: Kafka) -> None:
    topic, group = kafka_server.create_topic(), f"g-{secrets.token_hex(4)}"
    old, _ = bench.consumer(topic, group=group, instance_id="one")
    poll_until(old, lambda: bool(old.assignment()))
    new, _ = bench.consumer(topic, group=group, instance_id="one")
    poll_until(new, lambda: bool(new.assignment()))
    with pytest.raises(KafkaError) as caught:
        for _ in range(100):
            old.poll_batch(10, 0.2)
    assert caught.value.fenced
    assert caught.value.kafka_code == "FENCED_INSTANCE_ID"


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns"])
def test_times_do_not_depend_on_the_zone_of_the_machine(
    bench: Bench, kafka_server: Kafka, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        by_client, by_broker = (
            kafka_server.create_topic(config={"message.timestamp.type": kind})
            for kind in ("CreateTime", "LogAppendTime")
        )
        begin = int(time.time() * 1000)
        for topic in (by_client, by_broker):
            assert deliver(bench.producer(), Outgoing(topic, b"k", b"v", time=1_577_836_800_123)) == []
        end = int(time.time() * 1000)
        (client_record,) = kafka_server.consume_all(by_client)
        assert client_record.timestamp == 1_577_836_800_123
        (own,) = read(bench.consumer(by_client)[0], 1)
        assert own.time == 1_577_836_800_123
        (broker_s,) = read(bench.consumer(by_broker)[0], 1)
        assert broker_s.time is not None
        assert begin <= broker_s.time <= end
    finally:
        monkeypatch.undo()
        time.tzset()
