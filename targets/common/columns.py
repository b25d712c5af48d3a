"""Column types: from JSON Schema, wider ones, and the Arrow arrays of a batch.

Two things may be wrong with a value. It can break its schema (a text in an integer column): `BadValue`, and the record
is named. Or it keeps its schema and no type that was chosen for it can hold it (an integer of 80 bits, a number with
30 digits, the 31st of February in a `date`): `TooNarrow` says which type can, so that nothing is lost or bent.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DIGITS = 38
_EXACT_INTEGERS = 2**53


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


class BadValue(Exception):
    """A value that breaks its column's schema.

    Attributes:
        index: of the value in the batch.
        reason: what is wrong with it.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


class TooNarrow(Exception):
    """The column must become `wider` before it can hold the batch."""

    def __init__(self, wider: ColumnType) -> None:
        super().__init__(wider.sql)
        self.wider = wider


def column_type(schema: Any) -> ColumnType:
    """The type for a property's schema. What mixes types becomes text, what may be nested JSON."""
    if not isinstance(schema, dict):
        return JSON
    types = json_types(schema) - {"null"}
    if not types or types & {"object", "array"}:
        return JSON
    if types <= {"integer", "number"}:
        return _number_type(schema, types)
    if types == {"boolean"}:
        return BOOLEAN
    return _text_type(schema) if types == {"string"} else VARCHAR


def json_types(schema: Mapping[str, Any]) -> set[str]:
    """JSON types that a schema allows, `anyOf` and `oneOf` included; empty where it allows everything."""
    types = schema.get("type")
    found = {types} if isinstance(types, str) else {name for name in types or () if isinstance(name, str)}
    for choice in (*_list(schema.get("anyOf")), *_list(schema.get("oneOf"))):
        inner = json_types(choice) if isinstance(choice, dict) else set()
        if not inner:
            return set()
        found |= inner
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _choices(schema: Mapping[str, Any], key: str) -> Any:
    """A keyword of the schema, or of the one choice that has it."""
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


def wider(one: ColumnType, other: ColumnType) -> ColumnType:
    """A type that holds what `one`, a column's, holds, and what `other` does; `one` itself wherever it can.

    A type that is none of ours was somebody's choice, and stays.
    """
    if one == other or one in (JSON, VARCHAR) or one.name not in TYPE_NAMES:
        return one
    names = {one.name, other.name}
    if names <= {"BIGINT", "HUGEINT"}:
        return HUGEINT
    if names <= {"BIGINT", "HUGEINT", "DECIMAL"}:
        return _wider_decimal(one, other)
    if names <= {"BIGINT", "HUGEINT", "DOUBLE"}:
        return DOUBLE
    if names == {"DECIMAL", "DOUBLE"}:
        # An exact column stays exact; a value that does not fit it will say so.
        return one if one.name == "DECIMAL" else other
    if names == {"DATE", "TIMESTAMP"}:
        return TIMESTAMP
    return JSON if other == JSON else VARCHAR


def _wider_decimal(one: ColumnType, other: ColumnType) -> ColumnType:
    whole = {"BIGINT": 19, "HUGEINT": 38}
    digits = max(whole.get(found.name, found.precision - found.scale) for found in (one, other))
    return decimal_type(digits, max(one.scale, other.scale))


def decimal_type(whole: int, scale: int) -> ColumnType:
    """The DECIMAL of just so many digits before and after the point; VARCHAR where there is none."""
    return ColumnType("DECIMAL", max(1, whole + scale), scale) if whole + scale <= MAX_DIGITS else VARCHAR


def roomy(type_: ColumnType) -> ColumnType:
    """The type, a DECIMAL with as many digits before the point as there can be: who has grown will grow."""
    return ColumnType("DECIMAL", MAX_DIGITS, type_.scale) if type_.name == "DECIMAL" else type_


# Arrays ---------------------------------------------------------------------------------------------------------------


def array(column: ColumnType, values: Sequence[Any]) -> pa.Array:
    """The values, as `messages.decode_records` gives them, as an Arrow array of the column's type.

    Raises:
        BadValue: a value breaks the column's schema.
        TooNarrow: the column needs a wider type.
    """
    kinds = set(map(type, values))
    kinds.discard(type(None))
    return _ARRAYS[column.name](column, values, kinds)


def _require(type_: type, values: Sequence[Any], kinds: set[type], wanted: str) -> None:
    if kinds - {type_}:
        _reject(values, lambda value: type(value) is type_, wanted)


def _reject(values: Sequence[Any], allowed: Callable[[Any], bool], wanted: str) -> None:
    for index, value in enumerate(values):
        if value is not None and not allowed(value):
            shown = repr(value)
            raise BadValue(index, f"{shown[:80]}{'…' if len(shown) > 80 else ''} is no {wanted}")


def _is_integral(value: Any) -> bool:
    if type(value) is int:
        return True
    return (type(value) is float and value.is_integer()) or (
        type(value) is Decimal and value.is_finite() and value == value.to_integral_value()
    )


