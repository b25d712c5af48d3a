"""Bad messages among many on a real Kafka: the good ones arrive, the bad ones are dead letters, and are sent again."""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamline.project.project import Project
from streamline.state import project_store
from tests.services.kafka import Kafka
from tests.support.batch import BatchProject

COUNT = 50_000
KEYS = 100
UNDECODABLE, BROKEN, RAISED, RAISED_LATER, REFUSED = BAD = (5_000, 15_000, 25_000, 35_000, 45_000)
"""Ids of bad messages, one in 10,000. They have the same key."""

CLEAN = """
@transformer
def clean(messages: list[dict], *args, **kwargs):
    for message in messages:
        if message["id"] == BAD:
            raise ValueError("clean does not like it")
        message["cleaned"] = True
    return messages
"""
ENRICH = """
@transformer
def enrich(messages: list[dict], *args, **kwargs):
    if any(message["id"] == BAD for message in messages):
        raise ValueError("enrich does not like it")
    return [{**message, "text": "x" * (30_000 if message["id"] == 45_000 else 10)} for message in messages]
"""
SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}


class Pipeline:
    """A project with the pipeline `p`: read → clean → enrich → write."""

    def __init__(self, folder: Path, kafka: Kafka, client: str, **keys: Any) -> None:
        self.kafka = kafka
        self.client = client
        self.project = BatchProject(folder)
        self.project.type = "streaming"
        self.project.keys.update(keys)
        self.source = kafka.create_topic(partitions=3)
        # One partition: new messages have no key, and their order is looked at.
        self.sink = kafka.create_topic(config={"max.message.bytes": "20000"})

    def write(
        self, *, clean: int = -1, enrich: int = -1, serde: str = "JSON", schema: Any = True, group: str = "g"
    ) -> None:
        """Write the files of the blocks."""
        self.project.entries["blocks"].clear()
        self.project.write("schema.json", json.dumps(schema))
        serde_config = {"serialization_method": serde, **({"schema": "schema.json"} if serde == "JSON" else {})}
        source: dict[str, Any] = {"topic": self.source, "auto_offset_reset": "earliest", "batch_size": 500}
        source |= {"consumer_group": f"{group}-{self.source}", "serde_config": serde_config}
        self._end("read", "data_loader", source, [])
        self.project.block("clean", CLEAN.replace("BAD", str(clean)))
        self.project.block("enrich", ENRICH.replace("BAD", str(enrich)))
        self._end("write", "data_exporter", {"topic": self.sink}, ["enrich"])
        self.project.save()

    def _end(self, uuid: str, type: str, config: dict[str, Any], upstream: list[str]) -> None:
        connection = {"connector_type": "kafka", "bootstrap_server": self.kafka.bootstrap, "client": self.client}
        self.project.block(
            uuid, yaml.safe_dump({**connection, **config}), type=type, language="yaml", upstream=upstream
        )

    def arrived(self) -> list[dict[str, Any]]:
        """What the sink's topic holds."""
        return [json.loads(record.value) for record in self.kafka.consume_all(self.sink)]

    def letters(self) -> list[dict[str, Any]]:
        """What `dead-letters list` says."""
        letters: list[dict[str, Any]] = json.loads(
            self.project.command("dead-letters", "list", "p", "--json").expect(0).out
        )
        return letters

    def retry(self, code: int, *options: str) -> str:
        """Send letters again."""
        return self.project.command("dead-letters", "retry", "p", *options, seconds=120).expect(code).out


def message(number: int) -> dict[str, Any]:
    value: Any = {"id": number, "key": number % KEYS}
    if number == BROKEN:
        value = {"id": str(number)}
    text = json.dumps(value) if number != UNDECODABLE else '{"id": 5000, '
    return {"key": b"k%d" % (number % KEYS), "value": text.encode(), "headers": [("n", b"%d" % number)]}


