"""Avro, Protobuf and JSON Schema between topics of a real Kafka, with a schema registry."""

from __future__ import annotations

import json
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamline.connectors.kafka.serde_settings import RegistrySettings, Serde
from streamline.connectors.kafka.serialization.formats import make_decoder
from streamline.connectors.kafka.serialization.framed import head, schema_id
from streamline.flow.items import Origin
from tests.services.kafka import Kafka
from tests.support.project import Block, Project
from tests.support.registry import RegistryStub, registry_stub

pytestmark = pytest.mark.services

SECONDS = 120.0
ID = {"name": "id", "type": "long"}
ORDER = {"type": "record", "name": "Order", "fields": [ID]}
WITH_NOTE = {**ORDER, "fields": [ID, {"name": "note", "type": ["null", "string"], "default": None}]}
ADD_ONE = """
@transformer
def add_one(messages: list[dict], *args, **kwargs):
    for message in messages:
        if message is not None:
            message["id"] += 1
    return messages
"""


def make(folder: Path, kafka: Kafka, source: dict[str, Any], sink: dict[str, Any], code: str | None = None) -> Project:
    """Make a project with the pipeline `p` from one topic to another."""
    project = Project(folder / "shop")
    common = {"connector_type": "kafka", "bootstrap_server": kafka.bootstrap}
    group = {"consumer_group": f"g-{secrets.token_hex(4)}", "auto_offset_reset": "earliest"}
    blocks = [
        Block("read", "data_loader", yaml.safe_dump({**common, **group, **source})),
        Block("write", "data_exporter", yaml.safe_dump({**common, **sink})),
    ]
    if code is not None:
        blocks.append(Block("change", "transformer", code, language="python"))
    project.pipeline("p", *blocks, type="streaming")
    return project


def avro(stub: RegistryStub, **more: Any) -> dict[str, Any]:
    return {"serde_config": {"serialization_method": "AVRO", "schema_registry_url": stub.url, **more}}


def values(kafka: Kafka, topic: str) -> list[bytes | None]:
    return [record.value for record in kafka.consume_all(topic)]


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_cases_27_and_28_versions_tombstones_garbage_and_a_registry_that_is_away_for_a_while(
    tmp_path: Path, kafka_server: Kafka, client: str
) -> None:
    orders, copies = kafka_server.create_topic(), kafka_server.create_topic()
    with registry_stub() as stub:
        old, new = stub.add(f"{orders}-value", ORDER), stub.add(f"{orders}-value", WITH_NOTE)
        kafka_server.produce(
            orders,
            [head(old) + b"\x02", {"value": None, "key": b"k"}, b"abc", head(new) + b"\x04\x02\x08gift", head(99)],
        )
        project = make(
            tmp_path,
            kafka_server,
            {"topic": orders, "client": client, **avro(stub)},
            {"topic": copies, "client": client, **avro(stub)},
            ADD_ONE,
        )
        stub.faults = [503, 429, 500]
        project.command("run", "p", "--until-caught-up", seconds=SECONDS).expect(0)
        assert values(kafka_server, copies) == [head(old) + b"\x04", None, head(new) + b"\x06\x02\x08gift"]
        assert stub.schemas(f"{copies}-value") == [ORDER, WITH_NOTE]
        letters = project.dead_letters()
        assert [(letter["offset"], letter["stage"]) for letter in letters] == [(2, "decode"), (4, "decode")]


def test_values_that_nothing_decodes_keep_their_bytes_and_bring_their_schema(
    tmp_path: Path, kafka_server: Kafka
) -> None:
    orders, copies = kafka_server.create_topic(), kafka_server.create_topic()
    with registry_stub() as stub:
        number = stub.add(f"{orders}-value", ORDER)
        sent = [head(number) + b"\x02", None, head(number) + b"\x04"]
        kafka_server.produce(orders, [{"key": b"k", "value": value} for value in sent])
        project = make(tmp_path, kafka_server, {"topic": orders, **avro(stub)}, {"topic": copies, **avro(stub)})
        project.command("run", "p", "--until-caught-up", seconds=SECONDS).expect(0)
        assert values(kafka_server, copies) == sent
        assert stub.schemas(f"{copies}-value") == [ORDER]


