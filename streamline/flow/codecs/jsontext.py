"""JSON text, never less exact than it was written: more than the standard allows, as taps and targets write it.

`msgspec` reads and writes nearly all of it, fast. What it refuses (`NaN`, `Infinity`, lone surrogates, raw control
characters, numbers beyond a float's range) the standard library's parser reads, and the encoder below writes.

- `decode`, `encode`: values; integers of any size are exact, fractions are floats.
- `loads`, `dumps`, `dump_lines`: records; a fraction is a float where the float means the same number, else a
  `Decimal`, and dates, UUIDs and NumPy's scalars have text.
- `split_object`, `join_object`, `members`, `join_members`: objects as the untouched texts of their members.
- `canonical`: the same bytes for every spelling of a value.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from json.encoder import encode_basestring_ascii
from typing import Any
from uuid import UUID

import msgspec

from streamline.flow.items import Buffer

# Fifteen significant digits always survive a float; a text of sixteen characters with a point has no more.
_SAFE_LENGTH = 16

_encoder = msgspec.json.Encoder(decimal_format="number")
_sorted_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder()
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_packer = msgspec.msgpack.Encoder(enc_hook=str)
# How msgpack begins NaN and the infinities; a false match costs time only.
_NON_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_UNWRITABLE = (TypeError, ValueError, RecursionError, OverflowError)  # UnicodeEncodeError is a ValueError
_MAX_DIGITS = 4300
# int() refuses to read what is longer; as text it is at least not taken for another number.
_lenient = json.JSONDecoder(strict=False, parse_int=lambda digits: int(digits) if len(digits) < _MAX_DIGITS else digits)
# Numbers and constants stay text: only where a value ends is wanted, and int() refuses 4,301 digits and more.
_scanner = json.JSONDecoder(
    parse_int=lambda _: None, parse_float=lambda _: None, parse_constant=lambda _: None, strict=False
)
_BLANK = " \t\r\n"
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]', re.DOTALL)


class JSONTextError(ValueError):
    """The text is not JSON, not even in the loose sense that plugins write."""


class NotAnObjectError(JSONTextError):
    """The text is JSON, but no object."""


# --- values


def decode(text: bytes) -> Any:
    """Return the value of a JSON text; integers of any size are exact, fractions are floats.

    Raises:
        JSONTextError: it is not valid JSON.
    """
    try:
        return _decoder.decode(text)
    except _UNREADABLE:
        return _decode_leniently(text)


def encode(value: Any) -> bytes:
    """Compact JSON text of a value; key order is kept, decimals are written as numbers.

    Raises:
        TypeError: a value of a type that JSON has no word for.
    """
    try:
        text = _encoder.encode(value)
    except _UNWRITABLE:
        return dumps(value)
    return dumps(value) if b"null" in text and _has_non_finite(value) else text


def canonical(text: bytes) -> bytes:
    """Return the same bytes for every spelling of a value: key order, white space and escapes do not matter.

    Integers are compared exactly. Fractions are compared as floats: targets written in Python, and nearly all
    others, echo a long decimal that way.

    Raises:
        JSONTextError: it is not valid JSON.
    """
    try:
        return _sorted_encoder.encode(_decoder.decode(text))
    except _UNREADABLE:
        # ASCII only: a lone surrogate has no UTF-8.
        return json.dumps(_decode_leniently(text), separators=(",", ":"), sort_keys=True).encode()


def _decode_leniently(text: bytes) -> Any:
    try:
        return _lenient.decode(text.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        raise JSONTextError(f"it is not valid JSON ({error.msg} at character {error.pos})") from None
    except RecursionError:
        raise JSONTextError("it is nested too deeply") from None


# --- records


def exact_fraction(text: str) -> float | Decimal:
    """Return the number that `text` (a JSON number with a point or an exponent) means, as a float if that is exact.

    >>> exact_fraction("19.90"), exact_fraction("0.12345678901234567890123")
    (19.9, Decimal('0.12345678901234567890123'))
    """
    if len(text) <= _SAFE_LENGTH and "e" not in text and "E" not in text:
        return float(text)
    return plain_number(Decimal(text))


def plain_number(value: Decimal) -> float | Decimal:
    """Return `value` as a float if the float means the same number, else unchanged."""
    number = float(value)
    return number if Decimal(repr(number)) == value else value


def exact_integer(text: str) -> int | Decimal:
    """Return an integer of any size; a `Decimal` beyond the number of digits that Python converts (4,300)."""
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
        ValueError: it is not valid JSON (or no UTF-8).
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
    except _UNWRITABLE:
        pass
    else:
        if b"null" not in lines or not _has_non_finite(rows):
            return lines
    return b"".join(encode(row) + b"\n" for row in rows)


def _has_non_finite(value: Any) -> bool:
    # msgspec writes NaN and the infinities as null; packing is the fastest look at every float.
    try:
        packed = _packer.encode(value)
    except _UNWRITABLE:
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
    """Convert values of libraries that are not imported here, recognised by their attributes."""
    kind = type(value)
    if kind.__name__ == "NAType":  # pandas.NA
        return "null"
    if kind.__module__.partition(".")[0] == "numpy":
        converted = value.item() if not getattr(value, "shape", ()) else value.tolist()
        if type(converted) is not kind:
            return _text(converted)
    if isinstance(value, (bytes, bytearray, memoryview, dt.timedelta)) or hasattr(kind, "__struct_fields__"):
        return _encoder.encode(value).decode()
    raise TypeError(f"a value of type {kind.__module__}.{kind.__qualname__} cannot be represented in JSON")


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
    raise TypeError(f"a key of type {type(key).__qualname__} cannot be represented in JSON")


# --- objects as their members


def split_object(text: Buffer) -> dict[str, msgspec.Raw]:
    """Return the members of a JSON object, name to value text (`bytes(raw)`); of a name that stands twice, the last.

    Raises:
        ValueError: the text is not a JSON object.
    """
    try:
        return _members.decode(text)
    except _UNREADABLE:
        return {name: msgspec.Raw(value) for name, value in scan_object(bytes(text))}


def scan_object(text: bytes) -> list[tuple[str, bytes]]:
    """Return the members of a JSON object in their order, read as leniently as Python's own `json` does.

    Raises:
        ValueError: the text is not a JSON object.
    """
    # One byte is one character in Latin-1, and JSON's own signs are ASCII, so offsets in `chars` are offsets
    # in `text`, whatever its encoding is.
    chars = text.decode("latin-1")
    members: list[tuple[str, bytes]] = []
    at = _skip(chars, 0)
    _expect(chars, at, "{")
    at = _skip(chars, at + 1)
    if chars[at : at + 1] == "}":
        return members
    while True:
        _expect(chars, at, '"')
        key_end = _end(chars, at)
        # Names need not be UTF-8, nor has every escape in them its other half.
        key = _scanner.decode(text[at:key_end].decode("utf-8", "surrogateescape"))
        at = _skip(chars, key_end)
        _expect(chars, at, ":")
        at = _skip(chars, at + 1)
        end = _end(chars, at)
        members.append((key, text[at:end]))
        at = _skip(chars, end)
        if chars[at : at + 1] != ",":
            break
        at = _skip(chars, at + 1)
    _expect(chars, at, "}")
    if _skip(chars, at + 1) != len(chars):
        raise ValueError(f"more text after a JSON object, at byte {at + 1}")
    return members


def join_object(members: Mapping[str, msgspec.Raw]) -> bytes:
    """Return the JSON object with these members, in their order, without blanks; the reverse of `split_object`."""
    try:
        return msgspec.json.encode(members)
    except UnicodeEncodeError:  # a name with a lone surrogate, which only an escape can express
        return b"{" + b",".join(json.dumps(name).encode() + b":" + bytes(text) for name, text in members.items()) + b"}"


def members(text: bytes) -> dict[str, bytes]:
    """Return the members of a JSON object, each value's text as it was written.

    Raises:
        NotAnObjectError: it is another JSON value.
        JSONTextError: it is not valid JSON.
    """
    try:
        return {name: bytes(value) for name, value in split_object(text).items()}
    except (ValueError, RecursionError) as error:
        if isinstance(decode(text), dict):  # raises where it is not JSON at all
            raise JSONTextError(f"it is not valid JSON ({error})") from None
        raise NotAnObjectError("it is not a JSON object") from None


def join_members(values: Mapping[str, bytes]) -> bytes:
    """Return a JSON object of texts; the inverse of `members`."""
    return join_object({name: msgspec.Raw(text) for name, text in values.items()})


def is_deeper(text: bytes, levels: int) -> bool:
    """Return whether a JSON text is nested more than so many levels deep."""
    if text.count(b"{") + text.count(b"[") <= levels:
        return False
    return any(depth > levels for depth, _ in _depths(text.decode("latin-1"), 0))


def _depths(chars: str, at: int) -> Iterator[tuple[int, int]]:
    """Iterate over the brackets from `at` on: how many are open behind each, and where it ends."""
    depth = 0
    for match in _BRACKETS.finditer(chars, at):
        if match[0][0] != '"':
            depth += 1 if match[0] in "{[" else -1
            yield depth, match.end()


def _end(chars: str, at: int) -> int:
    try:
        return _scanner.raw_decode(chars, at)[1]
    except RecursionError:
        # Too deep for the parser: its last bracket is the end.
        for depth, end in _depths(chars, at):
            if depth == 0:
                return end
        raise ValueError("a bracket is not closed") from None


def _skip(chars: str, at: int) -> int:
    while chars[at : at + 1] in _BLANK and at < len(chars):
        at += 1
    return at


def _expect(chars: str, at: int, sign: str) -> None:
    if chars[at : at + 1] != sign:
        raise ValueError(f"expected {sign!r} at byte {at} of a JSON object")
