"""Values of messages as columns of tables: the types that they need, and how they are handed to the database.

Values go as text where their types differ: the database makes of it what the column's type says.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence, Set
from decimal import Decimal
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec
import pyarrow as pa

from streamline.connectors.tables.settings import System
from streamline.databases.arrow import INT64
from streamline.databases.postgres import array_text
from streamline.flow.codecs.jsontext import dumps

Family: TypeAlias = Literal[
    "boolean", "integer", "wide", "number", "decimal", "text", "bytes", "moment", "timestamp", "date", "time", "uuid",
    "json", "array", "other",
]  # fmt: skip


class MisfitError(ValueError):
    """A message cannot become a row."""


class Column(msgspec.Struct, frozen=True):
    """A column of a table.

    Args:
        kind: its SQL type.
        default: it has a value of its own where none is given.
        generated: it cannot be written.
    """

    name: str
    kind: str
    default: bool = False
    generated: bool = False

    @property
    def family(self) -> Family:
        """What its type is akin to."""
        return next((family for pattern, family in _FAMILIES if pattern.match(self.kind)), "other")


_FAMILIES: tuple[tuple[re.Pattern[str], Family], ...] = (
    (re.compile(r".*\[\d*\]$"), "array"),
    (re.compile(r"u?hugeint$", re.IGNORECASE), "wide"),
    (re.compile(r"u?(tiny|small|big)?int(eger|\d)?$", re.IGNORECASE), "integer"),
    (re.compile(r"bool", re.IGNORECASE), "boolean"),
    (re.compile(r"double|real|float", re.IGNORECASE), "number"),
    (re.compile(r"numeric|decimal", re.IGNORECASE), "decimal"),
    (re.compile(r"text|varchar|char", re.IGNORECASE), "text"),
    (re.compile(r"bytea|blob", re.IGNORECASE), "bytes"),
    (re.compile(r"jsonb?$", re.IGNORECASE), "json"),
)
_TYPES: dict[Family, str] = {
    "boolean": "boolean",
    "integer": "bigint",
    "wide": "numeric",
    "number": "double precision",
    "decimal": "numeric",
    "text": "text",
    "bytes": "bytea",
    "moment": "timestamptz",
    "timestamp": "timestamp",
    "date": "date",
    "time": "time",
    "uuid": "uuid",
    "json": "jsonb",
}
_DUCKDB: dict[Family, str] = {"wide": "hugeint", "decimal": "double", "number": "double", "json": "json"}
_OF_TYPES: dict[type, Family] = {
    bool: "boolean",
    float: "number",
    Decimal: "decimal",
    str: "text",
    bytes: "bytes",
    dt.date: "date",
    dt.time: "time",
    UUID: "uuid",
    dict: "json",
    list: "json",
    tuple: "json",
}
_BITS = {"tinyint": 8, "smallint": 16, "int2": 16, "integer": 32, "int4": 32, "bigint": 64, "int8": 64}
_WHOLE = re.compile(r"\s*[+-]?\d+\s*$")


def sql_type(family: Family, system: System) -> str:
    """Return the type of a new column."""
    return (_DUCKDB.get(family) if system == "duckdb" else None) or _TYPES[family]


def family_of(values: Sequence[Any]) -> Family | None:
    """Return the narrowest family that holds all values; None: there are only nulls."""
    return widest({_family(value) for value in values if value is not None})


def widest(families: Set[Family]) -> Family | None:
    """Return the narrowest family that holds all values of these; None: there are none."""
    if len(families) < 2:
        return next(iter(families), None)
    if "json" in families:
        return "json"
    for wider in ({"integer", "wide"}, {"integer", "wide", "number"}, {"integer", "wide", "number", "decimal"}):
        if families <= wider:
            return next(family for family in ("decimal", "number", "wide") if family in families)
    return "text"


def _family(value: Any) -> Family:
    kind = type(value)
    if kind is int:
        return "integer" if value in INT64 else "wide"
    if isinstance(value, dt.datetime):
        return "timestamp" if value.tzinfo is None else "moment"
    return _OF_TYPES.get(kind, "text")


def widened(column: Column, values: Sequence[Any], system: System) -> str | None:
    """Return the type that a column of integers needs for these numbers; None: it is wide enough."""
    if column.family not in ("integer", "wide"):
        return None
    if any(isinstance(value, float | Decimal) and not _is_whole(value) for value in values):
        return sql_type("number", system)
    bits = _BITS.get(column.kind.lower())
    numbers = [value for value in values if type(value) is int]
    if bits is None or all(-(2 ** (bits - 1)) <= value < 2 ** (bits - 1) for value in numbers):
        return None
    return sql_type("integer" if all(value in INT64 for value in numbers) else "wide", system)


def column_of(values: Sequence[Any], column: Column, system: System) -> pa.Array:
    """Return values as they are handed to the database.

    Raises:
        ValueError: one does not fit the column, whatever the database would make of it.
    """
    family = column.family
    kinds = {type(value) for value in values if value is not None}
    if family == "json":
        return _texts([None if value is None else _json(value) for value in values])
    if family == "integer" or family == "wide":
        values = [value if value is None or type(value) is int else _integer(value, column) for value in values]
        if all(value is None or value in INT64 for value in values):
            return pa.array(values, pa.int64())
    elif family == "bytes":
        return pa.array([value.encode() if isinstance(value, str) else value for value in values], pa.binary())
    elif family == "array" and system == "postgres":
        return _texts([array_text(value) if isinstance(value, list) else as_text(value) for value in values])
    elif kinds == {float}:
        return pa.array(values, pa.float64())
    elif kinds == {bool}:
        return pa.array(values, pa.bool_())
    elif kinds == {int} and family == "number":
        return pa.array(list(map(as_text, values)), pa.string())
    return _texts(list(map(as_text, values)))


def as_text(value: Any) -> str | None:
    """Return a value as text.

    Raises:
        ValueError: it is bytes that are not UTF-8.
    """
    if value is None or type(value) is str:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes | bytearray):
        return value.decode()
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dict | list | tuple):
        return _json(value)
    return str(value)


def _texts(values: list[str | None]) -> pa.Array:
    return pa.array(values, pa.string())


def _json(value: Any) -> str:
    try:
        return dumps(value).decode()
    except TypeError as error:
        raise MisfitError(str(error)) from error


def _integer(value: Any, column: Column) -> int:
    if isinstance(value, float | Decimal) and _is_whole(value):
        return int(value)
    if isinstance(value, str) and _WHOLE.match(value):
        return int(value)
    raise MisfitError(f"column {column.name} is of type {column.kind}, and the value is {value!r:.100}")


def _is_whole(value: float | Decimal) -> bool:
    return math.isfinite(value) and value == int(value)
