"""Data of JSON as an Avro schema wants it: dates and decimals are text or numbers there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from streamline.connectors.kafka.serialization.json_text import encode_json

JSON_TEXT: Mapping[str, Any] = {"type": "string", "logicalType": "json"}
"""A string that holds the JSON text of a value of any type."""


class Coercion:
    """Converts data to a schema, where that loses nothing. What cannot be converted is left as it is.

    Args:
        schema: as fastavro has parsed it.
        fits: returns whether data is of a schema.
    """

    def __init__(self, schema: Any, fits: Callable[[Any, Any], bool]) -> None:
        self._schema = schema
        self._fits = fits
        self._named: dict[str, Any] = {}
        self._collect(schema)

    def __call__(self, data: Any) -> Any:
        """Return data as the schema wants it."""
        return self._convert(self._schema, data)

    def _collect(self, schema: Any) -> None:
        if isinstance(schema, list):
            for branch in schema:
                self._collect(branch)
        elif isinstance(schema, dict):
            if "name" in schema:
                self._named[schema["name"]] = schema
            for field in schema.get("fields", ()):
                self._collect(field["type"])
            self._collect(schema.get("items") or schema.get("values"))

    def _convert(self, schema: Any, data: Any) -> Any:
        if isinstance(schema, str):
            schema = self._named.get(schema, schema)
        if isinstance(schema, list):
            for branch in schema:
                converted = self._convert(branch, data)
                if self._fits(converted, branch):
                    return converted
            return data
        kind = schema if isinstance(schema, str) else schema["type"]
        if kind == "record" and isinstance(data, Mapping):
            fields = {field["name"]: field["type"] for field in schema["fields"]}
            return {
                name: self._convert(fields[name], value) if name in fields else value for name, value in data.items()
            }
        if kind == "array" and isinstance(data, list | tuple):
            return [self._convert(schema["items"], item) for item in data]
        if kind == "map" and isinstance(data, Mapping):
            return {key: self._convert(schema["values"], item) for key, item in data.items()}
        logical = schema.get("logicalType") if isinstance(schema, dict) else None
        convert = _CONVERSIONS.get(logical or kind)
        if convert is None or data is None:
            return data
        try:
            return convert(data)
        except (ValueError, InvalidOperation, OverflowError):
            return data


def _timestamp(data: Any) -> Any:
    if not isinstance(data, str):
        return data
    at = dt.datetime.fromisoformat(data)
    return at if at.tzinfo is not None else data


def _decimal(data: Any) -> Any:
    return data if isinstance(data, bool) else Decimal(str(data)) if isinstance(data, int | float | str) else data


def _whole(data: Any) -> Any:
    return int(data) if isinstance(data, Decimal | float) and data == int(data) else data


def _float(data: Any) -> Any:
    if isinstance(data, Decimal) and Decimal(repr(float(data))) == data:
        return float(data)
    return data


_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "timestamp-millis": _timestamp,
    "timestamp-micros": _timestamp,
    "date": lambda data: dt.date.fromisoformat(data) if isinstance(data, str) else data,
    "time-millis": lambda data: dt.time.fromisoformat(data) if isinstance(data, str) else data,
    "time-micros": lambda data: dt.time.fromisoformat(data) if isinstance(data, str) else data,
    "decimal": _decimal,
    "json": lambda data: encode_json(data).decode(),
    "int": _whole,
    "long": _whole,
    "float": _float,
    "double": _float,
}
