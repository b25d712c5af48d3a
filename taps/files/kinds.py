"""Kinds of values, what several of them make of a column, and their JSON Schema.

A kind is a JSON type, or `date` or `date-time` for strings of these formats, or `base64` for encoded bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Kinds = set[str]

_STRINGS = frozenset(("date", "date-time", "base64"))
"""Kinds of JSON's strings."""


def join(kinds: Iterable[str]) -> list[str]:
    """Return the kinds that a column with all these has: the narrowest that hold them, `null` aside."""
    joined = set(kinds) - {"null"}
    if "number" in joined:
        joined.discard("integer")
    if "string" in joined or len(joined & _STRINGS) > 1:
        joined -= _STRINGS
        joined.add("string")
    return sorted(joined) or ["string"]


def schema(kinds: Iterable[str]) -> dict[str, Any]:
    """Return the JSON Schema of a column with these kinds; any column of a file may be empty."""
    joined = join(kinds)
    types = ["null", *(kind for kind in joined if kind not in _STRINGS)]
    for kind in joined:
        if kind in _STRINGS:
            keyword = "contentEncoding" if kind == "base64" else "format"
            return {"type": [*types, "string"], keyword: kind}
    return {"type": types}


def kinds_of(schema: dict[str, Any]) -> Kinds:
    """Return the kinds that a schema names; none where it allows everything."""
    types = schema.get("type", [])
    kinds = {types} if isinstance(types, str) else set(types)
    form = schema.get("contentEncoding") or schema.get("format")
    if "string" in kinds and form in _STRINGS:
        kinds.discard("string")
        kinds.add(form)
    return kinds


def misfits(kinds: Iterable[str], allowed: Kinds) -> Kinds:
    """Return kinds that a schema with the allowed ones does not take."""
    if not allowed:
        return set()
    wider = set(allowed)
    if "number" in wider:
        wider.add("integer")
    if "string" in wider:
        wider |= _STRINGS
    return set(kinds) - wider
