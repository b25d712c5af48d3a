"""JSON Schema to Arrow types and back.

| JSON Schema | Arrow |
|---|---|
| integer | int64; uint64 or decimal where `maximum` does not fit |
| number | float64 |
| number with `multipleOf` below 1, or a decimal format with a scale | decimal128, decimal256 |
| boolean, string | bool, string |
| string with format date-time, date | timestamp(us, UTC), date32 |
| array of strings, integers, numbers or booleans | list |
| object, other arrays, several types, no type | string of JSON text, marked (see `is_json`) |

Types follow from the schema alone. Records with values that do not fit are in tables of their own, in which their
columns have another type (see `arrow_columns`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from streamline.flow.codecs.schemas import decimal_scale, is_decimal, string_format, types, variants
from streamline.flow.items import JSONObject

JSON_MARK = {b"streamline.json": b"1"}
TEXT_MARK = {b"streamline.text": b"1"}
_COPY_OF = b"streamline.copy_of"
_NAN_MARK = {b"streamline.nan": b"1"}
_SPELLINGS = b"streamline.spellings"
_INT64_MAX = 2**63 - 1
_UINT64_MAX = 2**64 - 1


def arrow_field(name: str, prop: Mapping[str, Any] | None) -> pa.Field:
    """Return the Arrow field of one property; None (not declared) is JSON text."""
    kind = _arrow_type(prop) if prop is not None else None
    if prop is None or kind is None:
        return json_field(name)
    # A decimal that the source writes as a string is written as a string again.
    as_text = pa.types.is_decimal(kind) and "string" in types(prop) and "number" not in types(prop)
    return pa.field(name, kind, metadata=TEXT_MARK if as_text else None)


def json_field(name: str) -> pa.Field:
    """Return a field of strings of JSON text."""
    return pa.field(name, pa.string(), metadata=JSON_MARK)


def is_json(field: pa.Field) -> bool:
    """Return whether the strings of this field are JSON text, which is written unchanged."""
    return bool(field.metadata and b"streamline.json" in field.metadata)


def copied_json(name: str, source: str) -> pa.Field:
    """Return a field of JSON text that is a copy of column `source`."""
    return json_field(name).with_metadata({**JSON_MARK, _COPY_OF: source.encode()})


def copy_of(field: pa.Field) -> str | None:
    """Return the column that this one is a copy of, if it is one of `copied_json`."""
    source = (field.metadata or {}).get(_COPY_OF)
    return source.decode() if source is not None else None


def is_textual(kind: pa.DataType) -> bool:
    """Return whether it is one of the types of strings."""
    import pyarrow.types as pt

    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def is_text(field: pa.Field) -> bool:
    """Return whether the numbers of this field are written as JSON strings."""
    return bool(field.metadata and b"streamline.text" in field.metadata)


def holds_nan(field: pa.Field) -> bool:
    """Return whether the source sent NaN in this column of the batch."""
    return bool(field.metadata and b"streamline.nan" in field.metadata)


def with_nan(field: pa.Field) -> pa.Field:
    """Return the field of a column in which the source sent NaN."""
    return field.with_metadata({**(field.metadata or {}), **_NAN_MARK})


def spellings(field: pa.Field) -> list[str]:
    """Return the texts of numbers in this column that its type does not keep as they were sent."""
    texts = (field.metadata or {}).get(_SPELLINGS)
    return json.loads(texts) if texts else []


def with_spellings(field: pa.Field, texts: Iterable[str]) -> pa.Field:
    """Return the field of a column with such numbers."""
    return field.with_metadata({**(field.metadata or {}), _SPELLINGS: json.dumps(list(texts))})


def _arrow_type(prop: Mapping[str, Any]) -> pa.DataType | None:
    allowed = types(prop) - {"null"}
    if allowed == {"boolean"}:
        return pa.bool_()
    if allowed == {"integer"}:
        return _integer_type(prop)
    if is_decimal(prop) and allowed in ({"number"}, {"string"}, {"integer", "number"}, {"number", "string"}):
        return _decimal_type(prop, allowed)
    if allowed in ({"number"}, {"integer", "number"}):
        return pa.float64()
    if allowed == {"string"}:
        text_format = string_format(prop)
        if text_format == "date-time":
            return pa.timestamp("us", "UTC")
        return pa.date32() if text_format == "date" else pa.string()
    if allowed == {"array"}:
        return _list_type(prop)
    return None


def _integer_type(prop: Mapping[str, Any]) -> pa.DataType:
    bounds = [v.get(word) for v in variants(prop) for word in ("minimum", "maximum")]
    numbers = [b for b in bounds if isinstance(b, (int, float)) and not isinstance(b, bool)]
    low, high = min(numbers, default=0), max(numbers, default=0)
    if low >= -_INT64_MAX - 1 and high <= _INT64_MAX + 1:  # 2**63 - 1 is not exact as a float
        return pa.int64()
    return pa.uint64() if low >= 0 and high <= _UINT64_MAX + 1 else pa.decimal128(38, 0)


def _decimal_type(prop: Mapping[str, Any], allowed: frozenset[str]) -> pa.DataType | None:
    scale = decimal_scale(prop)
    if scale is None:  # a decimal string without a scale stays a string
        return pa.string() if allowed == {"string"} else None
    return pa.decimal128(38, scale) if scale <= 18 else pa.decimal256(76, min(scale, 76))


def _list_type(prop: Mapping[str, Any]) -> pa.DataType | None:
    items = [variant["items"] for variant in variants(prop) if isinstance(variant.get("items"), Mapping)]
    if len(items) != 1:
        return None
    simple = {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64(), "string": pa.string()}
    allowed = types(items[0]) - {"null"}
    if len(allowed) != 1 or is_decimal(items[0]):
        return None
    kind = simple.get(next(iter(allowed)))
    return None if kind is None else pa.list_(kind)


def property_of(field: pa.Field) -> JSONObject:
    """Return the JSON Schema of one Arrow field."""
    if is_json(field):
        return {}
    prop = _property(field.type)
    named = prop.get("type")
    if named is not None:
        prop = {**prop, "type": ["null", named] if field.nullable else [named]}
    return prop


def _property(kind: pa.DataType) -> JSONObject:
    if pt.is_dictionary(kind):
        return _property(kind.value_type)
    if pt.is_boolean(kind):
        return {"type": "boolean"}
    if pt.is_integer(kind):
        return {"type": "integer"}
    if pt.is_floating(kind):
        return {"type": "number"}
    if pt.is_decimal(kind):
        if kind.scale <= 0:
            return {"type": "integer"}
        return {"type": "number", "multipleOf": float(f"1e-{kind.scale}")}
    if pt.is_timestamp(kind):
        return {"type": "string", "format": "date-time"}
    if pt.is_date(kind):
        return {"type": "string", "format": "date"}
    if pt.is_time(kind):
        return {"type": "string", "format": "time"}
    if pt.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return {"type": "object", "properties": {field.name: property_of(field) for field in fields}}
    if pt.is_map(kind):
        return {"type": "object"}
    if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
        return {"type": "array", "items": property_of(kind.value_field)}
    return {"type": "string"}  # strings, binary (base64), durations (ISO 8601), null
