"""Values of a column as Arrow arrays.

Two things may be wrong with a value. It can break its schema (a text in an integer column): `BadValue`, and the record
is named. Or it keeps its schema and no type that was chosen for it can hold it (an integer of 80 bits, a number with
30 digits, the 31st of February in a `date`): `TooNarrow` says which type can, so that nothing is lost or bent.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import msgspec

from .columns import BIGINT, HUGEINT, MAX_DIGITS, TIMESTAMP, VARCHAR, ColumnType, decimal_type

if TYPE_CHECKING:
    import pyarrow as pa

_EXACT_INTEGERS = 2**53


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


def array(column: ColumnType, values: Sequence[Any]) -> pa.Array:
    """Return the values, as `messages.decode_records` gives them, as an Arrow array of the column's type.

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
            raise BadValue(index, f"{shown[:80]}{'…' if len(shown) > 80 else ''} is not a valid {wanted}")


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
        # The shortest text of a float is what a reader sees, and what it becomes if widened later.
        return Decimal(repr(float(value))) != value
    except OverflowError:
        return True


def _digits(values: Sequence[Any]) -> tuple[int, int]:
    """Return the most digits before and after the point that any of these finite numbers has."""
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
        _reject(values, lambda value: type(value) is str or _is_decimal(value), "decimal number")
        if str in kinds and not all(value is None or _is_decimal(value) for value in values):
            raise TooNarrow(VARCHAR)
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


_FRACTION = re.compile(r"([.,]\d{6})(\d+)")


def _timestamps(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    """Return moments in UTC, to the microsecond; a text without a zone is taken as UTC."""
    import pyarrow as pa

    _require(str, values, kinds, "date-time")
    texts = _strings(VARCHAR, values, kinds)
    for zone in ("UTC", None):
        try:
            return texts.cast(pa.timestamp("us", zone)).cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            continue
    return pa.array([None if value is None else _moment(value) for value in values], pa.timestamp("us"))


def _to_microseconds(text: str) -> str:
    """Return the text without zeros after the sixth digit of its seconds; Python would silently drop other digits.

    Raises:
        TooNarrow: other digits follow.
    """
    match = _FRACTION.search(text)
    if match is None:
        return text
    if match[2].strip("0"):
        raise TooNarrow(VARCHAR)
    return text[: match.start(2)] + text[match.end(2) :]


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_to_microseconds(text))
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise TooNarrow(VARCHAR) from None


def _times(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    import pyarrow as pa

    _require(str, values, kinds, "time")
    times: list[time | None] = []
    for value in values:
        try:
            moment = None if value is None else time.fromisoformat(_to_microseconds(value))
        except ValueError:
            raise TooNarrow(VARCHAR) from None
        if moment is not None and moment.tzinfo is not None:
            if moment.utcoffset():
                raise TooNarrow(VARCHAR)
            moment = moment.replace(tzinfo=None)
        times.append(moment)
    return pa.array(times, pa.time64("us"))


def _blobs(column: ColumnType, values: Sequence[Any], kinds: set[type]) -> pa.Array:
    import pyarrow as pa

    _require(str, values, kinds, "text in base64")
    try:
        blobs = [None if value is None else base64.b64decode(value, validate=True) for value in values]
    except (binascii.Error, ValueError):
        raise TooNarrow(VARCHAR) from None
    return pa.array(blobs, pa.binary())


_ENCODER = msgspec.json.Encoder(decimal_format="number")


def json_text(value: Any) -> str:
    """Return a value's JSON text, numbers exact.

    Raises:
        ValueError: it holds what JSON cannot say (NaN, a lone surrogate).
    """
    text = _ENCODER.encode(value).decode()
    if "null" in text and _holds_nan(value):
        # The encoder writes null for it.
        raise ValueError("JSON has no NaN or infinity")
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
    """Return texts unchanged, anything else as its JSON text."""
    import pyarrow as pa

    if kinds - {str}:
        values = _texts(values, lambda value: value if type(value) is str else json_text(value))
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        _texts(values, lambda value: value.encode() and value)
        raise


def _texts(values: Sequence[Any], text: Callable[[Any], str]) -> list[str | None]:
    texts: list[str | None] = []
    for index, value in enumerate(values):
        try:
            texts.append(None if value is None else text(value))
        except UnicodeEncodeError:
            raise BadValue(index, "its text has a lone surrogate, which UTF-8 cannot represent") from None
        except ValueError as error:
            raise BadValue(index, str(error)) from None
    return texts


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