def _integers(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    import pyarrow as pa

    if kinds - {int}:
        _reject(values, _is_integral, "integer")
        values = [None if value is None else int(value) for value in values]
    try:
        return pa.array(values, pa.int64() if column == BIGINT else pa.decimal128(MAX_DIGITS, 0))
    except (OverflowError, pa.ArrowInvalid):
        big = max(abs(value) for value in values if value is not None) >= 10**MAX_DIGITS
        raise TooNarrow(VARCHAR if big else HUGEINT) from None


def _doubles(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    import pyarrow as pa

    if kinds - {int, float}:
        _reject(values, lambda value: type(value) in (int, float, Decimal), "number")
    if Decimal in kinds or (int in kinds and any(_is_inexact(value) for value in values)):
        numbers = [_decimal(value) for value in values]
        if all(number is None or number.is_finite() for number in numbers):
            raise TooNarrow(decimal_type(*_digits(numbers)))
        raise TooNarrow(VARCHAR)
    if int in kinds:
        values = [float(value) if type(value) is int else value for value in values]
    return pa.array(values, pa.float64())


def _is_inexact(value: Any) -> bool:
    if type(value) is not int or -_EXACT_INTEGERS <= value <= _EXACT_INTEGERS:
        return False
    try:
        # The shortest text of a float is what it means to whoever reads it, and what it becomes if widened later.
        return Decimal(repr(float(value))) != value
    except OverflowError:
        return True


def _digits(values: Sequence[Any]) -> tuple[int, int]:
    """The most digits before and after the point that any of these finite numbers has."""
    whole = scale = 0
    for value in values:
        if value is not None:
            _, digits, exponent = Decimal(value).as_tuple()
            scale = max(scale, -int(exponent))
            whole = max(whole, len(digits) + int(exponent))
    return whole, scale


def _decimal(value: Any) -> Decimal | None:
    if value is None or type(value) is Decimal:
        return value
    return Decimal(repr(value)) if type(value) is float else Decimal(value)


def _is_decimal(value: Any) -> bool:
    if type(value) not in (int, float, Decimal, str):
        return False
    try:
        number = _decimal(value)
    except InvalidOperation:
        return False
    return number is not None and number.is_finite()


def _decimals(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    import pyarrow as pa

    if not kinds <= {int, Decimal}:
        _reject(values, _is_decimal, "decimal number")
    numbers = [_decimal(value) for value in values]
    try:
        return pa.array(numbers, pa.decimal128(column.precision, column.scale))
    except pa.ArrowInvalid:
        whole, scale = _digits(numbers)
        raise TooNarrow(decimal_type(whole, max(column.scale, scale))) from None


def _booleans(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    import pyarrow as pa

    _require(bool, values, kinds, "boolean")
    return pa.array(values, pa.bool_())


def _dates(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    import pyarrow as pa

    _require(str, values, kinds, "date")
    try:
        return _strings(VARCHAR, values, kinds).cast(pa.date32())
    except pa.ArrowInvalid:
        _timestamps(TIMESTAMP, values, kinds)
        raise TooNarrow(TIMESTAMP) from None


_FRACTION = re.compile(r"(\.\d{6})(\d+)")


def _timestamps(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    """Moments in UTC, to the microsecond; a text without a zone is taken as UTC."""
    import pyarrow as pa

    _require(str, values, kinds, "date-time")
    texts = _strings(VARCHAR, values, kinds)
    for zone in ("UTC", None):
        try:
            return texts.cast(pa.timestamp("us", zone)).cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            continue
    return pa.array([None if value is None else _moment(value) for value in values], pa.timestamp("us"))


def _moment(text: str) -> datetime:
    match = _FRACTION.search(text)
    if match:
        if match[2].strip("0"):
            raise TooNarrow(VARCHAR)
        text = text[: match.start(2)] + text[match.end(2) :]
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise TooNarrow(VARCHAR) from None


def _times(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    import pyarrow as pa

    _require(str, values, kinds, "time")
    found: list[time | None] = []
    for value in values:
        try:
            moment = None if value is None else time.fromisoformat(value)
        except ValueError:
            raise TooNarrow(VARCHAR) from None
        if moment is not None and moment.tzinfo is not None:
            if moment.utcoffset():
                raise TooNarrow(VARCHAR)
            moment = moment.replace(tzinfo=None)
        found.append(moment)
    return pa.array(found, pa.time64("us"))


def _blobs(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    import pyarrow as pa

    _require(str, values, kinds, "text in base64")
    try:
        found = [None if value is None else base64.b64decode(value, validate=True) for value in values]
    except (binascii.Error, ValueError):
        raise TooNarrow(VARCHAR) from None
    return pa.array(found, pa.binary())


_ENCODER = msgspec.json.Encoder(decimal_format="number")


def json_text(value: Any) -> str:
    """A value's JSON text, numbers exact.

    Raises:
        ValueError: it holds what JSON cannot say (NaN, a lone surrogate).
    """
    text = _ENCODER.encode(value).decode()
    if "null" in text and _holds_nan(value):
        # The encoder writes null for it.
        raise ValueError("NaN and infinities are no JSON")
    return text


def _holds_nan(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_holds_nan, value.values()))
    return isinstance(value, list) and any(map(_holds_nan, value))


def _json(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    import pyarrow as pa

    return pa.array(_texts(values, json_text), pa.string())


def _strings(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    """Texts as they are, anything else as its JSON text."""
    import pyarrow as pa

    if kinds - {str}:
        values = _texts(values, lambda value: value if type(value) is str else json_text(value))
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        _texts(values, lambda value: value.encode() and value)
        raise


def _texts(values: Sequence[Any], text: Callable[[Any], str]) -> list[str | None]:
    found: list[str | None] = []
    for index, value in enumerate(values):
        try:
            found.append(None if value is None else text(value))
        except UnicodeEncodeError:
            raise BadValue(index, "its text has a lone surrogate, which no UTF-8 can hold") from None
        except ValueError as error:
            raise BadValue(index, str(error)) from None
    return found


_ARRAYS: dict[str, Callable[[ColumnType, Sequence[Any], set[type]], pa.Array]] = {
    "BOOLEAN": _booleans,
    "BIGINT": _integers,
    "HUGEINT": _integers,
    "DECIMAL": _decimals,
    "DOUBLE": _doubles,
    "DATE": _dates,
    "TIMESTAMP": _timestamps,
    "TIME": _times,
    "BLOB": _blobs,
    "JSON": _json,
    "VARCHAR": _strings,
}
