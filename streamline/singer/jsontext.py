"""JSON text as Singer plugins write it: more than the standard allows, and never less exact than they wrote it.

`msgspec` reads nearly all of it, fast. What it refuses (`NaN`, `Infinity`, lone surrogates, numbers beyond a
float's range) the standard library's parser reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

_VALUE = msgspec.json.Decoder()
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Encoder(decimal_format="number")
_SORTED = msgspec.json.Encoder(order="sorted")
_SCANNER = json.JSONDecoder()
_SPACE = " \t\r\n"


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
    except (msgspec.DecodeError, msgspec.ValidationError):
        return _decode_loosely(text)


def members(text: bytes) -> dict[str, bytes]:
    """The members of a JSON object, each value's text as it was written.

    Raises:
        NotAnObjectError: it is another JSON value.
        JSONTextError: it is no JSON.
    """
    try:
        return {name: bytes(value) for name, value in _MEMBERS.decode(text).items()}
    except (msgspec.DecodeError, msgspec.ValidationError):
        return _members_loosely(_text(text))


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
    except (msgspec.DecodeError, msgspec.ValidationError):
        return _encode_loosely(_decode_loosely(text), sort_keys=True)


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise JSONTextError(f"it is not UTF-8 ({error.reason} at byte {error.start})") from None


def _decode_loosely(raw: bytes) -> Any:
    try:
        return json.loads(_text(raw))
    except json.JSONDecodeError as error:
        raise JSONTextError(f"it is no JSON ({error.msg} at character {error.pos})") from None
    except RecursionError:
        raise JSONTextError("it is nested too deeply") from None


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


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _members_loosely(text: str) -> dict[str, bytes]:
    """`members` on top of the standard library's scanner, which tells where each value ends."""
    found: dict[str, bytes] = {}
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        _expect_end(text, _scan(text, at)[1])
        raise NotAnObjectError("it is no JSON object")
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        _expect_end(text, at + 1)
        return found
    while True:
        name, end = _scan(text, at)
        if not isinstance(name, str):
            raise JSONTextError(f"it is no JSON (a name was expected at character {at})")
        at = _skip(text, end)
        if text[at : at + 1] != ":":
            raise JSONTextError(f"it is no JSON (':' was expected at character {at})")
        start = _skip(text, at + 1)
        _, end = _scan(text, start)
        found[name] = text[start:end].encode("utf-8", "surrogatepass")
        at = _skip(text, end)
        mark, at = text[at : at + 1], _skip(text, at + 1)
        if mark == "}":
            _expect_end(text, at)
            return found
        if mark != ",":
            raise JSONTextError(f"it is no JSON (',' or '}}' was expected before character {at})")


def _scan(text: str, at: int) -> tuple[Any, int]:
    try:
        return _SCANNER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise JSONTextError(f"it is no JSON ({error.msg} at character {error.pos})") from None
    except RecursionError:
        raise JSONTextError("it is nested too deeply") from None


def _expect_end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise JSONTextError(f"it is no JSON (more text at character {at})")
