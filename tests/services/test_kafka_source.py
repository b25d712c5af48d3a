"""Kafka sources on a real broker, with each client library. Numbers of cases are those of the streaming cases."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack

import anyio
import anyio.to_thread
import pytest

from streamline.connectors.kafka.client import Connection, KafkaClient, Outgoing, ProducerOptions
from streamline.connectors.kafka.clients import CLIENTS, kafka_client
from streamline.connectors.kafka.settings import StartOffset
from tests.connectors.kafka.running import numbers
from tests.connectors.singer.running import until
from tests.services.kafka import PASSWORDS, Kafka, KafkaCluster
from tests.services.kafka_reading import LATEST, Group, Reading

pytestmark = pytest.mark.anyio


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> KafkaClient:
    """Each client library."""
    return kafka_client(request.param)


@pytest.fixture
def group_name() -> str:
    return f"g-{secrets.token_hex(4)}"


async def in_thread(function: Callable[..., object], *arguments: object) -> None:
    await anyio.to_thread.run_sync(function, *arguments)


async def until_committed(kafka: Kafka, group: str, ready: Callable[[dict[tuple[str, int], int]], object]) -> None:
    """Wait until a group's offsets are so."""
    while not ready(await anyio.to_thread.run_sync(kafka.committed, group)):
        await anyio.sleep(0.1)


async def test_what_is_read_is_what_was_written_and_a_second_run_goes_on(
    client: KafkaClient, kafka_server: Kafka, group_name: str
) -> None:
    topic = kafka_server.create_topic(partitions=3)
    written = [
        {
            "key": b"k%d" % number,
            "value": None if number == 7 else b"%d" % number,
            "partition": number % 3,
            "time": number,
        }
        for number in range(1, 31)
    ]
    written[0]["headers"] = [("h", b"1"), ("h", b"2")]
    kafka_server.produce(topic, written)
    group = Group(client, kafka_server.servers, topics=(topic,), group=group_name)
    reading = await group.all()
    assert reading.outcome is not None
    assert reading.outcome.error is None
    messages = sorted(reading.sink.messages, key=lambda message: message.time or 0)
    assert [(each.key, each.value, each.partition, each.time) for each in messages] == [
        (each["key"], each["value"], each["partition"], each["time"]) for each in written
    ]
    assert messages[0].headers == [("h", b"1"), ("h", b"2")]
    assert kafka_server.committed(group_name) == {(topic, number): 10 for number in range(3)}
    kafka_server.produce(topic, [b"more"], partition=1)
    assert (await group.all()).sink.values == [b"more"]


async def test_case_15_it_has_caught_up_behind_a_transaction_and_leaves_no_lag(
    client: KafkaClient, kafka_server: Kafka, group_name: str
) -> None:
    topic = kafka_server.create_topic()
    producer = client.producer(
        Connection(servers=kafka_server.servers), ProducerOptions(client_id="t", transactional_id=group_name)
    )
    producer.init_transactions(30)
    for outcome in ("abort", "commit"):
        producer.begin()
        producer.produce_batch([Outgoing(topic, None, b"%d" % number) for number in range(1, 6)])
        assert producer.flush(30) == []
        getattr(producer, outcome)(30)
    producer.close(10)
    reading = await Group(client, kafka_server.servers, topics=(topic,), group=group_name).all()
    assert reading.sink.values == numbers(1, 5)
    assert kafka_server.committed(group_name) == {(topic, 0): 12}  # 5, a marker, 5, a marker


async def test_case_17_a_start_is_committed_though_nothing_was_read(
    client: KafkaClient, kafka_server: Kafka, group_name: str
) -> None:
    topic = kafka_server.create_topic()
    kafka_server.produce(topic, [{"value": b"%d" % number, "time": 10**12 + number} for number in range(5)])
    group = Group(client, kafka_server.servers, topics=(topic,), group=group_name, offset=LATEST)
    assert (await group.all()).sink.values == []
    assert kafka_server.committed(group_name) == {(topic, 0): 5}
    kafka_server.produce(topic, [b"5"])
    assert (await group.all()).sink.values == [b"5"]
    offset = StartOffset(kind="timestamp", value=10**12 + 3)
    at_time = Group(client, kafka_server.servers, topics=(topic,), group=f"{group_name}-time", offset=offset)
    assert (await at_time.all()).sink.values == [b"3", b"4", b"5"]


async def test_case_13_messages_that_retention_has_deleted_are_counted(
    client: KafkaClient, kafka_server: Kafka, group_name: str
) -> None:
    topic = kafka_server.create_topic()
    kafka_server.produce(topic, numbers(0, 1))
    group = Group(client, kafka_server.servers, topics=(topic,), group=group_name)
    await group.all()
    kafka_server.produce(topic, numbers(2, 9))
    kafka_server.delete_before(topic, 6)
    stopped = await group.all()
    assert stopped.code == "kafka.offset_lost"
    assert all(word in str(stopped.outcome and stopped.outcome.error) for word in ("4 messages", "4 can"))
    assert (await group.all(on_offset_lost="earliest")).sink.values == numbers(6, 9)


