"""The part of a stream's SCHEMA that targets enforce: types, required, enumerations and bounds.

Formats and `multipleOf` describe values rather than restrict them (targets parse and round), except `format: date`: a
value that is no date changes the type of its column. Taps write schemas in several drafts, and with keywords that their
draft does not have. What cannot be validated is left out.
"""

from __future__ import annotations

import re
from calendar import isleap, monthrange
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from streamline.errors import StreamlineError
from streamline.flow.codecs.schemas import ALL_TYPES, DECIMAL_FORMATS, string_format, types
from streamline.flow.items import JSONObject

if TYPE_CHECKING:
    import jsonschema_rs

_DATE = re.compile(
    r"(?P<sign>[+-]?)(?P<year>\d{4,6})-?(?P<month>\d\d)-?(?P<day>\d\d)( BC)?([T ]+\d\d?:?\d\d(:?\d\d)?([.,]\d+)?"
    r" ?(Z|UTC|[+-]\d\d(:?\d\d)?)?)?( BC)?",
    re.ASCII | re.IGNORECASE,
)
DECIMAL_PATTERN = r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$"

_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_SCHEMA_MAPS = ("properties", "patternProperties", "definitions", "$defs")
_SCHEMA_LISTS = ("anyOf", "oneOf", "allOf")
_SCHEMAS = ("not", "if", "then", "else", "contains", "additionalItems", "additionalProperties")
_COPIED = ("enum", "const", "uniqueItems", "$ref")


def lenient(schema: Any, *, patterns: bool = True) -> Any:
    """Return the assertions of a schema that targets enforce, in JSON Schema draft 7.

    >>> lenient({"type": ["null", "string"], "format": "date-time", "maxLength": 30})
    {'type': ['null', 'string'], 'maxLength': 30}

    Args:
        schema: a schema of any draft; `true` and `false` are returned unchanged.
        patterns: whether to keep `pattern`.
    """
    if not isinstance(schema, Mapping):
        return schema if isinstance(schema, bool) else True
    if string_format(schema) in DECIMAL_FORMATS or isinstance(schema.get("x-singer.decimal"), Mapping):
        # Taps write decimals as strings or as numbers, whichever type they declare.
        return {"type": sorted((types(schema) & {"null"}) | {"number", "string"}), "pattern": DECIMAL_PATTERN}
    kept: JSONObject = {"format": "date"} if string_format(schema) == "date" else {}
    named = _types(schema.get("type"))
    if named:
        kept["type"] = named
    for word in _COPIED:
        if word in schema:
            kept[word] = schema[word]
    if not isinstance(kept.get("enum", []), list):
        del kept["enum"]
    if isinstance(schema.get("required"), list):
        kept["required"] = [name for name in dict.fromkeys(schema["required"]) if isinstance(name, str)]
    for word in _COUNTS:
        if isinstance(schema.get(word), (int, float)) and schema[word] >= 0:
            kept[word] = int(min(schema[word], 2**53))
    _bounds(schema, kept)
    if patterns and isinstance(schema.get("pattern"), str):
        kept["pattern"] = schema["pattern"]
    for word in _SCHEMA_MAPS:
        if isinstance(schema.get(word), Mapping):
            kept[word] = {name: lenient(each, patterns=patterns) for name, each in schema[word].items()}
    for word in _SCHEMA_LISTS:
        if isinstance(schema.get(word), list) and schema[word]:
            kept[word] = [lenient(each, patterns=patterns) for each in schema[word]]
    for word in _SCHEMAS:
        if isinstance(schema.get(word), (Mapping, bool)):
            kept[word] = lenient(schema[word], patterns=patterns)
    items = schema.get("items")
    if isinstance(items, list):
        kept["items"] = [lenient(each, patterns=patterns) for each in items]
    elif items is not None:
        kept["items"] = lenient(items, patterns=patterns)
    return kept


def is_date(text: str) -> bool:
    """Return whether a target can read a text as a date, also with a time after it.

    >>> is_date("2024-02-29"), is_date("2024-02-29T00:00:00Z"), is_date("2024-02-30"), is_date("soon")
    (True, True, False, False)
    """
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return text.strip().lower() in ("infinity", "-infinity")
    month, day = int(match["month"]), int(match["day"])
    leap = match["sign"] == "-" or " BC" in text or len(match["year"]) > 4 or isleap(int(match["year"]))
    return 1 <= month <= 12 and 1 <= day <= (29 if month == 2 and leap else monthrange(2023, month)[1])


def without_flags(schema: Any) -> Any:
    """Return the schema with draft 4's exclusive bounds (flags) written as in draft 7, and without `multipleOf`.

    >>> without_flags({"type": "number", "maximum": 10, "exclusiveMaximum": True, "multipleOf": 0.01})
    {'type': 'number', 'exclusiveMaximum': 10}
    """
    if isinstance(schema, list):
        return [without_flags(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept: JSONObject = {}
    for word, each in schema.items():
        if word in _SCHEMA_MAPS and isinstance(each, Mapping):  # its keys are names, not keywords
            kept[word] = {name: without_flags(prop) for name, prop in each.items()}
        elif word != "multipleOf":
            kept[word] = without_flags(each)
    for inclusive, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(kept.get(exclusive), bool) and kept.pop(exclusive) and inclusive in kept:
            kept[exclusive] = kept.pop(inclusive)
    return kept


def validator(stream: str, schemas: Sequence[Any], **options: Any) -> jsonschema_rs.Draft7Validator:
    """Return a validator for the first of these schemas of a stream that is valid.

    Args:
        stream: the stream's name, for the error.
        schemas: the schema, and what is tried in its place.
        options: arguments of the validator.

    Raises:
        StreamlineError: none of them is valid, or one refers to another document. No document is fetched.
    """
    import jsonschema_rs

    for schema in schemas:
        try:
            return jsonschema_rs.Draft7Validator(schema, retriever=_refuse, **options)
        except (ValueError, jsonschema_rs.ValidationError) as error:
            reason = getattr(error, "message", str(error))
    raise StreamlineError(
        f"its SCHEMA cannot be used to validate records: {reason}",
        where=f"stream {stream}",
        hint="correct it with its `schema` in the source block, or set `on_bad_record: pass` in the destination",
        code="stream.schema_invalid",
    )


def _refuse(address: str) -> NoReturn:
    raise ValueError("a $ref to another document is not followed")


def _types(declared: Any) -> str | list[str]:
    if isinstance(declared, str):
        return declared if declared in ALL_TYPES else ""
    if isinstance(declared, list):
        named = [each for each in dict.fromkeys(map(str, declared)) if each in ALL_TYPES]
        return named if len(named) == len(set(map(str, declared))) else []
    return ""


def _bounds(schema: Mapping[str, Any], kept: JSONObject) -> None:
    for inclusive, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        bound, beyond = schema.get(inclusive), schema.get(exclusive)
        if _is_number(bound):
            # In draft 4 a flag says whether the bound itself is allowed.
            kept[exclusive if beyond is True else inclusive] = bound
        if _is_number(beyond):
            kept[exclusive] = beyond


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) != float("inf")