def test_json_becomes_avro_of_a_schema_s_file_and_what_does_not_fit_is_a_dead_letter(
    tmp_path: Path, kafka_server: Kafka
) -> None:
    orders, copies = kafka_server.create_topic(), kafka_server.create_topic()
    kafka_server.produce(orders, [b'{"id":1}', b'{"id":99999999999999999999}', b'{"id":2,"note":"x"}', b'{"note":"y"}'])
    with registry_stub() as stub:
        project = make(tmp_path, kafka_server, {"topic": orders}, {"topic": copies, **avro(stub, schema="order.avsc")})
        project.write("order.avsc", json.dumps(WITH_NOTE))
        project.command("run", "p", "--until-caught-up", seconds=SECONDS).expect(0)
        first, second = values(kafka_server, copies)
        assert first is not None
        assert second is not None
        assert (first[5:], second[5:]) == (b"\x02\x00", b"\x04\x02\x02x")
        assert schema_id(first) == schema_id(second)
        assert [letter["stage"] for letter in project.dead_letters()] == ["write", "write"]


def test_a_schema_that_its_subject_refuses_ends_the_run_and_commits_nothing(
    tmp_path: Path, kafka_server: Kafka
) -> None:
    orders, copies = kafka_server.create_topic(), kafka_server.create_topic()
    with registry_stub() as stub:
        number = stub.add(f"{orders}-value", ORDER)
        stub.add(f"{copies}-value", WITH_NOTE)
        stub.frozen.add(f"{copies}-value")
        kafka_server.produce(orders, [head(number) + b"\x02"])
        project = make(
            tmp_path, kafka_server, {"topic": orders, **avro(stub)}, {"topic": copies, **avro(stub)}, ADD_ONE
        )
        run = project.command("run", "p", "--until-caught-up", seconds=SECONDS).expect(1)
        assert f"{copies}-value" in run.text
        assert values(kafka_server, copies) == []
        assert project.dead_letters() == []


def test_schemas_without_a_registry(tmp_path: Path, kafka_server: Kafka) -> None:
    orders, copies = kafka_server.create_topic(), kafka_server.create_topic()
    kafka_server.produce(orders, [b'{"id":1}', b'{"id":"x"}', b'{"id":18446744073709551616}'])
    serde = {"serialization_method": "JSON", "schema": "order.json"}
    project = make(tmp_path, kafka_server, {"topic": orders, "serde_config": serde}, {"topic": copies})
    project.write("order.json", json.dumps({"type": "object", "properties": {"id": {"type": "integer"}}}))
    project.command("run", "p", "--until-caught-up", seconds=SECONDS).expect(0)
    assert values(kafka_server, copies) == [b'{"id":1}', b'{"id":18446744073709551616}']
    assert [letter["offset"] for letter in project.dead_letters()] == [1]
    project.command("check", "p", seconds=SECONDS).expect(0, "0 messages behind")


def test_records_of_a_tap_become_avro_with_the_schema_of_the_tap(tmp_path: Path, kafka_server: Kafka) -> None:
    topic = kafka_server.create_topic()
    with registry_stub() as stub:
        project = make(tmp_path, kafka_server, {"topic": "unused"}, {"topic": topic, **avro(stub)})
        with closing(sqlite3.connect(project.root / "shop.db")) as db, db:
            db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT, at TIMESTAMP)")
            db.execute("INSERT INTO orders VALUES (1, 'x', '2026-01-02T03:04:05'), (2, NULL, NULL)")
        tap = {"source": "tap-sqlite", "config": {"path": "shop.db"}, "streams": {"orders": {}}}
        project.write("data_loaders/read.yaml", yaml.safe_dump(tap))
        project.command("run", "p", "--until-caught-up", seconds=SECONDS).expect(0)
        records = kafka_server.consume_all(topic)
        decoder = make_decoder(Serde(method="AVRO", registry=RegistrySettings(urls=(stub.url,))))
        data = [decoder.decode(record.value, Origin(topic, 0, 0, None, None)) for record in records]
        assert [(each["id"], each["name"]) for each in data] == [(1, "x"), (2, None)]
        assert [record.key for record in records] == [b"1", b"2"]
        (schema,) = stub.schemas(f"{topic}-value")
        assert (schema["name"], [field["name"] for field in schema["fields"]]) == ("orders", ["id", "name", "at"])
        assert project.dead_letters() == []