async def test_case_13_messages_that_are_deleted_while_it_waits(
    client: KafkaClient, kafka_server: Kafka, group_name: str
) -> None:
    topic = kafka_server.create_topic()
    kafka_server.produce(topic, numbers(0, 1))
    group = Group(client, kafka_server.servers, topics=(topic,), group=group_name, on_offset_lost="earliest")
    producer = client.producer(
        Connection(servers=kafka_server.servers), ProducerOptions(client_id="t", transactional_id=group_name)
    )
    async with group.member() as reading:
        await until(lambda: reading.sink.values == numbers(0, 1))
        await in_thread(producer.init_transactions, 30)
        producer.begin()
        producer.produce_batch([Outgoing(topic, None, b"%d" % number) for number in range(2, 42)])
        assert await anyio.to_thread.run_sync(producer.flush, 30) == []
        # It waits before the open transaction.
        await in_thread(kafka_server.delete_before, topic, 42)
        await until(lambda: reading.notes.having("gone"))
        await in_thread(producer.commit, 30)
        await in_thread(kafka_server.produce, topic, [b"last"])
        await until(lambda: reading.sink.values == [*numbers(0, 1), b"last"])
    await in_thread(producer.close, 10)


@pytest.mark.parametrize("on_lost", ["stop", "earliest"])
async def test_case_14_a_topic_that_is_made_again_while_it_is_read(
    client: KafkaClient, kafka_server: Kafka, group_name: str, on_lost: str
) -> None:
    topic = kafka_server.create_topic()
    kafka_server.produce(topic, numbers(0, 4))
    group = Group(client, kafka_server.servers, topics=(topic,), group=group_name, on_offset_lost=on_lost)
    async with group.member() as reading:
        await until_committed(kafka_server, group_name, lambda offsets: offsets == {(topic, 0): 5})
        await in_thread(kafka_server.delete_topic, topic)
        await in_thread(kafka_server.create_topic, topic)
        await in_thread(kafka_server.produce, topic, numbers(10, 17))
        if on_lost == "stop":
            await reading.ended.wait()
            assert reading.code == "kafka.topic_recreated"
        else:
            await until(lambda: set(numbers(10, 17)) <= set(reading.sink.values))
            await until_committed(kafka_server, group_name, lambda offsets: offsets == {(topic, 0): 8})


async def test_case_12_all_messages_of_a_topic_that_appears_arrive(
    client: KafkaClient, kafka_server: Kafka, group_name: str
) -> None:
    prefix = f"crm-{secrets.token_hex(4)}"
    first = kafka_server.create_topic(f"{prefix}-1")
    kafka_server.produce(first, [b"old"])
    group = Group(client, kafka_server.servers, pattern=f"{prefix}-.*", group=group_name, offset=LATEST)
    async with group.member() as reading:
        await until_committed(kafka_server, group_name, bool)
        second = await anyio.to_thread.run_sync(kafka_server.create_topic, f"{prefix}-2")
        await in_thread(kafka_server.produce, second, numbers(1, 100))
        await until(lambda: reading.sink.values == numbers(1, 100))


async def test_case_06_partitions_that_were_paused_flow_after_they_come_back(
    client: KafkaClient, kafka_server: Kafka, group_name: str
) -> None:
    topic = kafka_server.create_topic(partitions=2)
    kafka_server.produce(topic, [{"value": b"x" * 1000, "partition": number % 2} for number in range(20_000)])
    group = Group(client, kafka_server.servers, topics=(topic,), group=group_name, drain_seconds=2.0)
    async with group.member() as first:
        await until(lambda: first.sink.messages)
        first.sink.gate = anyio.Event()
        await anyio.sleep(2)  # what waits is full, and all partitions are paused
        async with group.member(1) as second:
            await until(lambda: second.sink.messages)
        first.sink.gate.set()
        await until_committed(
            kafka_server, group_name, lambda offsets: offsets == {(topic, 0): 10_000, (topic, 1): 10_000}
        )
        places = {(each.partition, each.offset) for each in [*first.sink.messages, *second.sink.messages]}
        assert len(places) == 20_000


async def test_cases_01_02_04_nothing_is_lost_while_members_come_and_go(
    client: KafkaClient, kafka_server: Kafka, group_name: str
) -> None:
    topic = kafka_server.create_topic(partitions=6)
    group = Group(client, kafka_server.servers, topics=(topic,), group=group_name, drain_seconds=5.0)
    count, members = 0, []
    async with group.member(0, delay=0.3) as steady:
        members.append(steady)
        for slot in (1, 2, 1, 2):
            async with group.member(slot, delay=0.3) as guest:
                members.append(guest)
                for _ in range(20):
                    batch = [{"value": b"%d" % number, "partition": number % 6} for number in range(count, count + 300)]
                    await in_thread(kafka_server.produce, topic, batch)
                    count += 300
                    await anyio.sleep(0.1)
        await until_committed(kafka_server, group_name, lambda offsets: sum(offsets.values()) == count)
    assert [each.outcome.error for each in members if each.outcome is not None] == [None] * 5
    assert {value for each in members for value in each.sink.values} == {b"%d" % number for number in range(count)}
    # What drained in time is not given again.
    again = sum(len(each.sink.values) for each in members) - count
    assert again < count // 10


