"""Streaming pipelines whose broker goes away, forgets or forbids something, by the real command."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from streamline.project.checkout import checkout_id
from tests.services.kafka import PASSWORDS, Kafka, KafkaCluster
from tests.services.require import ServiceMissingError, missing
from tests.services.test_streaming_kafka import BROKEN, CLIENTS, Pipeline, numbered
from tests.support.processes import wait_until


@pytest.fixture(scope="module")
def mortal_kafka() -> Iterator[KafkaCluster]:
    """A broker that tests may end and suspend; they start it again."""
    try:
        with KafkaCluster() as cluster:
            yield cluster
    except ServiceMissingError as error:
        missing(str(error))


@pytest.fixture
def pipeline(tmp_path: Path, kafka_server: Kafka) -> Pipeline:
    """An empty pipeline on the shared broker."""
    return Pipeline(tmp_path / "shop", kafka_server)


def needs(client: str) -> None:
    """Skip the test where the client library is not installed."""
    if client == "confluent":
        pytest.importorskip("confluent_kafka")


def told(pipeline: Pipeline, words: str, times: int) -> bool:
    """Whether the source has told something of the cluster so often."""
    return pipeline.log().count(f"read | {pipeline.kafka.bootstrap} {words}") == times


def committed(pipeline: Pipeline, offset: int) -> bool:
    return pipeline.committed() == offset


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_an_outage_does_not_end_the_run(tmp_path: Path, mortal_kafka: KafkaCluster, client: str, delivery: str) -> None:
    """The broker is killed, and later suspended; a message that comes back from it is a dead letter."""
    needs(client)
    kafka = mortal_kafka
    pipeline = Pipeline(tmp_path / "shop", kafka)
    source, sink, letters = kafka.create_topic(), kafka.create_topic(), kafka.create_topic()
    kafka.produce(source, numbered(4))
    pipeline.keys(
        delivery=delivery,
        startup_timeout=1,
        retry_config={"retries": 0},
        checkpoint_interval=0.2,
        dead_letter={"topic": letters},
    )
    pipeline.source(source, client=client, session_seconds=6)
    pipeline.project.block("broken", BROKEN)
    pipeline.sink(sink, client=client)
    outages: list[tuple[Callable[[], None], Callable[[], None], int]] = [
        (lambda: kafka.kill(1), lambda: kafka.start(1), 10),
        (lambda: kafka.stop(1), lambda: kafka.cont(1), 13),
    ]
    running = pipeline.start()
    try:
        wait_until(partial(committed, pipeline, 4), "the first messages", 60)
        sent = 4
        for number, (begin, end, count) in enumerate(outages, 1):
            begin()
            try:
                wait_until(partial(told, pipeline, "does not", number), "what is told of the outage", 60)
            finally:
                end()
            kafka.produce(source, numbered(count)[sent:])
            sent = count
            wait_until(partial(committed, pipeline, count), "the others", 120)
            wait_until(partial(told, pipeline, "answers again", number), "what is told of its end", 60)
        running.signal(signal.SIGTERM)
        running.finish().expect(0)
    finally:
        if running.process.poll() is None:
            running.kill()
    ids = [value["id"] for value in pipeline.values(sink)]
    assert set(ids) == set(range(13)) - {5}
    if delivery == "exactly-once":
        assert len(ids) == 12


def test_a_topic_that_is_deleted_and_created_again(pipeline: Pipeline) -> None:
    """Brokers delete the group's offsets with the topic, so the source would begin at its end, as a new group does."""
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(), kafka.create_topic()
    kafka.produce(source, numbered(5))
    pipeline.source(source, client="kafka-python", metadata_refresh=0.2)
    pipeline.sink(sink)
    running = pipeline.start()
    try:
        wait_until(partial(committed, pipeline, 5), "the messages", 60)
        kafka.delete_topic(source)
        running.finish().expect(1, f"topic {source} was deleted")
    finally:
        if running.process.poll() is None:
            running.kill()
    kafka.create_topic(source)
    kafka.produce(source, numbered(8))
    pipeline.project.entries["blocks"].clear()
    pipeline.source(source, client="kafka-python", auto_offset_reset="latest")
    pipeline.sink(sink)
    pipeline.project.run().expect(1, f"{source}/0.*created again.* 8 can still")
    pipeline.project.entries["blocks"].clear()
    pipeline.source(source, client="kafka-python", auto_offset_reset="latest", on_offset_lost="earliest")
    pipeline.sink(sink)
    pipeline.project.run("--until-caught-up").expect(0, "goes on at 0")
    assert [value["id"] for value in pipeline.values(sink)] == [*range(5), *range(8)]


