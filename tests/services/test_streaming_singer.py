"""Taps and targets around a real Kafka."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from tests.services.kafka import Kafka
from tests.services.project import RUN_SECONDS, MakeCommunity
from tests.support.processes import wait_until
from tests.support.project import Project

pytestmark = pytest.mark.services

SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": ["null", "string"]}}}
WIDER = {**SCHEMA, "properties": {**SCHEMA["properties"], "price": {"type": ["null", "number"]}}}  # type: ignore[dict-item]
TAP = """
import json, sys
schema = {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": ["null", "string"]}}}
users = {"tap_stream_id": "users", "stream": "users", "schema": schema, "key_properties": ["id"], "metadata": []}
if "--discover" in sys.argv: sys.exit(print(json.dumps({"streams": [users]})))
for line in open("messages.jsonl"): print(line, end="", flush=True)
"""
TARGET = """
import sys
with open("got.jsonl", "a") as file:
    for line in sys.stdin: file.write(line)
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project with a tap that says `messages.jsonl`, and a target that writes `got.jsonl` and says nothing."""
    made = Project(tmp_path / "shop")
    made.write("tap.py", TAP)
    made.write("target.py", TARGET)
    programs = {"tap-said": "tap.py", "target-got": "target.py"}
    plugins = {name: {"command": [sys.executable, file]} for name, file in programs.items()}
    made.write("streamline.yaml", yaml.safe_dump({"name": "shop", "plugins": plugins}))
    made.env["STREAMLINE_INTERRUPT_SECONDS"] = "60"
    yield made
    made.close()


def pipeline(
    project: Project, name: str, source: Mapping[str, Any], sink: Mapping[str, Any], code: str | None = None
) -> None:
    """Write a streaming pipeline source → (transformer) → sink."""
    uuids = [f"{name}_load", *([f"{name}_change"] if code is not None else []), f"{name}_export"]
    kinds = ["data_loader", *(["transformer"] if code is not None else []), "data_exporter"]
    blocks: list[dict[str, Any]] = [
        {
            "uuid": uuid,
            "type": kind,
            "language": "python" if kind == "transformer" else "yaml",
            "upstream_blocks": uuids[number - 1 : number] if number else [],
            "downstream_blocks": uuids[number + 1 : number + 2],
        }
        for number, (uuid, kind) in enumerate(zip(uuids, kinds, strict=True))
    ]
    project.write(f"pipelines/{name}/__init__.py", "")
    project.write(
        f"pipelines/{name}/metadata.yaml",
        yaml.safe_dump({"name": name, "uuid": name, "type": "streaming", "blocks": blocks}),
    )
    project.write(f"data_loaders/{uuids[0]}.yaml", yaml.safe_dump(dict(source)))
    project.write(f"data_exporters/{uuids[-1]}.yaml", yaml.safe_dump(dict(sink)))
    if code is not None:
        project.write(f"transformers/{uuids[1]}.py", code)


def kafka(server: Kafka, **keys: Any) -> dict[str, Any]:
    return {"connector_type": "kafka", "bootstrap_server": server.bootstrap, **keys}


def read(server: Kafka, topics: str | Sequence[str], group: str, **keys: Any) -> dict[str, Any]:
    return kafka(server, topics=topics, consumer_group=group, auto_offset_reset="earliest", **keys)


def caught_up(project: Project, name: str) -> None:
    project.command("run", name, "--until-caught-up", seconds=RUN_SECONDS).expect(0)


def rows(root: Path, query: str) -> list[Any]:
    with closing(duckdb.connect(str(root / "out.duckdb"), read_only=True)) as db:
        return db.sql(query).fetchall()


def committed(server: Kafka, group: str) -> int:
    """The sum of a group's offsets; 0 while nobody coordinates the group."""
    from kafka.errors import KafkaError

    try:
        return sum(server.committed(group).values())
    except KafkaError:
        return 0


def shop(root: Path, count: int) -> list[tuple[Any, ...]]:
    """Make the shop's tables; return the orders."""
    made = [(n, f"customer {n}", n * 1.25, f"2026-01-{1 + n % 28:02}T00:00:00") for n in range(1, count + 1)]
    with closing(sqlite3.connect(root / "shop.db")) as db, db:
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT, price REAL, at TIMESTAMP)")
        db.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", made)
    return made


SQLITE: dict[str, Any] = {
    "source": "tap-sqlite",
    "config": {"path": "shop.db"},
    "streams": {
        "orders": {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "unique_constraints": ["id"]}
    },
}


def test_from_a_tap_through_kafka_into_a_table(project: Project, kafka_server: Kafka) -> None:
    orders = shop(project.root, 500)
    prefix = kafka_server.create_topic()
    topic = kafka_server.create_topic(f"{prefix}-orders", partitions=3)
    schemas = kafka_server.create_topic(f"{prefix}-schemas")
    sink = kafka(kafka_server, topic=f"{prefix}-{{stream}}", schemas="topic", schema_topic=schemas)
    pipeline(project, "up", SQLITE, sink)
    caught_up(project, "up")
    messages = kafka_server.consume_all(topic)
    assert sorted(int(message.key) for message in messages) == [order[0] for order in orders]
    assert all(json.loads(message.value)["id"] == int(message.key) for message in messages)
    assert len({message.partition for message in messages}) == 3
    (schema,) = kafka_server.consume_all(schemas)
    assert json.loads(schema.value)["key_properties"] == ["id"]

    settings = {topic: {"destination_table": "orders", "unique_constraints": ["id"]}}
    target = {"destination": "target-duckdb", "config": {"path": "out.duckdb"}, "streams": settings}
    pipeline(project, "down", read(kafka_server, topic, prefix), target)
    caught_up(project, "down")
    assert rows(project.root, "SELECT id, name, price FROM orders ORDER BY id") == [order[:3] for order in orders]
    assert committed(kafka_server, prefix) == len(orders)


