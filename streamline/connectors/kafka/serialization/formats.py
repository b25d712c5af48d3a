"""Makes the decoders and serializers of a format as a block's settings describe it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamline.connectors.kafka.serde_settings import Serde
from streamline.connectors.kafka.serialization import avro, protobuf
from streamline.connectors.kafka.serialization.framed import (
    HEAD,
    Format,
    FramedDecoder,
    FramedSerializer,
    KnownSchema,
)
from streamline.connectors.kafka.serialization.json_schema import (
    CheckedJsonDecoder,
    CheckedJsonSerializer,
    JsonSchema,
    json_schema_file,
    schema_file,
)
from streamline.connectors.kafka.serialization.json_text import JsonDecoder, JsonSerializer, decode_json
from streamline.connectors.kafka.serialization.plain import BytesDecoder, BytesSerializer, TextDecoder, TextSerializer
from streamline.connectors.kafka.serialization.protobuf_data import fill, to_data
from streamline.connectors.kafka.serialization.registry import Schema, open_registry
from streamline.connectors.stream_connector import Decoder, Serializer


def make_decoder(serde: Serde) -> Decoder:
    """Return what decodes values of a format. Nothing is connected yet.

    Raises:
        ConfigError: its schema's file is not valid, or a library that it needs is not installed.
    """
    if serde.registry is not None:
        return FramedDecoder(_format(serde), open_registry(serde.registry), for_key=serde.for_key)
    if serde.method == "AVRO":
        return avro.AvroDecoder(_file_schema(serde))
    if serde.method == "PROTOBUF":
        mapping = to_data if serde.schema_class is None else protobuf.json_mapping
        return protobuf.ProtobufDecoder(_message_class(serde), mapping)
    if serde.schema is not None:
        return CheckedJsonDecoder(json_schema_file(serde.schema))
    return {"STRING": TextDecoder, "RAW_VALUE": BytesDecoder}.get(serde.method, JsonDecoder)()


def make_serializer(serde: Serde) -> Serializer:
    """Return what encodes values of a format. Nothing is connected yet.

    Raises:
        ConfigError: its schema's file is not valid, or a library that it needs is not installed.
    """
    if serde.registry is not None:
        schema = None if serde.schema is None else _file_schema(serde)
        return FramedSerializer(_format(serde), open_registry(serde.registry), serde, schema)
    if serde.method == "AVRO":
        return avro.AvroSerializer(_file_schema(serde))
    if serde.method == "PROTOBUF":
        fill_in = fill if serde.schema_class is None else protobuf.fill_from_json
        return protobuf.ProtobufSerializer(_message_class(serde), fill_in)
    if serde.schema is not None:
        return CheckedJsonSerializer(json_schema_file(serde.schema))
    return {"STRING": TextSerializer, "RAW_VALUE": BytesSerializer}.get(serde.method, JsonSerializer)()


class JsonSchemaFormat:
    """JSON whose schema is in a registry. Implements `Format`."""

    type = "JSON"

    def reader(self, known: KnownSchema) -> Callable[[bytes], Any]:
        """See `Format.reader`."""
        schema = _json_schema(known)

        def read(value: bytes) -> Any:
            data = decode_json(value[HEAD:])
            schema.check(data)
            return data

        return read

    def writer(self, known: KnownSchema) -> JsonSchemaWriter:
        """See `Format.writer`."""
        return JsonSchemaWriter(known)


class JsonSchemaWriter:
    """Implements `Writer`."""

    def __init__(self, known: KnownSchema) -> None:
        self._schema = _json_schema(known)
        document = decode_json(known.schema.text.encode())
        title = document.get("title") if isinstance(document, dict) else None
        self._title = title if isinstance(title, str) else "object"

    def encode(self, data: Any, like: bytes | None) -> tuple[str, bytes]:
        """See `Writer.encode`."""
        return self._title, self._schema.checked_text(data)

    def name_of(self, value: bytes) -> str:
        """See `Writer.name_of`."""
        return self._title


def _json_schema(known: KnownSchema) -> JsonSchema:
    documents = {name: decode_json(document.text.encode()) for name, document in known.documents.items()}
    return JsonSchema(decode_json(known.schema.text.encode()), documents)


def _format(serde: Serde) -> Format:
    if serde.method == "AVRO":
        avro.fastavro()
        # On a sink the file is what is written; a source wants what it reads in that form.
        return avro.AvroFormat(_file_schema(serde) if serde.schema is not None else None)
    if serde.method == "PROTOBUF":
        protobuf.library("message")
        return protobuf.ProtobufFormat(serde.message)
    return JsonSchemaFormat()


_TYPES = {"AVRO": "AVRO", "PROTOBUF": "PROTOBUF", "JSON_SCHEMA": "JSON"}


def _file_schema(serde: Serde) -> KnownSchema:
    """Return the schema in a file, after a look at whether it can be used."""
    path: Path | None = serde.schema
    assert path is not None

    def read(text: bytes) -> KnownSchema:
        known = KnownSchema(Schema(text=text.decode("utf-8-sig"), type=_TYPES[serde.method]))
        if serde.method == "AVRO":
            avro.parse(known)
        elif serde.method == "PROTOBUF":
            protobuf.ProtobufSchema(known).indexes_of(serde.message)
        else:
            _json_schema(known)
        return known

    schema: KnownSchema = schema_file(path, read)
    return schema


def _message_class(serde: Serde) -> Any:
    if serde.schema_class is not None:
        return protobuf.class_from_path(serde.schema_class)
    schema = protobuf.ProtobufSchema(_file_schema(serde))
    return schema.class_at(schema.indexes_of(serde.message))
