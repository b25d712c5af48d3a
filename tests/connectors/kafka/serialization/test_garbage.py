"""Whatever bytes a topic holds, a decoder gives data or says that they are undecodable."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.connectors.kafka.serde_settings import Serde
from streamline.connectors.kafka.serialization.formats import make_decoder, make_serializer
from streamline.connectors.stream_connector import Decoder
from streamline.flow.items import Origin

PROTO = """
syntax = "proto3";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
message Thing {
  int64 id = 1; string name = 2; bytes blob = 3; map<string, Thing> things = 4; repeated double numbers = 5;
  google.protobuf.Timestamp at = 6; google.protobuf.Struct more = 7; Kind kind = 8;
}
enum Kind { NONE = 0; SOME = 1; }
"""
AVRO = {
    "type": "record",
    "name": "Thing",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "name", "type": ["null", "string", "bytes", "double"]},
        {"name": "list", "type": {"type": "array", "items": "string"}},
        {"name": "map", "type": {"type": "map", "values": ["null", "Thing"]}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "sum", "type": {"type": "fixed", "name": "Sum", "size": 4}},
    ],
}
SCHEMA = {"type": "object", "required": ["id"]}


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> list[Decoder]:
    folder = tmp_path_factory.mktemp("schemas")
    files = {"thing.proto": PROTO, "thing.avsc": json.dumps(AVRO), "thing.json": json.dumps(SCHEMA)}
    paths: dict[str, Path] = {}
    for name, text in files.items():
        paths[name] = folder / name
        paths[name].write_text(text)
    return [
        make_decoder(serde)
        for serde in (
            Serde(),
            Serde(method="STRING"),
            Serde(schema=paths["thing.json"]),
            Serde(method="AVRO", schema=paths["thing.avsc"]),
            Serde(method="PROTOBUF", schema=paths["thing.proto"]),
        )
    ]


@given(st.binary(max_size=60))
def test_random_bytes(decoders: list[Decoder], value: bytes) -> None:
    for decoder in decoders:
        try:
            data = decoder.decode(value, Origin("t", 0, 0, None, value))
        except ValueError:
            continue
        # What was decoded is data that the other formats have a form for, or refuse.
        for method in ("JSON", "STRING"):
            with contextlib.suppress(ValueError):
                make_serializer(Serde(method=method)).encode(data, "t", "t")
