"""Plain Python values as JSON, where exactly the same comes back: the same types, every float, every character."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec

_SCALARS = frozenset({type(None), bool, int, float, str})
_CONTAINERS = frozenset({list, dict})
_TEXT = frozenset({str})
# Deeper values are left to pickle: every parser has its own limit.
_DEEPEST = 200

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_pack = msgspec.msgpack.Encoder().encode
# How msgpack begins NaN and the infinities; a false match costs time only.
_NON_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
_skip = msgspec.json.Decoder(msgspec.Raw).decode


def dumps(value: Any) -> bytes | None:
    """Return `value` as JSON; None if JSON does not restore it exactly (a tuple, a key that is not a string, …)."""
    kinds: set[type] = set()
    if not _plain(value, kinds, 0):
        return None
    try:
        text = _encode(value)
        # msgspec writes NaN and the infinities as null; packing is the fastest look at every float.
        if float in kinds and b"null" in text and _NON_FINITE.search(_pack(value)):
            return _dumps_slowly(value)
        return text
    except (ValueError, RecursionError, OverflowError):  # UnicodeEncodeError: a lone surrogate
        try:
            return _dumps_slowly(value)
        except (ValueError, RecursionError):  # an integer with more digits than Python writes
            return None


def is_plain(value: Any) -> bool:
    """Return whether `value` consists of None, booleans, numbers, strings, lists and dicts with string keys alone."""
    return _plain(value, set(), 0)


def is_standard(data: bytes) -> bool:
    """Return whether what `dumps` returned is standard JSON: no NaN, no lone surrogates."""
    try:
        _skip(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def loads(data: bytes | memoryview | msgspec.Raw) -> Any:
    """Read what `dumps` wrote.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return _decode(data)
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
    ):  # NaN, lone surrogates, integers of thousands of digits
        return json.loads(bytes(data).decode("utf-8", "surrogatepass"))


def _dumps_slowly(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _plain(value: Any, kinds: set[type], depth: int) -> bool:
    """Return whether JSON restores values of these exact types; add the types to `kinds`."""
    kind = type(value)
    if kind is list:
        inner: Iterable[Any] = value
    elif kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        inner = value.values()
    else:
        kinds.add(kind)
        return kind in _SCALARS
    types = set(map(type, inner))
    kinds |= types
    nested = types - _SCALARS
    if not nested:
        return True
    if depth == _DEEPEST or not nested <= _CONTAINERS:
        return False
    return all(_plain(item, kinds, depth + 1) for item in inner if type(item) in _CONTAINERS)
