"""JSON objects split into their members and joined again, each value's text untouched.

msgspec does it at full speed; what it refuses although taps write it (`NaN`, `Infinity`, lone surrogates, raw
control characters in strings) is read once more by the standard library's scanner.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from streamline.flow.items import Buffer

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Numbers and constants stay text: only where a value ends is wanted, and int() refuses 4,301 digits and more.
_scanner = json.JSONDecoder(
    parse_int=lambda _: None, parse_float=lambda _: None, parse_constant=lambda _: None, strict=False
)
_BLANK = " \t\r\n"


def split_object(text: Buffer) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, name to value text (`bytes(raw)`); of a name that stands twice, the last.

    Raises:
        ValueError: the text is no JSON object.
    """
    try:
        return _members.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {name: msgspec.Raw(value) for name, value in scan_object(bytes(text))}


def scan_object(text: bytes) -> list[tuple[str, bytes]]:
    """The members of a JSON object in their order, read as leniently as Python's own `json` does.

    Raises:
        ValueError: the text is no JSON object.
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
    """The JSON object with these members, in their order, without blanks; the reverse of `split_object`."""
    try:
        return msgspec.json.encode(members)
    except UnicodeEncodeError:  # a name with a lone surrogate, which only an escape can express
        return b"{" + b",".join(json.dumps(name).encode() + b":" + bytes(text) for name, text in members.items()) + b"}"


def _end(chars: str, at: int) -> int:
    try:
        return _scanner.raw_decode(chars, at)[1]
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error


def _skip(chars: str, at: int) -> int:
    while chars[at : at + 1] in _BLANK and at < len(chars):
        at += 1
    return at


def _expect(chars: str, at: int, sign: str) -> None:
    if chars[at : at + 1] != sign:
        raise ValueError(f"expected {sign!r} at byte {at} of a JSON object")
