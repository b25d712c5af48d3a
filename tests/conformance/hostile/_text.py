"""JSON text without the package `json`, whose import takes longer than all else that these programs do.

Its parts in C are the same.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_encoder, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Decoding:
    """How `json.loads` sets up its parser."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = {"-Infinity": float("-inf"), "Infinity": float("inf"), "NaN": float("nan")}.__getitem__


_scan = make_scanner(_Decoding())


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def loads(text: str) -> Any:
    """The value of a JSON text."""
    try:
        value, end = _scan(text, len(text) - len(text.lstrip()))
    except StopIteration as error:
        raise ValueError(f"a value is missing at {error.value}") from None
    if text[end:].strip():
        raise ValueError(f"more than one value at {end}")
    return value


def dumps(value: Any) -> str:
    """The JSON text of a value, as `json.dumps` writes it."""
    return "".join(make_encoder({}, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True)(value, 0))
