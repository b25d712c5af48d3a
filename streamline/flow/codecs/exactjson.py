"""JSON with exact values, both ways: what a record said is what its numbers and strings keep saying.

Decoding: integers of any size are `int`; a fraction is a `float` where the float means the same number,
else a `Decimal`. Encoding: `Decimal`s and integers of any size with all their digits, dates and times as
ISO 8601, and what only Python's own parser takes (`NaN`, `Infinity`, lone surrogates) as it was read.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from json.encoder import encode_basestring_ascii
from typing import Any
from uuid import UUID

import msgspec

# Fifteen significant digits always survive a float; a text of sixteen characters with a point has no more.
_SAFE_LENGTH = 16

_encoder = msgspec.json.Encoder(decimal_format="number")
_packer = msgspec.msgpack.Encoder(enc_hook=str)
# How msgpack begins NaN and the infinities; a false match costs time only.
_NON_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")


def exact_fraction(text: str) -> float | Decimal:
    """The number that `text` (a JSON number with a point or an exponent) means, as a float if that is exact.

    >>> exact_fraction("19.90"), exact_fraction("0.12345678901234567890123")
    (19.9, Decimal('0.12345678901234567890123'))
    """
    if len(text) <= _SAFE_LENGTH and "e" not in text and "E" not in text:
        return float(text)
    return plain_number(Decimal(text))


def plain_number(value: Decimal) -> float | Decimal:
    """`value` as a float if the float means the same number, else as it is."""
    number = float(value)
    return number if Decimal(repr(number)) == value else value


def exact_integer(text: str) -> int | Decimal:
    """An integer of any size; a `Decimal` beyond the number of digits that Python converts (4,300)."""
    try:
        return int(text)
    except ValueError:
        return Decimal(text)


def loads(text: bytes | str, *, decimals: bool = False) -> Any:
    """Decode JSON with the standard library, which also takes `NaN`, `Infinity` and lone surrogates.

    Args:
        text: one JSON value, UTF-8 where it is bytes.
        decimals: every fraction is a `Decimal`.

    Raises:
        ValueError: it is no JSON (or no UTF-8).
    """
    if isinstance(text, bytes):
        text = text.decode()
    return json.loads(text, parse_float=Decimal if decimals else exact_fraction, parse_int=exact_integer)


def dumps(value: Any) -> bytes:
    """Encode one value; dictionaries, sequences, dates, UUIDs, enumerations and NumPy's scalars included.

    Raises:
        TypeError: a value of a type that JSON has no word for.
    """
    return _text(value).encode()


def dump_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Encode each row as one line.

    Raises:
        TypeError: a value of a type that JSON has no word for.
    """
    try:
        lines = _encoder.encode_lines(rows)
    except (TypeError, ValueError, RecursionError, OverflowError):  # UnicodeEncodeError is a ValueError
        return _dump_each(rows)
    if b"null" in lines and _has_non_finite(rows):
        return _dump_each(rows)
    return lines


def _dump_each(rows: Iterable[Mapping[str, Any]]) -> bytes:
    lines = []
    for row in rows:
        try:
            line = _encoder.encode(row)
            if b"null" in line and _has_non_finite([row]):
                line = dumps(row)
        except (TypeError, ValueError, RecursionError, OverflowError):
            line = dumps(row)
        lines.append(line)
    return b"\n".join(lines) + b"\n" if lines else b""


def _has_non_finite(rows: Sequence[Mapping[str, Any]]) -> bool:
    # msgspec writes NaN and the infinities as null; packing is the fastest look at every float.
    try:
        packed = _packer.encode(rows)
    except (TypeError, ValueError, RecursionError, OverflowError):
        return True
    return _NON_FINITE.search(packed) is not None


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return encode_basestring_ascii(str.__str__(value) if isinstance(value, Enum) else value)
    if isinstance(value, Enum):
        return _text(value.value)
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _float(float(value))
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join([f"{_key(k)}:{_text(v)}" for k, v in value.items()]) + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "[" + ",".join([_text(item) for item in value]) + "]"
    if isinstance(value, dt.datetime):
        if value != value:  # pandas.NaT
            return "null"
        return '"' + (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).isoformat() + '"'
    if isinstance(value, (dt.date, dt.time)):
        return '"' + value.isoformat() + '"'
    if isinstance(value, UUID):
        return f'"{value}"'
    return _foreign(value)


def _foreign(value: Any) -> str:
    """Values of libraries that are not imported here: known by their looks."""
    kind = type(value)
    if kind.__name__ == "NAType":  # pandas.NA
        return "null"
    if kind.__module__.partition(".")[0] == "numpy":
        converted = value.item() if not getattr(value, "shape", ()) else value.tolist()
        if type(converted) is not kind:
            return _text(converted)
    if isinstance(value, (bytes, bytearray, memoryview, dt.timedelta)) or hasattr(kind, "__struct_fields__"):
        return _encoder.encode(value).decode()
    raise TypeError(f"a value of type {kind.__module__}.{kind.__qualname__} has no form in JSON")


def _integer(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # more digits than Python converts
        return format(Decimal(value), "f")


def _float(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return float.__repr__(value)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return encode_basestring_ascii(key)
    if key is None or isinstance(key, (bool, int, float, Decimal)):
        return f'"{_text(key)}"'
    if isinstance(key, (dt.date, dt.time, UUID)):
        return _text(key)
    raise TypeError(f"a key of type {type(key).__qualname__} has no form in JSON")