async def test_case_34_a_wrong_topic_name_is_an_error(
    client: KafkaClient, kafka_server: Kafka, group_name: str
) -> None:
    group = Group(client, kafka_server.servers, topics=("no-such-topic",), group=group_name)
    reading = await group.all(startup=2.0)
    assert reading.code == "kafka.topic_missing"


async def test_a_broker_that_is_not_there_is_named(client: KafkaClient, group_name: str) -> None:
    reading = await Group(client, ["127.0.0.1:9"], topics=("t",), group=group_name).all(startup=3.0)
    assert reading.code == "kafka.unreachable"
    assert "127.0.0.1:9" in str(reading.outcome and reading.outcome.error)
    assert reading.notes.having("127.0.0.1:9")


@pytest.mark.parametrize(("resource", "words"), [("topic", ["read", "READ"]), ("group", ["group", "READ"])])
async def test_what_an_acl_forbids_is_named(
    client: KafkaClient, secured_kafka: KafkaCluster, group_name: str, resource: str, words: list[str]
) -> None:
    topic = secured_kafka.create_topic()
    allow_only_bob(secured_kafka, resource, topic if resource == "topic" else group_name)
    security = {
        "protocol": "SASL_PLAINTEXT",
        "sasl": {"mechanism": "PLAIN", "username": "alice", "password": PASSWORDS["alice"]},
    }
    servers = secured_kafka.addresses("SASL_PLAINTEXT")
    reading = await Group(client, servers, topics=(topic,), group=group_name, security=security).all(startup=10.0)
    assert reading.code == "kafka.not_authorized"
    assert all(word in str(reading.outcome and reading.outcome.error) for word in words)


def allow_only_bob(kafka: Kafka, resource: str, name: str) -> None:
    """Forbid a topic or group to alice."""
    from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

    pattern = ResourcePattern(ResourceType.TOPIC if resource == "topic" else ResourceType.GROUP, name)
    kafka.admin.create_acls([ACL("User:bob", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, pattern)])


async def test_a_group_is_shared_under_the_consumer_protocol(kafka_server: Kafka, group_name: str) -> None:
    topic = kafka_server.create_topic(partitions=4)
    kafka_server.produce(topic, [{"value": b"%d" % number, "partition": number % 4} for number in range(400)])
    confluent = kafka_client("confluent")
    group = Group(confluent, kafka_server.servers, topics=(topic,), group=group_name, group_protocol="consumer")
    async with group.member(0) as first:
        await until(lambda: len(first.sink.values) == 400)
        async with group.member(1) as second:
            await until(lambda: len(second.source.lag()) == len(first.source.lag()) == 2)
            kafka_server.produce(
                topic, [{"value": b"%d" % number, "partition": number % 4} for number in range(400, 800)]
            )
            await until_committed(kafka_server, group_name, lambda offsets: sum(offsets.values()) == 800)
    assert {*first.sink.values, *second.sink.values} == {b"%d" % number for number in range(800)}


async def test_case_11_a_static_member_is_replaced(client: KafkaClient, kafka_server: Kafka, group_name: str) -> None:
    topic = kafka_server.create_topic()
    group = Group(client, kafka_server.servers, topics=(topic,), group=group_name, group_instance_id="one")
    async with group.member() as first:
        await until_committed(kafka_server, group_name, bool)
        async with group.member() as second:
            await first.ended.wait()
            assert first.code == "kafka.replaced"
            await in_thread(kafka_server.produce, topic, [b"1"])
            await until(lambda: second.sink.values == [b"1"])


async def test_outages_while_it_runs_are_waited_for(new_kafka: Callable[..., KafkaCluster], group_name: str) -> None:
    kafka = new_kafka()
    topic = kafka.create_topic(partitions=2)
    readings: list[Reading] = []

    async def until_read(count: int) -> None:
        for reading in readings:
            await until(lambda reading=reading: set(reading.sink.values) == set(numbers(1, count)))

    async with AsyncExitStack() as members:
        for name in CLIENTS:
            group = Group(kafka_client(name), kafka.servers, topics=(topic,), group=f"{group_name}-{name}")
            readings.append(await members.enter_async_context(group.member()))
        await in_thread(kafka.produce, topic, numbers(1, 10), 0)
        await until_read(10)
        kafka.stop(1)
        await anyio.sleep(12)
        kafka.cont(1)
        await in_thread(kafka.produce, topic, numbers(11, 20), 1)
        await until_read(20)
        kafka.kill(1)
        await anyio.sleep(3)
        await in_thread(kafka.start, 1)
        await in_thread(kafka.produce, topic, numbers(21, 30), 1)
        await until_read(30)
        for name in CLIENTS:
            await until_committed(kafka, f"{group_name}-{name}", lambda offsets: sum(offsets.values()) == 30)
        # Case 32: it ends in time though nothing answers.
        kafka.kill(1)
        for reading in readings:
            await reading.stop()
            assert reading.outcome is not None
            assert reading.outcome.error is None
