"""Kafka sinks on a real broker, with both client libraries."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from streamline.connectors.kafka.client import Connection, KafkaClient, Outgoing, ProducerOptions
from streamline.connectors.kafka.clients import CLIENTS, kafka_client
from streamline.connectors.kafka.outgoing import Destination
from streamline.connectors.kafka.serialization.json_text import JsonSerializer
from streamline.connectors.kafka.settings import KafkaSinkSettings
from streamline.connectors.kafka.sink import KafkaSink, TransactionalKafkaSink
from streamline.connectors.stream_connector import StreamContext
from streamline.errors import StreamlineError
from streamline.flow.items import BadRecord, MessageBatch, Origin, Position
from streamline.state.store import DeadLetter
from tests.connectors.singer.running import until
from tests.services.kafka import PASSWORDS, Kafka, KafkaCluster

pytestmark = pytest.mark.anyio

PATIENCE = 60.0
FUTURE = 4_000_000_000_000
"""A time that brokers refuse: they take none that is an hour ahead."""


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> KafkaClient:
    return kafka_client(request.param)


def context(**more: Any) -> StreamContext:
    values = {"pipeline": "p", "block": "export", "root": Path(), "checkout": "folder"}
    return StreamContext(**{**values, "checkpoint_interval": 0.3, "startup_timeout": 30.0, **more})


class Pipe:
    """Topics on a broker, and sinks and sources between them."""

    def __init__(self, kafka: Kafka, client: KafkaClient, partitions: int = 2, **config: str) -> None:
        self.kafka = kafka
        self.client = client
        self.connection = Connection(servers=kafka.servers, client=client.name)
        self.name = f"p-{secrets.token_hex(4)}"
        self.target = kafka.create_topic(partitions=partitions, config=config)
        self.letters = kafka.create_topic()
        self.refused: list[BadRecord] = []
        self.proven: dict[str, int] = {}
        self.failures: list[Exception] = []

    def sink(self, exactly_once: bool = False, *, more: Mapping[str, Any] | None = None, **settings: Any) -> KafkaSink:
        values = {"connection": self.connection, "topic": self.target, **settings}
        block = Destination(block="export", settings=KafkaSinkSettings(**values), values=JsonSerializer())
        kind = TransactionalKafkaSink if exactly_once else KafkaSink
        sink = kind("export", [block], self.client, context(pipeline=self.name, **(more or {})))
        if isinstance(sink, TransactionalKafkaSink):
            sink.offsets_from = {}
            sink.dead_letter_topic = self.letters
            sink.letters_refused = lambda letters: None
        sink.refused = self._refuse(sink)
        return sink

    def _refuse(self, sink: KafkaSink) -> Any:
        def refuse(source: str, records: Sequence[BadRecord]) -> None:
            self.refused += records
            if isinstance(sink, TransactionalKafkaSink):
                sink.dead_letters(source, [letter(record) for record in records])

        return refuse

    async def deliver(self, sink: KafkaSink, *batches: MessageBatch) -> None:
        """Run a sink, send it batches with a position after each, and close it."""
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(sink.run, self.proven.__setitem__, self.failures.append)
                await anyio.lowlevel.checkpoint()
                for number, batch in enumerate(batches, 1):
                    await sink.send("load", [batch, Position("load", number, {})])
                await sink.close()
                tasks.cancel_scope.cancel()
        for error in self.failures:
            raise error

    def values(self, topic: str | None = None) -> list[bytes]:
        return [record.value for record in self.kafka.consume_all(topic or self.target)]


def letter(record: BadRecord) -> DeadLetter:
    at = record.origin or Origin("in", 0, 0, None, None)
    return DeadLetter(
        pipeline="p",
        block="load",
        stream=record.stream,
        run_id="r",
        record="",
        error=record.error,
        stage=record.stage,
        form="value",
        topic=at.topic,
        partition=at.partition,
        offset=at.offset,
        key=at.key,
        value=at.value,
    )


def read(*values: bytes | None, key: bytes | None = b"k", times: Mapping[int, int] | None = None) -> MessageBatch:
    """A batch as it is read from a topic."""
    origins = [
        Origin("in", 0, number, key, value, None, (times or {}).get(number)) for number, value in enumerate(values)
    ]
    return MessageBatch("in", list(values), list(origins))


def last_of_each(values: Sequence[bytes]) -> list[bytes]:
    """Values without those that come again: some may arrive twice, but the last of a key stays the last."""
    return list(dict.fromkeys(reversed(values)))[::-1]


BOTH = pytest.mark.parametrize("exactly_once", [False, True], ids=["at-least-once", "exactly-once"])


@BOTH
async def test_key_headers_time_and_value_arrive(kafka_server: Kafka, client: KafkaClient, exactly_once: bool) -> None:
    pipe = Pipe(kafka_server, client, partitions=1)
    passed = [
        Origin("in", 0, 0, b"k", b'{ "a":1 }', [("h", b"1"), ("h", b"2")], 1_600_000_000_123),
        Origin("in", 0, 1, b"", None, None, 86_400_000),
        Origin("in", 0, 2, None, b"", [("n", b"")], 86_400_000),
    ]
    named = {"data": {"b": 2}, "metadata": {"key": "ä", "headers": [("x", b"\xff")], "time": 86_400_001}}
    batch = MessageBatch("in", [*(each.value for each in passed), named, {"c": 3}], [*passed, None, None])
    before = int(time.time() * 1000)
    await pipe.deliver(pipe.sink(exactly_once), batch)
    assert (pipe.proven, pipe.refused) == ({"load": 1}, [])
    records = kafka_server.consume_all(pipe.target)
    assert [(record.key, record.value, list(record.headers), record.timestamp) for record in records[:4]] == [
        (b"k", b'{ "a":1 }', [("h", b"1"), ("h", b"2")], 1_600_000_000_123),
        (b"", None, [], 86_400_000),
        (None, b"", [("n", b"")], 86_400_000),
        ("ä".encode(), b'{"b":2}', [("x", b"\xff")], 86_400_001),
    ]
    assert (records[4].key, records[4].value) == (None, b'{"c":3}')
    assert records[4].timestamp >= before


@BOTH
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_case_25_one_too_large_among_small_ones(
    kafka_server: Kafka, client: KafkaClient, exactly_once: bool, compression: str
) -> None:
    pipe = Pipe(kafka_server, client, **{"max.message.bytes": "20000"})
    values = [secrets.token_bytes(30_000) if number == 4 else b"%d" % number * 3000 for number in range(10)]
    await pipe.deliver(pipe.sink(exactly_once, compression=compression), read(*values), read(b"last"))
    assert pipe.proven == {"load": 2}
    wanted = [*(value for value in values if value is not values[4]), b"last"]
    assert (pipe.values() if exactly_once else last_of_each(pipe.values())) == wanted
    assert [each.origin.offset for each in pipe.refused if each.origin] == [4]
    assert [record.value for record in kafka_server.consume_all(pipe.letters)] == ([values[4]] if exactly_once else [])


@BOTH
async def test_case_24_what_the_broker_finds_invalid_is_refused_and_the_others_stay_in_order(
    kafka_server: Kafka, client: KafkaClient, exactly_once: bool
) -> None:
    pipe = Pipe(kafka_server, client)
    first = read(*(b"%d" % number for number in range(200)), times={50: FUTURE, 51: FUTURE, 120: FUTURE})
    second = read(*(b"%d" % number for number in range(200, 400)))
    await pipe.deliver(pipe.sink(exactly_once), first, second)
    assert pipe.proven == {"load": 2}
    assert [each.origin.offset for each in pipe.refused if each.origin] == [50, 51, 120]
    wanted = [b"%d" % number for number in range(400) if number not in (50, 51, 120)]
    assert (pipe.values() if exactly_once else last_of_each(pipe.values())) == wanted
    assert pipe.values(pipe.letters) == ([b"50", b"51", b"120"] if exactly_once else [])


@BOTH
async def test_a_broker_that_is_down_at_the_start_is_an_error_after_the_startup_timeout(
    kafka_server: Kafka, client: KafkaClient, exactly_once: bool
) -> None:
    pipe = Pipe(kafka_server, client)
    nobody = Connection(servers=("127.0.0.1:9",), client=client.name)
    sink = pipe.sink(exactly_once, connection=nobody, more={"startup_timeout": 1.0})
    with pytest.raises(StreamlineError) as failure:
        await pipe.deliver(sink, read(b"1"))
    assert failure.value.code == "kafka.unreachable"
    assert failure.value.where == "127.0.0.1:9"


@BOTH
async def test_case_34_a_topic_that_does_not_exist_is_named(
    kafka_server: Kafka, client: KafkaClient, exactly_once: bool
) -> None:
    pipe = Pipe(kafka_server, client)
    sink = pipe.sink(exactly_once, topic="no-such-topic", more={"startup_timeout": 1.0})
    with pytest.raises(StreamlineError, match="no-such-topic") as failure:
        await pipe.deliver(sink, read(b"1"))
    assert failure.value.code == "kafka.topic_missing"
    assert "no-such-topic" not in kafka_server.admin.list_topics()


@BOTH
@pytest.mark.parametrize("describe", [True, False], ids=["only described", "nothing allowed"])
async def test_a_topic_that_must_not_be_written_to_is_named(
    secured_kafka: KafkaCluster, client: KafkaClient, exactly_once: bool, describe: bool
) -> None:
    pipe = Pipe(secured_kafka, client)
    secured_kafka.allow("bob" if not describe else "alice", pipe.target, "DESCRIBE")
    alice = Connection(
        servers=secured_kafka.addresses("SASL_PLAINTEXT"),
        protocol="SASL_PLAINTEXT",
        client=client.name,
        sasl={"mechanism": "PLAIN", "username": "alice", "password": PASSWORDS["alice"]},
    )
    sink = pipe.sink(exactly_once, connection=alice)
    with pytest.raises(StreamlineError, match=pipe.target) as failure:
        await pipe.deliver(sink, read(b"1"))
    assert failure.value.code == "kafka.not_authorized"
    assert pipe.values() == []


async def test_case_20_the_transaction_of_a_killed_process_ends_when_the_next_one_starts(
    kafka_server: Kafka, client: KafkaClient
) -> None:
    pipe = Pipe(kafka_server, client, partitions=1)
    killed = client.producer(
        pipe.connection, ProducerOptions(client_id="killed", transactional_id=f"streamline.{pipe.name}.folder.0")
    )
    killed.init_transactions(30)
    killed.begin()
    killed.produce_batch([Outgoing(pipe.target, b"k", b"lost")])
    assert killed.flush(30) == []
    await pipe.deliver(pipe.sink(exactly_once=True), read(b"1"))
    assert pipe.values() == [b"1"]
    killed.close(1)


async def test_an_instance_that_was_replaced_ends_and_says_so(kafka_server: Kafka, client: KafkaClient) -> None:
    pipe = Pipe(kafka_server, client, partitions=1)
    old, new = pipe.sink(exactly_once=True), pipe.sink(exactly_once=True)
    failures: list[Exception] = []
    proven: dict[str, int] = {}
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(old.run, proven.__setitem__, failures.append)
            await anyio.lowlevel.checkpoint()
            await old.send("load", [read(b"1"), Position("load", 1, {})])
            await until(lambda: proven == {"load": 1})
            await pipe.deliver(new, read(b"2"))
            await old.send("load", [read(b"3"), Position("load", 2, {})])
            await until(lambda: failures)
    assert [getattr(error, "code", None) for error in failures] == ["kafka.producer_fenced"]
    assert proven == {"load": 1}
    assert pipe.values() == [b"1", b"2"]
