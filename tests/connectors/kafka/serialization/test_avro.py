"""Avro with a schema registry: each value by its writer's schema, changes carried downstream, faults told apart."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.connectors.kafka.serde_settings import RegistrySettings, Serde
from streamline.connectors.kafka.serialization import framed
from streamline.connectors.kafka.serialization.base import UndecodableError, UnwritableError
from streamline.connectors.kafka.serialization.formats import make_decoder, make_serializer
from streamline.connectors.kafka.serialization.framed import head, schema_id
from streamline.connectors.kafka.serialization.registry import RegistryUnavailable
from streamline.errors import ConfigError, StreamlineError
from streamline.flow.items import Origin
from tests.support.registry import RegistryStub, registry_stub

ID = {"name": "id", "type": "long"}
ORDER = {"type": "record", "name": "Order", "namespace": "shop", "fields": [ID]}
WITH_NOTE = {**ORDER, "fields": [ID, {"name": "note", "type": ["null", "string"], "default": None}]}


def serde(stub: RegistryStub, **more: Any) -> Serde:
    return Serde(method="AVRO", registry=RegistrySettings(urls=(stub.url,)), **more)


def schema_file(folder: Path, schema: Any) -> Path:
    path = folder / "schema.avsc"
    path.write_text(json.dumps(schema))
    return path


def origin(value: bytes | None, topic: str = "orders", key: bytes | None = None) -> Origin:
    return Origin(topic, 0, 0, key, value)


def written(stub: RegistryStub, schema: Any, data: Any, folder: Path, topic: str = "orders") -> bytes:
    """Return a value of the topic, as a producer of the schema writes it."""
    value = make_serializer(serde(stub, schema=schema_file(folder, schema))).encode(data, topic, topic)
    assert value is not None
    return value


@given(st.integers(0, 2**32 - 1), st.binary())
def test_the_id_in_front(number: int, rest: bytes) -> None:
    assert schema_id(head(number) + rest) == number
    assert len(head(number)) == 5


def test_values_are_decoded_by_the_schema_that_they_were_written_with(stub: RegistryStub, tmp_path: Path) -> None:
    old = written(stub, ORDER, {"id": 1}, tmp_path)
    new = written(stub, WITH_NOTE, {"id": 2, "note": "gift"}, tmp_path)
    assert schema_id(old) != schema_id(new)
    decoder = make_decoder(serde(stub))
    values = [old, None, new, old]
    origins = [origin(value) for value in values]
    assert decoder.decode_batch(values, origins) == [{"id": 1}, None, {"id": 2, "note": "gift"}, {"id": 1}]
    assert len(stub.requests) == 2  # what was registered is known


def test_a_source_may_want_another_version(stub: RegistryStub, tmp_path: Path) -> None:
    old = written(stub, ORDER, {"id": 1}, tmp_path)
    decoder = make_decoder(serde(stub, schema=schema_file(tmp_path, WITH_NOTE)))
    assert decoder.decode(old, origin(old)) == {"id": 1, "note": None}


def test_logical_types_are_pythons(stub: RegistryStub, tmp_path: Path) -> None:
    fields = [
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ]
    data = {"price": Decimal("9.90"), "at": dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)}
    value = written(stub, {"type": "record", "name": "Price", "fields": fields}, data, tmp_path)
    assert make_decoder(serde(stub)).decode(value, origin(value)) == data


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"abc",
        b"{}",
        b"\x01\x00\x00\x00\x01\x02",
        b"\x00\x00\x00\x00",
        head(77) + b"\x02",
        head(1),
        head(1) + b"\x02\x02",
        head(2) + b"\x02",
    ],
)
def test_garbage_is_the_message_s_fault(stub: RegistryStub, tmp_path: Path, value: bytes) -> None:
    written(stub, ORDER, {"id": 1}, tmp_path)
    stub.add("other", {"type": "object"}, "JSON")
    with pytest.raises(UndecodableError):
        make_decoder(serde(stub)).decode(value, origin(value))


def test_a_tombstone_asks_nobody(stub: RegistryStub) -> None:
    assert make_decoder(serde(stub)).decode_batch([None, None], [origin(None)] * 2) == [None, None]
    assert make_serializer(serde(stub)).encode_batch([None], "orders", "orders") == [None]
    assert stub.requests == []


def test_a_registry_that_is_away_is_not_the_message_s_fault(tmp_path: Path) -> None:
    settings = Serde(method="AVRO", registry=RegistrySettings(urls=("http://127.0.0.1:1",)))
    decoder, serializer = make_decoder(settings), make_serializer(settings)
    for client in (decoder._registry, serializer._registry):  # type: ignore[attr-defined]
        client._retry_seconds = 0
    for attempt in range(2):
        with pytest.raises(RegistryUnavailable):
            decoder.decode(head(1) + b"\x02", origin(b""))
        with pytest.raises(RegistryUnavailable):
            serializer.encode({"id": attempt}, "orders", "orders")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"id": 1, "more": 2},
        {"id": "1"},
        {"id": 1.5},
        {"id": True},
        {"id": 2**70},
        {"id": None},
        [1],
        "text",
        {"id": 1, "note": 5},
    ],
)
def test_data_that_does_not_fit_is_refused_and_nothing_of_it_is_lost(
    stub: RegistryStub, tmp_path: Path, data: Any
) -> None:
    with pytest.raises(UnwritableError):
        written(stub, WITH_NOTE, data, tmp_path)
    assert stub.subjects == {}


def test_a_changed_schema_is_carried_downstream_with_its_first_message(stub: RegistryStub, tmp_path: Path) -> None:
    decoder, serializer = make_decoder(serde(stub)), make_serializer(serde(stub))
    for schema, data in ((ORDER, {"id": 1}), (WITH_NOTE, {"id": 2, "note": "gift"}), (ORDER, {"id": 3})):
        value = written(stub, schema, data, tmp_path, "carried")
        read = origin(value, "carried")
        decoded = decoder.decode(value, read)
        assert serializer.encode(decoded, "copies", "carried", read) == value
    assert stub.schemas("copies-value") == [ORDER, WITH_NOTE]


def test_a_message_of_a_transformer_gets_a_schema_that_it_fits(
    stub: RegistryStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framed, "MISFIT_SECONDS", 0.0)
    decoder, serializer = make_decoder(serde(stub)), make_serializer(serde(stub))
    for schema, data in ((ORDER, {"id": 1}), (WITH_NOTE, {"id": 2, "note": "gift"})):
        value = written(stub, schema, data, tmp_path, "mixed")
        decoder.decode(value, origin(value, "mixed"))
    value = serializer.encode({"id": 7, "note": "x"}, "results", "mixed")
    assert value is not None
    assert stub.schemas("results-value") == [WITH_NOTE]
    stub.add("results-value", {**ORDER, "fields": [ID, {"name": "total", "type": "double"}]})
    value = serializer.encode({"id": 7, "total": 1.5}, "results", "mixed")
    assert value is not None
    assert decoder.decode(value, origin(value, "results")) == {"id": 7, "total": 1.5}
    monkeypatch.setattr(framed, "MISFIT_SECONDS", 60.0)
    asked = len(stub.requests)
    for _ in range(3):
        with pytest.raises(UnwritableError):
            serializer.encode({"id": 7, "sum": 1}, "results", "mixed")
    assert len(stub.requests) == asked  # not for each message


def test_without_any_schema_the_sink_says_so(stub: RegistryStub) -> None:
    with pytest.raises(StreamlineError) as caught:
        make_serializer(serde(stub)).encode({"id": 1}, "nowhere", "nowhere")
    assert caught.value.code == "registry.schema_missing"


def test_a_schema_that_does_not_fit_its_subject_stops(stub: RegistryStub, tmp_path: Path) -> None:
    stub.add("orders-value", WITH_NOTE)
    stub.frozen.add("orders-value")
    with pytest.raises(StreamlineError) as caught:
        written(stub, ORDER, {"id": 1}, tmp_path)
    assert caught.value.code == "registry.incompatible"


def test_schemas_are_only_looked_up_where_they_must_not_be_registered(stub: RegistryStub, tmp_path: Path) -> None:
    settings = serde(stub, schema=schema_file(tmp_path, ORDER), register=False)
    with pytest.raises(StreamlineError) as caught:
        make_serializer(settings).encode({"id": 1}, "orders", "orders")
    assert caught.value.code == "registry.schema_missing"
    number = stub.add("orders-value", json.loads(settings.schema.read_text()) if settings.schema else None)
    value = make_serializer(settings).encode({"id": 1}, "orders", "orders")
    assert value == head(number) + b"\x02"


def test_values_that_nothing_decoded_keep_their_bytes_and_bring_their_schema(
    stub: RegistryStub, tmp_path: Path
) -> None:
    value = written(stub, ORDER, {"id": 1}, tmp_path)
    serializer = make_serializer(serde(stub))
    assert serializer.encode_batch([value, value, None, b""], "copies", "orders") == [value, value, None, b""]
    assert stub.schemas("copies-value") == [ORDER]
    for garbage in (b"abc", head(77) + b"\x02"):
        with pytest.raises(ValueError, match="schema"):
            serializer.encode(garbage, "copies", "orders")


def test_another_registry_gets_the_schema_under_its_own_id(stub: RegistryStub, tmp_path: Path) -> None:
    value = written(stub, ORDER, {"id": 1}, tmp_path, "moved")
    decoded = make_decoder(serde(stub)).decode(value, origin(value, "moved"))
    with registry_stub() as other:
        other.add("something", "string")
        copied = make_serializer(serde(other)).encode(decoded, "moved", "moved", origin(value, "moved"))
        assert copied == head(2) + value[5:]
        assert other.schemas("moved-value") == [ORDER]


@pytest.mark.parametrize(
    ("strategy", "for_key", "subject"),
    [
        ("topic", False, "orders-value"),
        ("topic", True, "orders-key"),
        ("record", False, "shop.Order"),
        ("topic-record", False, "orders-shop.Order"),
    ],
)
def test_subjects(stub: RegistryStub, tmp_path: Path, strategy: Any, for_key: bool, subject: str) -> None:
    settings = serde(stub, schema=schema_file(tmp_path, ORDER), strategy=strategy, for_key=for_key)
    make_serializer(settings).encode({"id": 1}, "orders", "orders")
    assert list(stub.subjects) == [subject]


def test_schemas_that_refer_to_others(stub: RegistryStub, tmp_path: Path) -> None:
    place = {"type": "record", "name": "Place", "namespace": "geo", "fields": [{"name": "city", "type": "string"}]}
    visit = {"type": "record", "name": "Visit", "fields": [{"name": "at", "type": "geo.Place"}]}
    stub.add("places", place)
    number = stub.add("visits-value", visit, references=[{"name": "geo.Place", "subject": "places", "version": 1}])
    value = head(number) + b"\x08Bern"
    data = make_decoder(serde(stub)).decode(value, origin(value, "visits"))
    assert data == {"at": {"city": "Bern"}}
    with registry_stub() as other:
        copied = make_serializer(serde(other)).encode(data, "visits", "visits", origin(value, "visits"))
        assert copied is not None
        assert (other.schemas("places"), other.schemas("visits-value")) == ([place], [visit])
        assert make_decoder(serde(other)).decode(copied, origin(copied, "copies")) == data


def test_without_a_registry_values_are_plain_avro(tmp_path: Path) -> None:
    settings = Serde(method="AVRO", schema=schema_file(tmp_path, ORDER))
    value = make_serializer(settings).encode({"id": 1}, "orders", "orders")
    assert value == b"\x02"
    assert make_decoder(settings).decode(value, origin(value)) == {"id": 1}


def test_a_file_that_is_no_schema(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_decoder(Serde(method="AVRO", schema=schema_file(tmp_path, {"type": "rekord"})))
    assert (caught.value.code, caught.value.where) == ("schema.invalid", str(tmp_path / "schema.avsc"))


@given(
    st.fixed_dictionaries(
        {
            "id": st.integers(-(2**63), 2**63 - 1),
            "note": st.none() | st.text(st.characters(codec="utf-8")),
        }
    )
)
def test_what_is_written_is_read(data: Any) -> None:
    from streamline.connectors.kafka.serialization.avro import AvroFormat
    from streamline.connectors.kafka.serialization.framed import KnownSchema
    from streamline.connectors.kafka.serialization.registry import Schema

    form, known = AvroFormat(), KnownSchema(Schema(text=json.dumps(WITH_NOTE)))
    name, payload = form.writer(known).encode(data, None)
    assert name == "shop.Order"
    assert form.reader(known)(head(1) + payload) == data
