"""JSON that fits a schema, from a file or from a registry."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from streamline.connectors.kafka.serde_settings import RegistrySettings, Serde
from streamline.connectors.kafka.serialization.base import UndecodableError, UnwritableError
from streamline.connectors.kafka.serialization.formats import make_decoder, make_serializer
from streamline.connectors.kafka.serialization.framed import head
from streamline.errors import ConfigError
from streamline.flow.items import Origin
from tests.support.registry import RegistryStub

ORDER = {
    "title": "Order",
    "type": "object",
    "properties": {"id": {"type": "integer"}, "at": {"type": "string"}},
    "required": ["id"],
    "additionalProperties": False,
}
ORIGIN = Origin("orders", 0, 0, None, None)


def by_file(folder: Path, schema: Any = ORDER) -> Serde:
    path = folder / "order.json"
    path.write_text(json.dumps(schema))
    return Serde(schema=path)


def by_registry(stub: RegistryStub, **more: Any) -> Serde:
    return Serde(method="JSON_SCHEMA", registry=RegistrySettings(urls=(stub.url,)), **more)


def test_values_that_fit_pass(tmp_path: Path) -> None:
    decoder = make_decoder(by_file(tmp_path))
    values = [b'{"id": 18446744073709551616}', None, b'{"id":1,"at":"x"}']
    assert decoder.decode_batch(values, [ORIGIN] * 3) == [{"id": 2**64}, None, {"id": 1, "at": "x"}]


@pytest.mark.parametrize("value", [b"{}", b'{"id":"x"}', b'{"id":1,"more":2}', b"{", b"5"])
def test_values_that_break_the_schema_are_undecodable(tmp_path: Path, value: bytes) -> None:
    decoder = make_decoder(by_file(tmp_path))
    with pytest.raises(UndecodableError):
        decoder.decode(value, ORIGIN)
    with pytest.raises(UndecodableError):
        decoder.decode_batch([b'{"id":1}', value], [ORIGIN] * 2)


def test_data_is_checked_as_it_is_written(tmp_path: Path) -> None:
    serializer = make_serializer(by_file(tmp_path))
    data = {"id": 2**70, "at": dt.date(2026, 1, 2)}
    assert serializer.encode(data, "t", "s") == b'{"id":1180591620717411303424,"at":"2026-01-02"}'
    assert serializer.encode(b'{"id" : 1}', "t", "s") == b'{"id" : 1}'
    for wrong in ({"id": "x"}, {}, b"{}"):
        with pytest.raises(UnwritableError):
            serializer.encode(wrong, "t", "s")


@pytest.mark.parametrize("schema", [{"type": "integr"}, {"$ref": "http://example.com/other.json"}])
def test_a_file_that_is_no_schema_is_found_before_the_start(tmp_path: Path, schema: Any) -> None:
    for make in (make_decoder, make_serializer):
        with pytest.raises(ConfigError) as caught:
            make(by_file(tmp_path, schema))
        assert (caught.value.code, caught.value.where) == ("schema.invalid", str(tmp_path / "order.json"))


def test_a_registry(stub: RegistryStub, tmp_path: Path) -> None:
    file = by_file(tmp_path).schema
    value = make_serializer(by_registry(stub, schema=file)).encode({"id": 1}, "orders", "orders")
    assert value == head(1) + b'{"id":1}'
    assert stub.schemas("orders-value") == [ORDER]
    decoder = make_decoder(by_registry(stub))
    assert decoder.decode(value, ORIGIN) == {"id": 1}
    for wrong in (head(1) + b'{"id":"x"}', head(1) + b"{", b'{"id":1}'):
        with pytest.raises(UndecodableError):
            decoder.decode(wrong, ORIGIN)


def test_subjects_named_after_the_title(stub: RegistryStub, tmp_path: Path) -> None:
    settings = by_registry(stub, schema=by_file(tmp_path).schema, strategy="topic-record")
    make_serializer(settings).encode({"id": 1}, "orders", "orders")
    assert list(stub.subjects) == ["orders-Order"]


def test_schemas_that_refer_to_others(stub: RegistryStub) -> None:
    stub.add("place", {"type": "string", "minLength": 2}, "JSON")
    reference = {"name": "place.json", "subject": "place", "version": 1}
    schema = {"type": "object", "properties": {"at": {"$ref": "place.json"}}}
    number = stub.add("visits-value", schema, "JSON", [reference])
    decoder = make_decoder(by_registry(stub))
    assert decoder.decode(head(number) + b'{"at":"Bern"}', ORIGIN) == {"at": "Bern"}
    with pytest.raises(UndecodableError):
        decoder.decode(head(number) + b'{"at":"B"}', ORIGIN)