@pytest.mark.parametrize("client", CLIENTS)
def test_an_offset_that_has_expired(pipeline: Pipeline, client: str) -> None:
    needs(client)
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(), kafka.create_topic()
    kafka.produce(source, numbered(2))
    pipeline.source(source, client=client)
    pipeline.sink(sink, client=client)
    pipeline.project.run("--until-caught-up").expect(0)
    kafka.produce(source, numbered(10)[2:])
    kafka.delete_before(source, 6)
    pipeline.project.run().expect(1, f"{source}/0.* 4 messages .*, 4 can still")
    pipeline.project.command("state", "set", "p", f"{source}/0", '{"offset": 7}').expect(0)
    pipeline.project.run("--until-caught-up").expect(0)
    assert [value["id"] for value in pipeline.values(sink)] == [0, 1, 7, 8, 9]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_message_that_is_too_large(pipeline: Pipeline, client: str) -> None:
    needs(client)
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(), kafka.create_topic(config={"max.message.bytes": "2000"})
    messages = numbered(40)
    messages[20]["value"] = json.dumps({"id": 20, "text": "x" * 3000}).encode()
    kafka.produce(source, messages)
    pipeline.source(source, client=client)
    pipeline.sink(sink, client=client)
    pipeline.project.run("--until-caught-up").expect(0, "40 messages read, 39 written, 1 dead letter")
    assert [value["id"] for value in pipeline.values(sink)] == [*range(20), *range(21, 40)]
    (letter,) = json.loads(pipeline.project.command("dead-letters", "list", "p", "--json").expect(0).out)
    assert (letter["offset"], letter["stage"]) == (20, "write")
    assert "2,000" in letter["error"] or "2000" in letter["error"]


@pytest.mark.parametrize(
    ("client", "forbidden", "words"),
    [
        ("kafka-python", "source", ["not allowed to read", "READ and DESCRIBE on the topic"]),
        ("confluent", "group", ["not allowed to use consumer group", "READ on the group"]),
        ("kafka-python", "sink", ["not allowed to write", "WRITE and DESCRIBE on the topic"]),
        ("confluent", "sink", ["not allowed to write", "WRITE and DESCRIBE on the topic"]),
        (
            "kafka-python",
            "transactional id",
            ["not allowed to write in transactions", "on the transactional ids"],
        ),
        (
            "confluent",
            "transactional id",
            ["not allowed to write in transactions", "on the transactional ids"],
        ),
    ],
)
def test_an_acl_that_forbids(
    tmp_path: Path, secured_kafka: KafkaCluster, client: str, forbidden: str, words: list[str]
) -> None:
    needs(client)
    kafka: Kafka = secured_kafka
    pipeline = Pipeline(tmp_path / "shop", kafka)
    source, sink = kafka.create_topic(), kafka.create_topic()
    kafka.produce(source, numbered(3))
    if forbidden == "transactional id":
        pipeline.keys(delivery="exactly-once", on_error="stop")
        (pipeline.project.root / ".streamline").mkdir()
        checkout = checkout_id(pipeline.project.root, pipeline.project.root / ".streamline")
        kafka.allow("bob", f"streamline.p.{checkout}.0", "WRITE", "TRANSACTIONAL_ID")
    elif forbidden == "group":
        kafka.allow("bob", pipeline.group, "READ", "GROUP")
    else:
        kafka.allow("bob", sink if forbidden == "sink" else source, "ALL")
    connection = {
        "client": client,
        "bootstrap_server": secured_kafka.addresses("SASL_PLAINTEXT")[0],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_config": {"mechanism": "PLAIN", "username": "alice", "password": PASSWORDS["alice"]},
    }
    pipeline.source(source, **connection)
    pipeline.sink(sink, **connection)
    pipeline.project.run().expect(1, *words)
    assert pipeline.values(sink) == []
    assert pipeline.committed() == 0
