"""The schemas of a tap's streams as a schema registry takes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from streamline.connectors.kafka.serde_settings import Serde
from streamline.connectors.kafka.serialization.avro_coercion import JSON_TEXT
from streamline.connectors.kafka.serialization.framed import SEEN, KnownSchema
from streamline.connectors.kafka.serialization.registry import Schema as RegisteredSchema
from streamline.errors import StreamlineError
from streamline.flow.codecs import jsontext
from streamline.flow.codecs.schemas import decimal_scale, is_decimal, properties, string_format, types, variants
from streamline.flow.items import Schema

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PRECISION = 38


def schema_noter(serde: Serde) -> Callable[[Schema], None] | None:
    """Return what a sink of a format does with the SCHEMAs of records; None if it has no use for them."""
    if serde.registry is None or serde.schema is not None or serde.method not in ("AVRO", "JSON_SCHEMA"):
        return None
    avro = serde.method == "AVRO"

    def note(item: Schema) -> None:
        made = avro_schema(item) if avro else {"title": item.stream, **item.schema}
        text = jsontext.encode(made).decode()
        SEEN.note(item.stream, KnownSchema(RegisteredSchema(text=text, type="AVRO" if avro else "JSON")))

    return note


def avro_schema(item: Schema) -> dict[str, Any]:
    """Return a stream's schema as an Avro record. Every column may be absent, and is null then, except keys.

    Raises:
        StreamlineError: a column has a name that Avro does not allow.
    """
    keys = frozenset(item.key_properties or ())
    return _record(_name(item.stream), item.schema, item.stream, keys)


def _record(name: str, schema: Mapping[str, Any], stream: str, keys: frozenset[str] = frozenset()) -> dict[str, Any]:
    fields = []
    for column, declared in properties(schema).items():
        if _NAME.fullmatch(column) is None:
            raise StreamlineError(
                f"the column {column!r} cannot be a field of an Avro record",
                where=f"stream {stream!r}",
                hint="rename it in a transformer, or use `serialization_method: JSON_SCHEMA`",
                code="schema.not_avro",
            )
        kind = _type(f"{name}_{column}", declared, stream)
        if column in keys:
            fields.append({"name": column, "type": kind})
        else:
            fields.append({"name": column, "type": _nullable(kind), "default": None})
    return {"type": "record", "name": name, "fields": fields}


def _type(name: str, declared: Mapping[str, Any], stream: str) -> Any:
    """Return the Avro type of a column, without null."""
    wanted = types(declared) - {"null"}
    if is_decimal(declared) and decimal_scale(declared) is not None:
        scale = decimal_scale(declared)
        return {"type": "bytes", "logicalType": "decimal", "precision": _PRECISION, "scale": scale}
    if len(wanted) != 1:
        return "double" if wanted == {"integer", "number"} else JSON_TEXT
    (only,) = wanted
    if only == "string":
        return _STRINGS.get(string_format(declared) or "", "string")
    if only == "object":
        declared = next((each for each in variants(declared) if each.get("properties")), {})
        return _record(name, declared, stream) if declared else JSON_TEXT
    if only == "array":
        items = next((each["items"] for each in variants(declared) if isinstance(each.get("items"), Mapping)), None)
        return {"type": "array", "items": _nullable(_type(name, items, stream))} if items else JSON_TEXT
    return {"integer": "long", "number": "double", "boolean": "boolean"}[only]


_STRINGS: Mapping[str, Any] = {
    "date-time": {"type": "long", "logicalType": "timestamp-micros"},
    "date": {"type": "int", "logicalType": "date"},
}


def _nullable(kind: Any) -> list[Any]:
    return ["null", kind]


def _name(stream: str) -> str:
    name = re.sub(r"\W", "_", stream, flags=re.ASCII)
    return name if _NAME.fullmatch(name) else f"_{name}"
