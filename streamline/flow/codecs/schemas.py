"""Reads a stream's JSON Schema: the types, formats and scales of its properties."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from streamline.flow.items import JSONObject

ALL_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "object", "array"})
DECIMAL_FORMATS = frozenset({"singer.decimal", "x-singer.decimal"})


def properties(schema: Mapping[str, Any] | None) -> dict[str, JSONObject]:
    """Return the top-level properties of a stream's schema, by name; `{}` for those that are not objects (`true`)."""
    declared = (schema or {}).get("properties")
    if not isinstance(declared, Mapping):
        return {}
    return {name: dict(prop) if isinstance(prop, Mapping) else {} for name, prop in declared.items()}


def variants(prop: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the alternatives of `anyOf` and `oneOf`, including null; `[prop]` without them."""
    for word in ("anyOf", "oneOf"):
        choices = prop.get(word)
        if isinstance(choices, list) and choices:
            base = {key: value for key, value in prop.items() if key != word}
            flat: list[Mapping[str, Any]] = []
            for choice in choices:
                flat.extend(variants({**base, **choice} if isinstance(choice, Mapping) else {}))
            return flat
    return [prop]


def types(prop: Mapping[str, Any]) -> frozenset[str]:
    """Return the JSON types that a property allows; all of them if it names none."""
    allowed: set[str] = set()
    for variant in variants(prop):
        declared = variant.get("type")
        if isinstance(declared, str):
            allowed.add(declared)
        elif isinstance(declared, list) and declared:
            allowed.update(name for name in declared if isinstance(name, str))
        else:
            return ALL_TYPES
    return frozenset(allowed) & ALL_TYPES or ALL_TYPES


def string_format(prop: Mapping[str, Any]) -> str | None:
    """Return the `format` of a property's strings, if any variant has one."""
    for variant in variants(prop):
        text_format = variant.get("format")
        if isinstance(text_format, str):
            return text_format
    return None


def is_decimal(prop: Mapping[str, Any]) -> bool:
    """Return whether numbers of this property are decimals: `multipleOf` below 1 (the scale), or a decimal format."""
    if string_format(prop) in DECIMAL_FORMATS or isinstance(prop.get("x-singer.decimal"), Mapping):
        return True
    return decimal_scale(prop) is not None and "number" in types(prop) and types(prop) != ALL_TYPES


def decimal_scale(prop: Mapping[str, Any]) -> int | None:
    """Return digits after the point: from `multipleOf` (0.01 → 2), or `scale` of a decimal format; None if unknown."""
    for variant in variants(prop):
        details = variant.get("x-singer.decimal")
        for place in (details if isinstance(details, Mapping) else {}, variant):
            scale = place.get("scale")
            if isinstance(scale, int) and not isinstance(scale, bool) and scale >= 0:
                return scale
        step = variant.get("multipleOf")
        if isinstance(step, (int, float, Decimal)) and not isinstance(step, bool) and step > 0:
            try:
                exponent = Decimal(str(step)).normalize().as_tuple().exponent
            except InvalidOperation:
                continue
            if isinstance(exponent, int):
                return max(0, -exponent)
    return None
