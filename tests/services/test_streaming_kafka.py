"""Streaming pipelines between topics of a real Kafka, run by the real command."""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.services.kafka import Kafka
from tests.support.batch import BatchProject
from tests.support.processes import children_of_runs, wait_until
from tests.support.project import Running

CLIENTS = ("kafka-python", "confluent")
COUNT = """
@transformer
def count(messages: list[dict], *args, **kwargs):
    return [{**message, "seen": True} for message in messages]
"""
IDENTITY = """
@transformer
def same(messages: list[dict], *args, **kwargs):
    return messages
"""
BROKEN = """
@transformer
def broken(messages: list[dict], *args, **kwargs):
    for message in messages:
        if message["id"] == 5:
            raise ValueError("five is not allowed")
    return messages
"""


class Pipeline:
    """A project with the pipeline `p` from one topic to another."""

    def __init__(self, folder: Path, kafka: Kafka) -> None:
        self.kafka = kafka
        self.group = f"g-{secrets.token_hex(4)}"
        self.project = BatchProject(folder)
        self.project.type = "streaming"

    def source(self, topic: str, uuid: str = "read", **config: Any) -> None:
        """Add a source that begins at the start of a topic."""
        values = {"topic": topic, "consumer_group": self.group, "auto_offset_reset": "earliest", **config}
        self._end(uuid, "data_loader", values, upstream=[])

    def sink(self, topic: str, uuid: str = "write", upstream: list[str] | None = None, **config: Any) -> None:
        """Add a sink."""
        self._end(uuid, "data_exporter", {"topic": topic, **config}, upstream)

    def keys(self, **keys: Any) -> None:
        """Set keys of the pipeline."""
        self.project.keys.update(keys)
        self.project.save()

    def _end(self, uuid: str, type: str, config: dict[str, Any], upstream: list[str] | None) -> None:
        text = yaml.safe_dump({"connector_type": "kafka", "bootstrap_server": self.kafka.bootstrap, **config})
        self.project.block(uuid, text, type=type, language="yaml", upstream=upstream)

    def start(self) -> Running:
        """Start a run."""
        return self.project.start("run", "p")

    def log(self) -> str:
        """What the runs have written to their logs so far."""
        return "".join(file.read_text() for file in self.project.root.glob(".streamline/runs/*/run.log"))

    def values(self, topic: str) -> list[Any]:
        """The values of a topic's committed messages."""
        return [record.value and json.loads(record.value) for record in self.kafka.consume_all(topic)]

    def committed(self) -> int:
        """The sum of the group's offsets."""
        from kafka.errors import KafkaError

        try:
            return sum(self.kafka.committed(self.group).values())
        except KafkaError as error:
            if error.retriable:  # nobody has used the broker's groups yet
                return 0
            raise


MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def pipeline(tmp_path: Path, kafka_server: Kafka) -> Pipeline:
    """An empty pipeline on the shared broker."""
    return Pipeline(tmp_path / "shop", kafka_server)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """A client library."""
    name: str = request.param
    if name == "confluent":
        pytest.importorskip("confluent_kafka")
    return name


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"key": f"k{number % 7}".encode(), "value": json.dumps({"id": number}).encode()} for number in range(count)]


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_from_topic_to_topic_until_caught_up(pipeline: Pipeline, client: str, delivery: str) -> None:
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(partitions=3), kafka.create_topic(partitions=3)
    kafka.produce(source, numbered(500))
    pipeline.keys(delivery=delivery, dead_letter={"topic": kafka.create_topic()})
    pipeline.source(source, client=client)
    pipeline.project.block("count", COUNT)
    pipeline.sink(sink, client=client)
    result = json.loads(pipeline.project.run("--until-caught-up", "--json").expect(0).out)
    assert (result["records"], result["quarantined"]) == (500, 0)
    assert sorted(value["id"] for value in pipeline.values(sink)) == list(range(500))
    assert pipeline.committed() == 500
    assert len(json.loads(pipeline.project.command("state", "list", "p", "--json").expect(0).out)) == 3
    kafka.produce(source, numbered(3))
    pipeline.project.run("--until-caught-up").expect(0)
    assert len(pipeline.values(sink)) == 503