def test_a_transformer_between_changes_records_and_they_keep_their_keys(project: Project, kafka_server: Kafka) -> None:
    shop(project.root, 20)
    topic = kafka_server.create_topic()
    code = (
        "@transformer\ndef f(messages, **kwargs):\n    return [{**each, 'twice': 2 * each['id']} for each in messages]"
    )
    pipeline(project, "up", SQLITE, kafka(kafka_server, topic=topic), code)
    caught_up(project, "up")
    messages = kafka_server.consume_all(topic)
    assert [(int(message.key), json.loads(message.value)["twice"]) for message in messages] == [
        (number, 2 * number) for number in range(1, 21)
    ]


def test_singers_format_restores_schemas_records_and_versions(project: Project, kafka_server: Kafka) -> None:
    def record(number: int, version: int, **more: Any) -> dict[str, Any]:
        row = {"id": number, "name": f"n{number}", **more}
        return {"type": "RECORD", "stream": "users", "record": row, "version": version}

    def schema(schema: Any) -> dict[str, Any]:
        return {"type": "SCHEMA", "stream": "users", "schema": schema, "key_properties": ["id"]}

    def state(number: int) -> dict[str, Any]:
        return {"type": "STATE", "value": {"bookmarks": {"users": {"id": number}}}}

    said: list[dict[str, Any]] = [
        schema(SCHEMA),
        *(record(number, 1) for number in range(1, 6)),
        state(5),
        schema(WIDER),
        *(record(number, 2, price=number + 0.5) for number in range(3, 9)),
        {"type": "ACTIVATE_VERSION", "stream": "users", "version": 2},
        state(8),
    ]
    project.write("messages.jsonl", "".join(json.dumps(message) + "\n" for message in said))
    topic = kafka_server.create_topic(partitions=3)
    pipeline(project, "up", {"source": "tap-said"}, kafka(kafka_server, topic=topic, format="singer"))
    caught_up(project, "up")
    messages = kafka_server.consume_all(topic)
    assert {message.partition for message in messages} == {0}
    assert [json.loads(message.value) for message in messages] == [each for each in said if each["type"] != "STATE"]
    assert [message.key for message in messages][:3] == [None, b"1", b"2"]

    source = read(kafka_server, topic, topic, format="singer")
    pipeline(project, "down", source, {"destination": "target-got"})
    caught_up(project, "down")
    got = [json.loads(line) for line in (project.root / "got.jsonl").read_text().splitlines()]
    assert [each for each in got if each["type"] != "STATE"] == [each for each in said if each["type"] != "STATE"]

    # A later run reads on behind the SCHEMA that it needs.
    kafka_server.produce(topic, [json.dumps(record(9, 2, price=1)).encode()], partition=0)
    (project.root / "got.jsonl").unlink()
    caught_up(project, "down")
    got = [json.loads(line) for line in (project.root / "got.jsonl").read_text().splitlines()]
    assert [each for each in got if each["type"] != "STATE"] == [schema(WIDER), record(9, 2, price=1)]

    project.write("streamline.yaml", "name: shop\n")
    pipeline(
        project,
        "table",
        source | {"consumer_group": f"{topic}-2"},
        {"destination": "target-duckdb", "config": {"path": "out.duckdb"}},
    )
    caught_up(project, "table")
    assert rows(project.root, "SELECT id, price FROM users ORDER BY id") == [
        (3, 3.5),
        (4, 4.5),
        (5, 5.5),
        (6, 6.5),
        (7, 7.5),
        (8, 8.5),
        (9, 1.0),
    ]


def test_a_community_target_is_kept_durable_by_sessions(
    community: MakeCommunity, kafka_server: Kafka, tmp_path: Path
) -> None:
    project = community("target-jsonl")
    project.write("streamline.yaml", yaml.safe_dump({"name": "shop", **project.settings}))
    project.env["STREAMLINE_INTERRUPT_SECONDS"] = "60"
    topic = kafka_server.create_topic(partitions=2)
    kafka_server.produce(topic, [{"key": b"%d" % n, "value": b'{"id":%d}' % n} for n in range(100)])
    target = {"destination": "target-jsonl", "config": {"destination_path": "."}, "session_interval": 1}
    pipeline(project, "down", read(kafka_server, topic, topic), target)
    running = project.start("run", "down")
    wait_until(lambda: committed(kafka_server, topic) == 100, "the first messages are proven", 300)
    kafka_server.produce(topic, [{"value": b'{"id":%d,"more":true}' % n} for n in range(100, 150)])
    wait_until(lambda: committed(kafka_server, topic) == 150, "later messages are proven", 60)
    kafka_server.produce(topic, [{"value": b'{"id":%d}' % n} for n in range(150, 160)])
    wait_until(lambda: "150" in "".join(each.read_text() for each in tmp_path.glob("*.jsonl")), "they are written", 60)
    running.signal(signal.SIGTERM)
    running.finish(60).expect(0)
    lines = [json.loads(line)["id"] for file in tmp_path.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert sorted(lines) == list(range(160))
    assert committed(kafka_server, topic) == 160
