"""Protobuf: the place of the message in its schema, schemas from text, and Mage's way with a generated class."""

from __future__ import annotations

import base64
import datetime as dt
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.connectors.kafka.serde_settings import RegistrySettings, Serde
from streamline.connectors.kafka.serialization.base import UndecodableError, UnwritableError
from streamline.connectors.kafka.serialization.formats import make_decoder, make_serializer
from streamline.connectors.kafka.serialization.framed import head
from streamline.connectors.kafka.serialization.protobuf import compile_files, read_indexes, write_indexes
from streamline.errors import ConfigError
from streamline.flow.items import Origin
from tests.support.registry import RegistryStub, registry_stub

SHOP = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/wrappers.proto";

enum Status { UNKNOWN = 0; PAID = 1; }
message Item { string name = 1; uint64 user_id = 2; }
message Order {
  message Line { int32 count = 1; }
  int64 id = 1;
  string note = 2;
  optional string hint = 3;
  bytes blob = 4;
  Status status = 5;
  repeated Line lines = 6;
  map<string, Item> items = 7;
  map<int32, double> prices = 8;
  google.protobuf.Timestamp made_at = 9;
  google.protobuf.Duration took = 10;
  google.protobuf.Struct more = 11;
  google.protobuf.StringValue maybe = 12;
  oneof payment { string card = 13; bool cash = 14; }
  repeated int64 numbers = 15;
  double amount = 16;
  bool ok = 17;
  Item first = 18;
  float ratio = 19;
}
"""
EMPTY = {
    "id": 0,
    "note": "",
    "blob": b"",
    "status": "UNKNOWN",
    "lines": [],
    "items": {},
    "prices": {},
    "numbers": [],
    "amount": 0.0,
    "ok": False,
    "ratio": 0.0,
}
FULL = {
    **EMPTY,
    "id": -(2**63),
    "note": "é",
    "hint": "",
    "blob": b"\x00\xff",
    "status": "PAID",
    "lines": [{"count": 1}, {"count": -2}],
    "items": {"a": {"name": "x", "user_id": 2**64 - 1}, "b": {"name": "", "user_id": 0}},
    "prices": {-1: 0.1},
    "made_at": dt.datetime(1960, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC),
    "took": dt.timedelta(seconds=-1, microseconds=-5),
    "more": {"a": [1.0, "x", None, True, {"b": {}}]},
    "maybe": "yes",
    "cash": False,
    "numbers": [1, 2**62],
    "amount": 1.5,
    "ok": True,
    "first": {"name": "", "user_id": 0},
    "ratio": 0.5,
}


def serde(stub: RegistryStub, **more: Any) -> Serde:
    return Serde(method="PROTOBUF", registry=RegistrySettings(urls=(stub.url,)), **more)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.proto"
    path.write_text(SHOP)
    return path


def origin(value: bytes | None, topic: str = "orders") -> Origin:
    return Origin(topic, 0, 0, None, value)


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=5).map(tuple), st.binary())
def test_indexes(indexes: tuple[int, ...], rest: bytes) -> None:
    text = write_indexes(indexes)
    assert read_indexes(b"12345" + text + rest, 5) == (indexes, 5 + len(text))


def test_the_first_message_is_one_zero_byte() -> None:
    assert write_indexes((0,)) == b"\0"
    assert write_indexes((1, 0)) == b"\x04\x02\x00"


@pytest.mark.parametrize("data", [EMPTY, FULL])
def test_what_is_written_is_read(stub: RegistryStub, file: Path, data: dict[str, Any]) -> None:
    value = make_serializer(serde(stub, schema=file, message="Order")).encode(data, "orders", "orders")
    assert value is not None
    assert value[:7] == head(1) + b"\x02\x02"  # one index: 1
    assert make_decoder(serde(stub)).decode(value, origin(value)) == data
    assert stub.schemas("orders-value") == [SHOP]


def test_the_first_message_is_the_default_and_names_may_be_camel_case(stub: RegistryStub, file: Path) -> None:
    value = make_serializer(serde(stub, schema=file)).encode({"userId": 5}, "orders", "orders")
    assert value == head(1) + b"\0\x10\x05"
    assert make_decoder(serde(stub)).decode(value, origin(value)) == {"name": "", "user_id": 5}


def test_a_message_is_written_as_the_one_that_it_was_read_as(stub: RegistryStub) -> None:
    number = stub.add("orders-value", SHOP, "PROTOBUF")
    value = head(number) + write_indexes((1, 0)) + b"\x08\x05"
    data = make_decoder(serde(stub)).decode(value, origin(value, "lines"))
    assert data == {"count": 5}
    serializer = make_serializer(serde(stub, strategy="record"))
    assert serializer.encode(data, "copies", "lines", origin(value, "lines")) == value
    assert serializer.encode(value, "copies", "lines") == value
    assert stub.schemas("shop.Order.Line") == [SHOP]


@pytest.mark.parametrize(
    "value",
    [
        b"abc",
        head(1),
        head(1) + b"\x02",
        head(1) + b"\x02\x0a\x08\x05",
        head(1) + b"\x01\x08",
        head(1) + b"\0\x0a\x05a",
    ],
)
def test_garbage_is_undecodable(stub: RegistryStub, value: bytes) -> None:
    stub.add("orders-value", SHOP, "PROTOBUF")
    with pytest.raises(UndecodableError):
        make_decoder(serde(stub)).decode(value, origin(value))


@pytest.mark.parametrize(
    "data",
    [
        {"more_than": 1},
        {"id": "x"},
        {"id": 1.5},
        {"id": True},
        {"id": 2**64},
        {"note": 5},
        {"note": b"x"},
        {"blob": "x"},
        {"status": "GONE"},
        {"lines": {"count": 1}},
        {"lines": [{"cont": 1}]},
        {"numbers": ["x"]},
        {"numbers": 5},
        {"amount": "1"},
        {"ok": 1},
        {"items": {"a": 5}},
        {"made_at": dt.datetime(2026, 1, 1)},
        {"made_at": "yesterday"},
        {"first": "x"},
        {"more": 5},
        [1],
        "text",
    ],
)
def test_data_that_does_not_fit_is_refused(file: Path, data: Any) -> None:
    serializer = make_serializer(Serde(method="PROTOBUF", schema=file, message="shop.Order"))
    with pytest.raises(UnwritableError):
        serializer.encode(data, "orders", "orders")


def test_schemas_that_import_others(stub: RegistryStub) -> None:
    place = 'syntax = "proto3"; package geo; message Place { string city = 1; }'
    visit = 'syntax = "proto3"; import "geo/place.proto"; message Visit { geo.Place at = 1; }'
    stub.add("places", place, "PROTOBUF")
    reference = {"name": "geo/place.proto", "subject": "places", "version": 1}
    number = stub.add("visits-value", visit, "PROTOBUF", [reference])
    value = head(number) + b"\0\x0a\x06\x0a\x04Bern"
    data = make_decoder(serde(stub)).decode(value, origin(value, "visits"))
    assert data == {"at": {"city": "Bern"}}
    with registry_stub() as other:
        copied = make_serializer(serde(other)).encode(data, "visits", "visits", origin(value, "visits"))
        assert copied == head(2) + value[5:]
        assert other.schemas("places") == [place]


def test_schemas_that_are_descriptors(stub: RegistryStub) -> None:
    """As Confluent's client for Python registers them."""
    place, visit = (
        base64.b64encode(files[-1].SerializeToString()).decode()
        for files in (
            compile_files('syntax = "proto3"; package geo; message Place { string city = 1; }'),
            compile_files(
                'syntax = "proto3"; import "geo/place.proto"; import "google/protobuf/timestamp.proto";'
                "message Visit { geo.Place at = 1; google.protobuf.Timestamp on = 2; }",
                (("geo/place.proto", 'syntax = "proto3"; package geo; message Place { string city = 1; }'),),
            ),
        )
    )
    stub.add("places", place, "PROTOBUF")
    reference = {"name": "geo/place.proto", "subject": "places", "version": 1}
    number = stub.add("described-value", visit, "PROTOBUF", [reference])
    value = head(number) + b"\0\x0a\x06\x0a\x04Bern\x12\x02\x08\x01"
    data = make_decoder(serde(stub)).decode(value, origin(value, "described"))
    assert data == {"at": {"city": "Bern"}, "on": dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)}
    assert make_serializer(serde(stub)).encode(data, "described", "described", origin(value, "described")) == value