def test_the_group_is_moved_by_hand(pipeline: Pipeline, client: str) -> None:
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(), kafka.create_topic()
    kafka.produce(source, numbered(10))
    pipeline.source(source, client=client)
    pipeline.sink(sink, client=client)
    pipeline.project.run("--until-caught-up").expect(0)
    pipeline.project.command("state", "set", "p", f"{source}/0", '{"offset": 7}').expect(0)
    assert pipeline.committed() == 7
    pipeline.project.run("--until-caught-up").expect(0)
    assert [value["id"] for value in pipeline.values(sink)] == [*range(10), 7, 8, 9]
    pipeline.project.command("state", "reset", "p").expect(0)
    assert pipeline.committed() == 0


def test_without_a_transformer_messages_arrive_unchanged(pipeline: Pipeline, client: str) -> None:
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(), kafka.create_topic()
    value = b'{"id":  1.0e2, "name": "\\u00e4"}'
    sent = [
        {"key": b"\xff", "value": value, "headers": [("h", b"1"), ("h", b"2")], "time": 1_700_000_000_123},
        {"key": b"k", "value": None},
    ]
    kafka.produce(source, sent)
    pipeline.source(source, client=client)
    pipeline.sink(sink, client=client)
    pipeline.project.run("--until-caught-up").expect(0)
    first, tombstone = kafka.consume_all(sink)
    assert (first.key, first.value, first.timestamp) == (b"\xff", value, 1_700_000_000_123)
    assert list(first.headers) == [("h", b"1"), ("h", b"2")]
    assert (tombstone.key, tombstone.value) == (b"k", None)


def test_a_message_returned_as_the_same_object_keeps_its_key(pipeline: Pipeline) -> None:
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(), kafka.create_topic()
    kafka.produce(source, [{"key": b"k", "value": b'{"id": 12345678901234567890}', "headers": [("h", b"1")]}])
    pipeline.source(source)
    pipeline.project.block("same", IDENTITY)
    pipeline.sink(sink)
    pipeline.project.run("--until-caught-up").expect(0)
    (message,) = kafka.consume_all(sink)
    assert (message.key, json.loads(message.value)) == (b"k", {"id": 12345678901234567890})
    assert list(message.headers) == [("h", b"1")]


def test_a_signal_commits_what_is_in_flight(pipeline: Pipeline, client: str) -> None:
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(partitions=2), kafka.create_topic()
    kafka.produce(source, numbered(100))
    pipeline.keys(checkpoint_interval=30)
    pipeline.source(source, client=client)
    pipeline.sink(sink, client=client)
    pipeline.project.env["STREAMLINE_INTERRUPT_SECONDS"] = "20"
    running = pipeline.start()
    wait_until(lambda: pipeline.kafka.consume_all(sink) != [] or "100" in pipeline.log(), "messages")
    running.signal(signal.SIGTERM)
    running.finish().expect(0)
    assert pipeline.committed() == 100
    assert len(kafka.consume_all(sink)) == 100


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_killed_it_goes_on_from_the_last_proof(pipeline: Pipeline, client: str, delivery: str) -> None:
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(partitions=2), kafka.create_topic(partitions=2)
    pipeline.keys(delivery=delivery, on_error="stop", checkpoint_interval=0.2)
    # The broker gives the partitions of a killed member away after its session.
    pipeline.source(source, client=client, session_seconds=6)
    pipeline.project.block("same", IDENTITY)
    pipeline.sink(sink, client=client)
    sent = 0
    for _ in range(3):
        kafka.produce(source, numbered(sent + 2000)[sent:])
        sent += 2000
        before = pipeline.committed()
        running = pipeline.start()
        wait_until(lambda before=before: pipeline.committed() > before, "a checkpoint")
        running.kill()
    pipeline.project.run("--until-caught-up").expect(0)
    ids = [value["id"] for value in pipeline.values(sink)]
    assert set(ids) == set(range(sent))
    if delivery == "exactly-once":
        assert len(ids) == sent


def test_bad_messages_go_to_their_topic(pipeline: Pipeline, client: str) -> None:
    kafka = pipeline.kafka
    source, sink, letters = kafka.create_topic(), kafka.create_topic(), kafka.create_topic()
    kafka.produce(source, [*numbered(10), {"key": b"bad", "value": b"not JSON", "headers": [("h", b"1")]}])
    pipeline.keys(dead_letter={"topic": letters})
    pipeline.source(source, client=client)
    pipeline.project.block("broken", BROKEN)
    pipeline.sink(sink, client=client)
    pipeline.project.run("--until-caught-up").expect(0, "2 dead letters")
    assert [value["id"] for value in pipeline.values(sink)] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    records = {record.key: record for record in kafka.consume_all(letters) if record.key is not None}
    assert records[b"bad"].value == b"not JSON"
    headers = dict(records[b"bad"].headers)
    assert (headers["streamline.topic"], headers["streamline.offset"]) == (source.encode(), b"10")
    assert pipeline.committed() == 11
    listed = json.loads(pipeline.project.command("dead-letters", "list", "p", "--json").expect(0).out)
    assert {(letter["offset"], letter["stage"]) for letter in listed} == {(5, "broken"), (10, "decode")}


