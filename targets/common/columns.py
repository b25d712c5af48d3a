"""Column types: what a JSON Schema makes of a column, and the wider types that it may become."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

MAX_DIGITS = 38


class ColumnType(NamedTuple):
    """A type by SQL's name; precision and scale are a DECIMAL's."""

    name: str
    precision: int = 0
    scale: int = 0

    @property
    def sql(self) -> str:
        """As DuckDB spells it."""
        return f"DECIMAL({self.precision},{self.scale})" if self.name == "DECIMAL" else self.name


BOOLEAN = ColumnType("BOOLEAN")
BIGINT = ColumnType("BIGINT")
HUGEINT = ColumnType("HUGEINT")
DOUBLE = ColumnType("DOUBLE")
DATE = ColumnType("DATE")
TIMESTAMP = ColumnType("TIMESTAMP")
TIME = ColumnType("TIME")
BLOB = ColumnType("BLOB")
JSON = ColumnType("JSON")
VARCHAR = ColumnType("VARCHAR")
TYPE_NAMES = frozenset(
    ("BOOLEAN", "BIGINT", "HUGEINT", "DECIMAL", "DOUBLE", "DATE", "TIMESTAMP", "TIME", "BLOB", "JSON", "VARCHAR")
)


def column_type(schema: Any, now: ColumnType | None = None) -> ColumnType:
    """Return the type of a column with this schema: text for mixed types, JSON for nested values.

    Args:
        now: the type that the column has; one that is only declared to be null keeps it.
    """
    if not isinstance(schema, dict):
        return JSON
    types = json_types(schema)
    if types == {"null"}:
        return now or VARCHAR
    types -= {"null"}
    if not types or types & {"object", "array"}:
        return JSON
    if types <= {"integer", "number"}:
        return _number_type(schema, types)
    if types == {"boolean"}:
        return BOOLEAN
    return _text_type(schema) if types == {"string"} else VARCHAR


def json_types(schema: Mapping[str, Any]) -> set[str]:
    """Return JSON types that a schema allows, `anyOf` and `oneOf` included; empty where it allows everything."""
    types = schema.get("type")
    allowed = {types} if isinstance(types, str) else {name for name in types or () if isinstance(name, str)}
    for choice in (*_list(schema.get("anyOf")), *_list(schema.get("oneOf"))):
        inner = json_types(choice) if isinstance(choice, dict) else set()
        if not inner:
            return set()
        allowed |= inner
    return allowed


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _choices(schema: Mapping[str, Any], key: str) -> Any:
    """Return a keyword of the schema, or of the one choice that has it."""
    for place in (schema, *_list(schema.get("anyOf")), *_list(schema.get("oneOf"))):
        if isinstance(place, dict) and place.get(key) is not None:
            return place[key]
    return None


def _number_type(schema: Mapping[str, Any], types: set[str]) -> ColumnType:
    if types == {"integer"}:
        limits = [_choices(schema, key) for key in ("minimum", "maximum")]
        fits = all(not isinstance(limit, (int, float)) or -(2**63) <= limit < 2**63 for limit in limits)
        return BIGINT if fits else HUGEINT
    step = _choices(schema, "multipleOf")
    # Taps say the scale of a decimal by the smallest step: 0.01 is two digits.
    if isinstance(step, (int, float)) and not isinstance(step, bool) and 0 < step <= 1:
        scale = -(Decimal(repr(step)).normalize().as_tuple().exponent or 0)  # type: ignore[operator]  # it is finite
        if 0 <= scale <= MAX_DIGITS and Decimal(repr(step)) == Decimal(1).scaleb(-scale):
            return ColumnType("DECIMAL", MAX_DIGITS, scale)
    return DOUBLE


_FORMATS = {"date": DATE, "date-time": TIMESTAMP, "time": TIME}


def _text_type(schema: Mapping[str, Any]) -> ColumnType:
    format_ = _choices(schema, "format")
    if format_ in ("singer.decimal", "x-singer.decimal"):
        precision, scale = _choices(schema, "precision"), _choices(schema, "scale")
        if isinstance(precision, int) and isinstance(scale, int) and 0 <= scale <= precision <= MAX_DIGITS:
            return ColumnType("DECIMAL", precision, scale)
        return ColumnType("DECIMAL", MAX_DIGITS, 9)
    if _choices(schema, "contentEncoding") == "base64":
        return BLOB
    return _FORMATS.get(format_, VARCHAR) if isinstance(format_, str) else VARCHAR


def wider(column_type: ColumnType, other: ColumnType) -> ColumnType:
    """Return a type for the values of `column_type` and `other`; `column_type` itself if it holds both.

    A type that this target never creates was chosen by somebody, and stays.
    """
    if column_type == other or column_type in (JSON, VARCHAR) or column_type.name not in TYPE_NAMES:
        return column_type
    names = {column_type.name, other.name}
    if names <= {"BIGINT", "HUGEINT"}:
        return HUGEINT
    if names <= {"BIGINT", "HUGEINT", "DECIMAL"}:
        return _wider_decimal(column_type, other)
    if names <= {"BIGINT", "HUGEINT", "DOUBLE"}:
        return DOUBLE
    if names == {"DECIMAL", "DOUBLE"}:
        # An exact column stays exact; a value that does not fit it will say so.
        return column_type if column_type.name == "DECIMAL" else other
    if names == {"DATE", "TIMESTAMP"}:
        return TIMESTAMP
    return JSON if other == JSON else VARCHAR


def _wider_decimal(column_type: ColumnType, other: ColumnType) -> ColumnType:
    whole = {"BIGINT": 19, "HUGEINT": 38}
    digits = max(whole.get(each.name, each.precision - each.scale) for each in (column_type, other))
    return decimal_type(digits, max(column_type.scale, other.scale))


def decimal_type(whole: int, scale: int) -> ColumnType:
    """Return the DECIMAL with exactly these digits before and after the point; VARCHAR if there is none."""
    return ColumnType("DECIMAL", max(1, whole + scale), scale) if whole + scale <= MAX_DIGITS else VARCHAR


def roomy(type_: ColumnType) -> ColumnType:
    """Return the type; a DECIMAL gets the most digits before the point, since a column that grew once grows again."""
    return ColumnType("DECIMAL", MAX_DIGITS, type_.scale) if type_.name == "DECIMAL" else type_
