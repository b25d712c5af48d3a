"""Records of taps in a schema registry, and data of JSON in Avro's types."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest

from streamline.connectors.kafka.serde_settings import RegistrySettings, Serde
from streamline.connectors.kafka.serialization.base import UnwritableError
from streamline.connectors.kafka.serialization.formats import make_decoder, make_serializer
from streamline.connectors.kafka.serialization.record_schemas import avro_schema, schema_noter
from streamline.errors import StreamlineError
from streamline.flow.items import Origin, Schema
from tests.support.registry import RegistryStub

COLUMNS = {
    "id": {"type": "integer"},
    "name": {"type": ["null", "string"]},
    "price": {"type": ["null", "number"], "multipleOf": 0.01},
    "weight": {"type": "number"},
    "at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
    "day": {"type": "string", "format": "date"},
    "ok": {"type": "boolean"},
    "any": {},
    "place": {"type": ["null", "object"], "properties": {"city": {"type": "string"}}},
    "tags": {"type": "array", "items": {"type": "string"}},
    "free": {"type": "object"},
}
RECORD = {
    "id": 1,
    "name": "x",
    "price": 9.9,
    "weight": 1,
    "at": "2026-01-02T03:04:05.000006+00:00",
    "day": "2026-01-02",
    "ok": True,
    "any": [1, {"a": None}],
    "place": {"city": "Bern"},
    "tags": ["a", None],
    "free": {"b": 1},
}


def noted(stub: RegistryStub, method: Any, schema: Schema) -> Serde:
    serde = Serde(method=method, registry=RegistrySettings(urls=(stub.url,)))
    note = schema_noter(serde)
    assert note is not None
    note(schema)
    return serde


def item(stream: str, columns: Any = COLUMNS) -> Schema:
    return Schema(stream, {"type": "object", "properties": columns}, ["id"])


def test_records_become_avro(stub: RegistryStub) -> None:
    serde = noted(stub, "AVRO", item("shop-items"))
    value = make_serializer(serde).encode(RECORD, "items", "shop-items")
    assert value is not None
    assert make_decoder(serde).decode(value, Origin("items", 0, 0, None, value)) == {
        **RECORD,
        "price": Decimal("9.90"),
        "weight": 1.0,
        "at": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        "day": dt.date(2026, 1, 2),
        "any": '[1,{"a":null}]',
        "free": '{"b":1}',
    }
    (schema,) = stub.schemas("items-value")
    assert schema == json.loads(json.dumps(avro_schema(item("shop-items"))))
    assert schema["name"] == "shop_items"


def test_a_record_needs_its_keys_and_nothing_else(stub: RegistryStub) -> None:
    serializer = make_serializer(noted(stub, "AVRO", item("few")))
    assert serializer.encode({"id": 1}, "few", "few") is not None
    for record in (
        {"name": "x"},
        {"id": 1, "more": 1},
        {"id": 1.5},
        {"id": 1, "at": "2026-01-02"},
        {"id": 1, "price": 0.001},
    ):
        with pytest.raises(UnwritableError):
            serializer.encode(record, "few", "few")


def test_a_new_column_is_a_new_version(stub: RegistryStub) -> None:
    serde = noted(stub, "AVRO", item("grown", {"id": {"type": "integer"}}))
    serializer = make_serializer(serde)
    serializer.encode({"id": 1}, "grown", "grown")
    for _ in range(2):
        noted(stub, "AVRO", item("grown", {"id": {"type": "integer"}, "name": {"type": "string"}}))
        serializer.encode({"id": 1, "name": "x"}, "grown", "grown")
    assert [[field["name"] for field in each["fields"]] for each in stub.schemas("grown-value")] == [
        ["id"],
        ["id", "name"],
    ]


def test_records_with_a_json_schema(stub: RegistryStub) -> None:
    serde = noted(stub, "JSON_SCHEMA", item("plain"))
    serializer = make_serializer(serde)
    record = {**RECORD, "tags": ["a"]}
    value = serializer.encode(record, "plain", "plain")
    assert value is not None
    assert make_decoder(serde).decode(value, Origin("plain", 0, 0, None, value)) == record
    assert stub.schemas("plain-value")[0]["title"] == "plain"
    with pytest.raises(UnwritableError):
        serializer.encode({"id": "x"}, "plain", "plain")


def test_a_column_that_avro_has_no_name_for(stub: RegistryStub) -> None:
    with pytest.raises(StreamlineError) as caught:
        noted(stub, "AVRO", item("named", {"first name": {"type": "string"}}))
    assert caught.value.code == "schema.not_avro"


def test_other_formats_have_no_use_for_the_schemas_of_records() -> None:
    registry = RegistrySettings(urls=("http://registry",))
    for serde in (Serde(), Serde(method="PROTOBUF", registry=registry), Serde(method="STRING")):
        assert schema_noter(serde) is None
