"""Avro values, with or without a schema id in front of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from streamline.connectors.kafka.serialization.avro_coercion import Coercion
from streamline.connectors.kafka.serialization.base import (
    BaseDecoder,
    BaseSerializer,
    UndecodableError,
    UnwritableError,
)
from streamline.connectors.kafka.serialization.framed import HEAD, KnownSchema
from streamline.flow.codecs import jsontext
from streamline.flow.items import Origin
from streamline.project.extras import need


def fastavro() -> Any:
    """Return the library."""
    return need("fastavro", "schema-registry", "`serialization_method: AVRO`")


class AvroFormat:
    """Avro with a registry. Implements `Format`.

    Args:
        reader: the schema that values are wanted in; None: as they were written.
    """

    type = "AVRO"

    def __init__(self, reader: KnownSchema | None = None) -> None:
        self._reader = None if reader is None else parse(reader)

    def reader(self, known: KnownSchema) -> Callable[[bytes], Any]:
        """See `Format.reader`."""
        return avro_reader(parse(known), self._reader, HEAD)

    def writer(self, known: KnownSchema) -> AvroWriter:
        """See `Format.writer`."""
        return AvroWriter(parse(known))


class AvroWriter:
    """Implements `Writer`. A field that the schema does not have makes data unfit: it would be lost."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._write = fastavro().schemaless_writer
        self._validate = fastavro().validate
        self._coerced = Coercion(schema, lambda data, branch: self._validate(data, branch, raise_errors=False))
        self._name = schema["name"] if isinstance(schema, dict) and "name" in schema else str(schema)

    def encode(self, data: Any, like: bytes | None) -> tuple[str, bytes]:
        """See `Writer.encode`."""
        out = io.BytesIO()
        try:
            # Writing alone would cut fractions off and take any value for a boolean.
            if not self._validate(data, self._schema, raise_errors=False):
                data = self._coerced(data)
                self._validate(data, self._schema)
            self._write(out, self._schema, data, strict_allow_default=True)
        except Exception as error:  # each type has its own: ValueError, TypeError, OverflowError, AttributeError, …
            raise UnwritableError(f"it does not fit its Avro schema {self._name}: {_text(error)}") from None
        return self._name, out.getvalue()

    def name_of(self, value: bytes) -> str:
        """See `Writer.name_of`."""
        return self._name


class AvroDecoder(BaseDecoder):
    """Reads values of one schema, without an id in front."""

    def __init__(self, schema: KnownSchema) -> None:
        self._read = avro_reader(parse(schema), None, 0)

    def decode(self, value: bytes, origin: Origin) -> Any:
        """See `Decoder.decode`."""
        return self._read(value)


class AvroSerializer(BaseSerializer):
    """Writes values of one schema, without an id in front."""

    def __init__(self, schema: KnownSchema) -> None:
        self._writer = AvroWriter(parse(schema))

    def encode_data(self, data: Any, topic: str, stream: str, origin: Origin | None) -> bytes:
        """See `BaseSerializer.encode_data`."""
        return self._writer.encode(data, None)[1]


def parse(known: KnownSchema) -> Any:
    """Return a schema as fastavro takes it.

    Raises:
        ValueError: it is not a schema.
    """
    library = fastavro()
    named: dict[str, Any] = {}
    try:
        for document in known.documents.values():
            library.parse_schema(jsontext.loads(document.text), named)
        return library.parse_schema(jsontext.loads(known.schema.text), named)
    except Exception as error:  # SchemaParseException, UnknownType, KeyError, …
        raise ValueError(f"not an Avro schema: {_text(error)}") from None


def avro_reader(schema: Any, reader: Any, start: int) -> Callable[[bytes], Any]:
    """Return what decodes values, whose data begins at byte `start`."""
    schemaless_reader = fastavro().schemaless_reader

    def read(value: bytes) -> Any:
        data = io.BytesIO(value)
        data.seek(start)
        try:
            record = schemaless_reader(data, schema, reader)
        except Exception as error:  # what garbage causes: EOFError, IndexError, UnicodeDecodeError, OverflowError, …
            raise UndecodableError(f"it is not Avro data of its schema: {_text(error)}") from None
        if data.tell() != len(value):
            raise UndecodableError(f"there are {len(value) - data.tell()} bytes after its Avro data")
        return record

    return read


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
