"""Kinds of values, which are JSON's types and the formats of dates and times, and the properties that allow them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import NoneType
from typing import Any
from uuid import UUID

from streamline.flow.codecs.schemas import ALL_TYPES, decimal_scale, string_format, types
from streamline.flow.items import JSONObject

FORMATS = frozenset({"date-time", "date", "time"})

_KINDS: dict[type, str] = {
    NoneType: "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    Decimal: "number",
    str: "string",
    UUID: "string",
    bytes: "string",
    dt.datetime: "date-time",
    dt.date: "date",
    dt.time: "time",
    dict: "object",
    list: "array",
    tuple: "array",
    set: "array",
}


def kind_of(python_type: type) -> str:
    """The kind of JSON value for values of a Python type; dates and times by their format."""
    kind = _KINDS.get(python_type)
    if kind is None:
        kind = _KINDS[python_type] = _other_kind(python_type)
    return kind


def _other_kind(python_type: type) -> str:
    if python_type.__name__ in ("NAType", "NaTType"):  # pandas
        return "null"
    for base, kind in list(_KINDS.items()):
        if issubclass(python_type, base):
            return kind
    if python_type.__module__ == "numpy":
        for prefix, kind in (("bool", "boolean"), ("int", "integer"), ("uint", "integer"), ("float", "number")):
            if python_type.__name__.startswith(prefix):
                return kind
        if python_type.__name__ == "ndarray":
            return "array"
    if issubclass(python_type, Mapping):
        return "object"
    return "string"


def most_digits(rows: Iterable[Mapping[str, Any]], name: str) -> int:
    """How many digits after the point the numbers of a field have at most; noughts at the end count."""
    most = 0
    for row in rows:
        value = row.get(name)
        if type(value) is float and value == value:
            value = Decimal(repr(value)).normalize()
        if type(value) is Decimal:
            exponent = value.as_tuple().exponent
            if type(exponent) is int and -exponent > most:
                most = -exponent
    return most


def property_of_kind(kind: str) -> JSONObject:
    """The JSON Schema of a nullable column of one kind."""
    if kind in FORMATS:
        return {"type": ["null", "string"], "format": kind}
    return {"type": ["null", kind]} if kind in ALL_TYPES else {}


def fits(prop: JSONObject, kind: str) -> bool:
    """Whether a property allows values of a kind (formats apart)."""
    allowed = types(prop)
    if kind in allowed or kind == "any":
        return True
    return "string" in allowed if kind in FORMATS else kind == "integer" and "number" in allowed


def kind_of_property(prop: JSONObject) -> str:
    named = types(prop) - {"null"}
    if len(named) != 1:
        return "any"
    kind = next(iter(named))
    text_format = string_format(prop)
    return text_format if kind == "string" and text_format in FORMATS else kind


def loses_format(current: JSONObject, kind: str) -> bool:
    held = string_format(current)
    return held in FORMATS and kind != held


def loses_digits(current: JSONObject, kind: str, prop: JSONObject | None) -> bool:
    scale, other = decimal_scale(current), decimal_scale(prop or {})
    return kind == "number" and scale is not None and (other is None or other > scale)


def widened(current: JSONObject, kind: str, prop: JSONObject | None) -> JSONObject | None:
    allowed = types(current)
    kept = {word: value for word, value in current.items() if word in ("type", "description", "title")}
    if kind == "number" and allowed <= {"integer", "number", "null"}:
        step = (prop or {}).get("multipleOf")
        wider = {**kept, "type": sorted((allowed - {"integer"}) | {"number"})}
        return {**wider, "multipleOf": step} if step is not None else wider
    if "string" in allowed and (kind == "string" or kind in FORMATS):
        return kept
    return None


def nullable(prop: JSONObject) -> JSONObject:
    if "null" in types(prop):
        return prop
    declared = prop.get("type")
    if declared is None:
        return {"anyOf": [{"type": "null"}, prop]}
    named = [declared] if isinstance(declared, str) else list(declared)
    nullable = {**prop, "type": ["null", *named]}
    if isinstance(prop.get("enum"), list):
        nullable["enum"] = [*prop["enum"], None]
    return nullable
