"""Declared column types of SQLite as JSON Schema, and stored values as JSON values.

SQLite stores any value in any column, whatever was declared. A declaration gives a column its *kind*; what does not fit
it is sent as it is stored, and the caller widens the schema (see `StreamOutput.widen`).
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import orjson

from ..common.moments import date_times, dates

Kind = Literal["integer", "number", "decimal", "boolean", "string", "blob", "date", "date-time", "any"]

_INFINITE = frozenset((math.inf, -math.inf))
_BOOLEANS = {0: False, 1: True, None: None}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_JSON_TYPES: dict[type, str] = {int: "integer", float: "number", str: "string", bytes: "string"}

_SCHEMAS: dict[Kind, dict[str, Any]] = {
    "integer": {"type": ["integer"]},
    "number": {"type": ["number"]},
    "decimal": {"type": ["number"]},
    "boolean": {"type": ["boolean"]},
    "string": {"type": ["string"]},
    "blob": {"type": ["string"], "contentEncoding": "base64", "description": "binary, encoded as base64"},
    "date": {"type": ["string"], "format": "date"},
    "date-time": {"type": ["string"], "format": "date-time"},
    "any": {"type": ["integer", "number", "string"]},
}


def schema(kind: Kind, *, nullable: bool) -> dict[str, Any]:
    """Return the JSON Schema of a column of this kind."""
    json_schema = dict(_SCHEMAS[kind])
    if nullable:
        json_schema["type"] = ["null", *json_schema["type"]]
    return json_schema


def kind_of(declared: str) -> Kind | None:
    """Return the kind that a declared type means; None where only the stored values can tell.

    Dates, decimals and booleans are no types of SQLite: the words that people declare them with are. The rest follows
    SQLite's own rules of affinity (https://sqlite.org/datatype3.html §3.1), but for its last, by which a type of any
    unknown name is numeric.
    """
    words = declared.upper().partition("(")[0].strip()
    if words.startswith("BOOL"):
        return "boolean"
    if words == "DATE":
        return "date"
    if words == "DATETIME" or words.startswith("TIMESTAMP"):
        return "date-time"
    if words.startswith(("DECIMAL", "NUMERIC")):
        return "decimal"
    if words in ("JSON", "UUID", "GUID") or words.startswith("TIME"):
        return "string"
    for part, kind in _AFFINITIES:
        if part in words:
            return kind
    return None


_AFFINITIES: tuple[tuple[str, Kind], ...] = (
    ("INT", "integer"),
    ("CHAR", "string"),
    ("CLOB", "string"),
    ("TEXT", "string"),
    ("BLOB", "blob"),
    ("REAL", "number"),
    ("FLOA", "number"),
    ("DOUB", "number"),
)


def kind_by_values(declared: Kind | None, values: Sequence[Any]) -> Kind:
    """Return the kind of a column by a sample of its values: for columns without a telling type, and for dates.

    Dates are stored as texts of several forms, or as numbers of an unknown unit. A column is a date only where
    the sample's values look like one.
    """
    stored = {type(value) for value in values if value is not None}
    if declared in ("date", "date-time"):
        if stored <= {str}:
            _, fit = dates(values) if declared == "date" else date_times(values)
            return declared if fit else "string"
    elif declared is not None:
        return declared
    if not stored:
        return "any"
    if stored <= {int}:
        return "integer"
    if stored <= {int, float}:
        return "number"
    if stored <= {str}:
        return "string"
    return "blob" if stored <= {bytes} else "any"


class Converted(NamedTuple):
    """A column's values as JSON values, and what its schema must take beside its kind."""

    values: Sequence[Any]
    extra: tuple[str, ...] = ()
    """JSON types."""
    breaks_format: bool = False
    """Some text is no date, or no date-time."""
    is_encoded: bool = False
    """Some bytes stand where there should be none, and are sent in base64."""


_FITTING: dict[Kind, frozenset[type]] = {
    "integer": frozenset((int,)),
    "number": frozenset((int, float)),
    "decimal": frozenset((int, float)),
    "string": frozenset((str,)),
    "any": frozenset((int, float, str)),
}


def convert(kind: Kind, column: Sequence[Any]) -> Converted:
    """Return the JSON values of some rows' column. Fast where everything fits, as it mostly does."""
    stored = set(map(type, column))
    has_null = type(None) in stored
    stored.discard(type(None))
    extra = ["null"] if has_null else []
    fitting = _FITTING.get(kind)
    values: Sequence[Any] = column
    breaks_format = False
    if fitting is None:
        values, misfits, breaks_format = _special(kind, column, stored)
    else:
        misfits = stored - fitting
        if kind == "decimal" and str in misfits and all(_is_number(value) for value in column):
            values = [orjson.Fragment(value) if isinstance(value, str) else value for value in column]
            misfits = misfits - {str}
        if bytes in misfits:
            values = [b64encode(value).decode() if isinstance(value, bytes) else value for value in values]
    if float in stored and not _INFINITE.isdisjoint(column):
        # JSON has no infinity, and a null would hide that there was a value.
        values = [("Infinity" if v > 0 else "-Infinity") if type(v) is float and math.isinf(v) else v for v in values]
        misfits = misfits | {str}
    extra += [_JSON_TYPES[misfit] for misfit in misfits]
    return Converted(values, tuple(extra), breaks_format, bytes in stored and kind != "blob")


def _special(kind: Kind, column: Sequence[Any], stored: set[type]) -> tuple[Sequence[Any], set[type], bool]:
    if kind == "boolean":
        fits = stored <= {int} and _BOOLEANS.keys() >= set(column)
        if fits:
            return [_BOOLEANS[value] for value in column], set(), False
        return [_encoded(_BOOLEANS.get(v, v) if type(v) is int else v) for v in column], stored, False
    if kind == "blob":
        values = [
            b64encode(value if isinstance(value, bytes) else value.encode()).decode()
            if isinstance(value, (bytes, str))
            else value
            for value in column
        ]
        return values, stored - {bytes, str}, False
    texts, fit = dates(column) if kind == "date" else date_times(column)
    misfits = stored - {str}
    if bytes in misfits:
        return [_encoded(value) for value in texts], misfits, True
    return texts, misfits, not fit


def _encoded(value: Any) -> Any:
    return b64encode(value).decode() if isinstance(value, bytes) else value


def _is_number(value: Any) -> bool:
    return not isinstance(value, str) or _NUMBER.fullmatch(value) is not None