def test_a_schema_with_a_path_that_leaves_its_folder_is_not_compiled(stub: RegistryStub, tmp_path: Path) -> None:
    stub.add("evil", 'syntax = "proto3";', "PROTOBUF")
    name = f"../../{tmp_path}/written.proto"
    number = stub.add(
        "x", f'syntax = "proto3"; import "{name}";', "PROTOBUF", [{"name": name, "subject": "evil", "version": 1}]
    )
    with pytest.raises(UndecodableError):
        make_decoder(serde(stub)).decode(head(number) + b"\0", origin(b""))
    assert list(tmp_path.iterdir()) == []


def test_no_file_of_a_registry_is_run(stub: RegistryStub, tmp_path: Path) -> None:
    stub.add("evil", f"open({str(tmp_path / 'run')!r}, 'w')", "PROTOBUF")
    reference = {"name": "grpc_tools/__init__.py", "subject": "evil", "version": 1}
    schema = 'syntax = "proto3"; message Safe { int32 id = 1; }'
    number = stub.add("safe-value", schema, "PROTOBUF", [reference])
    assert make_decoder(serde(stub)).decode(head(number) + b"\0\x08\x05", origin(b"")) == {"id": 5}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "message"), [("syntax = 'proto3'; message {", None), (SHOP, "Gone"), ("", None)])
def test_a_file_that_cannot_be_used_is_found_before_the_start(tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "bad.proto"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        make_decoder(Serde(method="PROTOBUF", schema=path, message=message))
    assert (caught.value.code, caught.value.where) == ("schema.invalid", str(path))


@pytest.fixture
def item_class(file: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a class as protoc generates it."""
    from grpc_tools import protoc

    assert (
        protoc.main(
            [
                "protoc",
                f"-I{file.parent}",
                f"-I{Path(protoc.__file__).parent / '_proto'}",
                f"--python_out={file.parent}",
                "shop.proto",
            ]
        )
        == 0
    )
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.delitem(sys.modules, "shop_pb2", raising=False)
    return "shop_pb2.Item"


def test_a_class_is_read_as_mage_reads_it(item_class: str) -> None:
    settings = Serde(method="PROTOBUF", schema_class=item_class)
    value = b"\x10\x05"
    data = make_decoder(settings).decode(value, origin(value))
    assert data == {"userId": "5"}
    serializer = make_serializer(settings)
    for same in (data, {"userId": 5}, {"user_id": 5}):
        assert serializer.encode(same, "items", "items") == value
    for wrong in ({"user": 5}, {"user_id": "x"}, [1], "x"):
        with pytest.raises(UnwritableError):
            serializer.encode(wrong, "items", "items")


@pytest.mark.parametrize("path", ["nowhere.Item", "json.JSONDecoder", "Item"])
def test_a_class_that_is_not_there(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_decoder(Serde(method="PROTOBUF", schema_class=path))
    assert caught.value.code == "schema.class_missing"