def test_on_error_stop_names_the_message(pipeline: Pipeline) -> None:
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(), kafka.create_topic()
    kafka.produce(source, [b'{"id": 1}', b"not JSON", b'{"id": 2}'])
    pipeline.keys(on_error="stop")
    pipeline.source(source)
    pipeline.project.block("same", IDENTITY)
    pipeline.sink(sink)
    pipeline.project.run().expect(1, f"{source}, partition 0, offset 1")
    assert 2 not in [value["id"] for value in pipeline.values(sink)]
    assert pipeline.committed() <= 1


def test_a_broker_that_is_down_at_the_start(pipeline: Pipeline, client: str) -> None:
    pipeline.keys(startup_timeout=2)
    pipeline.source("orders", bootstrap_server="127.0.0.1:1", client=client)
    pipeline.sink("totals", bootstrap_server="127.0.0.1:1", client=client)
    pipeline.project.run().expect(1, "127.0.0.1:1")


def test_a_topic_that_does_not_exist(pipeline: Pipeline, client: str) -> None:
    pipeline.keys(startup_timeout=2)
    pipeline.source("no-such-topic", client=client)
    pipeline.sink(pipeline.kafka.create_topic(), client=client)
    pipeline.project.run().expect(1, "no-such-topic")


def test_what_the_plan_guarantees(pipeline: Pipeline) -> None:
    pipeline.source("a")
    pipeline.sink("b")
    plan = json.loads(pipeline.project.command("explain", "p", "--json").expect(0).out)
    (edge,) = plan["edges"]
    assert edge["delivery"]["better"] == "delivery: exactly-once"
    assert plan["sources"][0]["decoded"] is False
    pipeline.keys(delivery="exactly-once")
    pipeline.project.command("run", "p").expect(2, "dead letters in the state store")


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_instances_share_the_partitions(pipeline: Pipeline, client: str, delivery: str) -> None:
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(partitions=4), kafka.create_topic()
    kafka.produce(source, numbered(400))
    pipeline.keys(instances=2, delivery=delivery, on_error="stop", checkpoint_interval=0.2)
    pipeline.source(source, client=client, session_seconds=6)
    pipeline.project.block("same", IDENTITY)
    pipeline.sink(sink, client=client)
    running = pipeline.start()
    wait_until(lambda: pipeline.committed() == 400, "the first messages", 40)
    child, *_ = children_of_runs(pipeline.project.root)
    os.kill(child.pid, signal.SIGKILL)
    kafka.produce(source, numbered(800)[400:])
    wait_until(lambda: pipeline.committed() == 800, "the others", 60)
    running.signal(signal.SIGTERM)
    running.finish().expect(0, "instance")
    ids = [value["id"] for value in pipeline.values(sink)]
    assert sorted(set(ids)) == list(range(800))
    if delivery == "exactly-once":
        assert len(ids) == 800


def test_instances_whose_parent_is_killed_end_by_themselves_and_a_new_run_goes_on(pipeline: Pipeline) -> None:
    kafka = pipeline.kafka
    source, sink = kafka.create_topic(partitions=2), kafka.create_topic()
    kafka.produce(source, numbered(100))
    pipeline.keys(instances=2, delivery="exactly-once", on_error="stop", checkpoint_interval=0.2)
    pipeline.source(source, session_seconds=6)
    pipeline.sink(sink)
    running = pipeline.start()
    wait_until(lambda: pipeline.committed() == 100, "the first messages", 60)
    assert len(children_of_runs(pipeline.project.root)) == 2
    running.signal(signal.SIGKILL)
    running.finish()
    wait_until(lambda: not children_of_runs(pipeline.project.root), "no process is left over", 60)
    kafka.produce(source, numbered(200)[100:])
    pipeline.project.run("--until-caught-up").expect(0)
    assert sorted(value["id"] for value in pipeline.values(sink)) == list(range(200))