def assert_in_order(rows: Sequence[dict[str, Any]]) -> None:
    """Assert that the messages of each key have arrived in their order."""
    by_key: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        by_key[int(row["id"]) % KEYS].append(int(row["id"]))
    for ids in by_key.values():
        assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("delivery", "client", "topic"),
    [
        ("at-least-once", "kafka-python", False),
        ("at-least-once", "confluent", True),
        ("exactly-once", "confluent", True),
        ("exactly-once", "kafka-python", True),
    ],
)
def test_case_30_poison_at_five_stages(
    tmp_path: Path, kafka_server: Kafka, delivery: str, client: str, topic: bool
) -> None:
    keys: dict[str, Any] = {"dead_letter": {"topic": f"dead-{secrets.token_hex(4)}"}} if topic else {}
    pipeline = Pipeline(tmp_path / "shop", kafka_server, client, delivery=delivery, **keys)
    kafka_server.produce(pipeline.source, [message(number) for number in range(COUNT)])
    origins = {
        dict(record.headers)["n"]: (record.partition, record.offset)
        for record in kafka_server.consume_all(pipeline.source)
        if int(dict(record.headers)["n"]) in BAD
    }
    pipeline.write(clean=RAISED, enrich=RAISED_LATER, schema=SCHEMA)
    pipeline.project.run("--until-caught-up", seconds=180).expect(0)

    rows = pipeline.arrived()
    assert {row["id"] for row in rows} == set(range(COUNT)) - set(BAD)
    if delivery == "exactly-once":
        assert len(rows) == COUNT - len(BAD)
    assert_in_order(rows)
    letters = {(letter["partition"], letter["offset"]): letter for letter in pipeline.letters()}
    assert set(letters) == set(origins.values())
    stages = [letters[origins[b"%d" % number]] for number in BAD]
    assert [letter["stage"] for letter in stages] == ["decode", "decode", "clean", "enrich", "write"]
    assert {(letter["topic"], letter["key"]) for letter in stages} == {(pipeline.source, "k0")}
    assert all(letter["error"] and letter["time"] for letter in stages)
    shown = json.loads(pipeline.project.command("dead-letters", "show", "p", "--json").expect(0).out)
    by_stage = {letter["offset"]: letter for letter in shown}
    first = by_stage[origins[b"5000"][1]]
    assert (first["value"], first["headers"]) == ('{"id": 5000, ', [["n", "5000"]])
    assert "clean does not like it" in by_stage[origins[b"25000"][1]]["traceback"]

    # The first of the key is refused again, so those behind it wait.
    assert "refused again: 1" in pipeline.retry(1)
    assert len(pipeline.letters()) == len(BAD)
    before = len(pipeline.arrived())

    # `STRING` takes what is no JSON, and the schema is gone.
    fix = "messages = [fixed(message) if isinstance(message, str) else message for message in messages]"
    pipeline.write(serde="STRING")
    code = CLEAN.replace("for message in messages:", f"{fix}\n    for message in messages:", 1).replace("BAD", "-1")
    head = "import json, re\ndef fixed(text):\n    return {'id': int(re.search(r'[0-9]+', text)[0]), 'fixed': True}\n"
    pipeline.project.write("transformers/clean.py", head + code)
    _raise_limit(kafka_server, pipeline.sink)
    assert "Sent again: 5 messages; refused again: 0" in pipeline.retry(0)
    assert pipeline.letters() == []
    again = [int(row["id"]) for row in pipeline.arrived()[before:]]
    assert set(again) == set(BAD)
    assert sorted(again) == again


def _raise_limit(kafka: Kafka, topic: str) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType

    kafka.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "1000000"})])


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_case_25_what_the_dead_letter_topic_cannot_take(tmp_path: Path, kafka_server: Kafka, delivery: str) -> None:
    letters = kafka_server.create_topic(config={"max.message.bytes": "2000"})
    pipeline = Pipeline(
        tmp_path / "shop", kafka_server, "kafka-python", delivery=delivery, dead_letter={"topic": letters}
    )
    large = {"key": b"k1", "value": b"not JSON" + b"x" * 5000}
    kafka_server.produce(pipeline.source, [message(1), large, {"key": b"k1", "value": b"not JSON"}, message(2)])
    pipeline.write()
    pipeline.project.run("--until-caught-up").expect(0)
    assert sorted(row["id"] for row in pipeline.arrived()) == [1, 2]
    assert len(kafka_server.consume_all(letters)) == 1
    listed = pipeline.letters()
    assert [letter["key"] for letter in listed] == ["k1", "k1"]
    with project_store(Project.open(pipeline.project.root)) as store:
        assert [letter.value for letter in store.dead_letters("p")] == [large["value"]]
    both = [str(letter["id"]) for letter in listed]
    pipeline.project.command("dead-letters", "discard", "p", *both).expect(0, "Discarded 2 dead letters")
    assert pipeline.letters() == []


def test_parked_messages_of_a_key_are_sent_in_their_order(tmp_path: Path, kafka_server: Kafka) -> None:
    pipeline = Pipeline(
        tmp_path / "shop", kafka_server, "confluent", park="key", dead_letter={"topic": f"dead-{secrets.token_hex(4)}"}
    )
    kafka_server.produce(pipeline.source, [message(number) for number in range(1000)])
    pipeline.write(clean=200, enrich=301)
    pipeline.project.run("--until-caught-up").expect(0)
    waiting = [*range(200, 1000, 100), *range(301, 1000, 100)]
    assert sorted(row["id"] for row in pipeline.arrived()) == sorted(set(range(1000)) - set(waiting))
    kafka_server.produce(pipeline.source, [message(1000), message(1001), message(1002)])
    pipeline.project.run("--until-caught-up").expect(0)
    assert [row["id"] for row in pipeline.arrived()[1000 - len(waiting) :]] == [1002]
    assert len(pipeline.letters()) == len(waiting) + 2
    pipeline.write()
    pipeline.retry(0)
    assert pipeline.letters() == []
    assert_in_order(pipeline.arrived())
    assert len(pipeline.arrived()) == 1003


@pytest.mark.parametrize("topic", [False, True])
def test_a_message_that_is_read_again_is_the_same_letter(tmp_path: Path, kafka_server: Kafka, topic: bool) -> None:
    keys: dict[str, Any] = {"dead_letter": {"topic": kafka_server.create_topic(partitions=3)}} if topic else {}
    pipeline = Pipeline(tmp_path / "shop", kafka_server, "confluent", **keys)
    bad = [{"key": b"k", "value": b"not JSON"}, {"value": b"nor this"}]
    kafka_server.produce(pipeline.source, [*map(message, range(20)), *bad])
    for group in ("g", "h"):
        pipeline.write(clean=7, enrich=11, group=group)
        pipeline.project.run("--until-caught-up").expect(0)
    letters = pipeline.letters()
    assert sorted(letter["stage"] for letter in letters) == ["clean", "decode", "decode", "enrich"]
    assert {letter["times"] for letter in letters} == {2}
    pipeline.project.command("dead-letters", "discard", "p", "--all").expect(0)
    assert pipeline.letters() == []
