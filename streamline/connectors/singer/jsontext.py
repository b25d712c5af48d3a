"""JSON text as Singer plugins write it: more than the standard allows, and never less exact than they wrote it.

`msgspec` reads nearly all of it, fast. What it refuses (`NaN`, `Infinity`, lone surrogates, numbers beyond a
float's range) the standard library's parser reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from streamline.flow.codecs.rawjson import scan_object

_VALUE = msgspec.json.Decoder()
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Encoder(decimal_format="number")
_SORTED = msgspec.json.Encoder(order="sorted")
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MAX_DIGITS = 4300
_LOOSE = json.JSONDecoder(strict=False, parse_int=lambda digits: _integer(digits))


class JSONTextError(ValueError):
    """The text is no JSON, not even in the loose sense that plugins write."""


class NotAnObjectError(JSONTextError):
    """The text is JSON, but no object."""


def decode(text: bytes) -> Any:
    """The value of a JSON text; integers of any size are exact, fractions are floats.

    Raises:
        JSONTextError: it is no JSON.
    """
    try:
        return _VALUE.decode(text)
    except _REFUSED:
        return _decode_loosely(text)


def members(text: bytes) -> dict[str, bytes]:
    """The members of a JSON object, each value's text as it was written.

    Raises:
        NotAnObjectError: it is another JSON value.
        JSONTextError: it is no JSON.
    """
    try:
        return {name: bytes(value) for name, value in _MEMBERS.decode(text).items()}
    except _REFUSED:
        pass
    try:
        return dict(scan_object(text))
    except (ValueError, RecursionError) as error:
        if isinstance(decode(text), dict):  # raises where it is no JSON at all
            raise JSONTextError(f"it is no JSON ({error})") from None
        raise NotAnObjectError("it is no JSON object") from None


def encode(value: Any) -> bytes:
    """Compact JSON text of a value; key order is kept, decimals are written as numbers."""
    try:
        text = _TEXT.encode(value)
    except (TypeError, ValueError, OverflowError):
        return _encode_loosely(value)
    # msgspec writes what JSON has no number for as null; a plugin that wrote NaN would not recognise that.
    return _encode_loosely(value) if b"null" in text and _has_odd_number(value) else text


def join_members(values: Mapping[str, bytes]) -> bytes:
    """A JSON object of texts; the inverse of `members`."""
    return b"{" + b",".join(encode(name) + b":" + text for name, text in values.items()) + b"}"


def canonical(text: bytes) -> bytes:
    """The same bytes for every spelling of a value: key order, white space and escapes do not matter.

    Integers are compared exactly. Fractions are compared as floats: targets written in Python, and nearly all
    others, echo a long decimal that way.

    Raises:
        JSONTextError: it is no JSON.
    """
    try:
        return _SORTED.encode(_VALUE.decode(text))
    except _REFUSED:
        return _encode_loosely(_decode_loosely(text), sort_keys=True)


def _decode_loosely(raw: bytes) -> Any:
    try:
        return _LOOSE.decode(raw.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        raise JSONTextError(f"it is no JSON ({error.msg} at character {error.pos})") from None
    except RecursionError:
        raise JSONTextError("it is nested too deeply") from None


def _integer(digits: str) -> int | str:
    # int() refuses to read what is longer; as text it is at least not taken for another number.
    return int(digits) if len(digits) < _MAX_DIGITS else digits


def _encode_loosely(value: Any, *, sort_keys: bool = False) -> bytes:
    # ASCII only: a lone surrogate has no UTF-8.
    return json.dumps(value, separators=(",", ":"), sort_keys=sort_keys, default=_number).encode()


def _number(value: object) -> float:
    from decimal import Decimal

    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _has_odd_number(value: object) -> bool:
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    if isinstance(value, dict):
        return any(map(_has_odd_number, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_odd_number, value))
    return False
