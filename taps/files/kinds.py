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
    found = set(kinds) - {"null"}
    if "number" in found:
        found.discard("integer")
    if "string" in found or len(found & _STRINGS) > 1:
        found -= _STRINGS
        found.add("string")
    return sorted(found) or ["string"]


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
    found = {types} if isinstance(types, str) else set(types)
    form = schema.get("contentEncoding") or schema.get("format")
    if "string" in found and form in _STRINGS:
        found.discard("string")
        found.add(form)
    return found


def misfits(found: Iterable[str], allowed: Kinds) -> Kinds:
    """Return kinds that a schema with the allowed ones does not take."""
    if not allowed:
        return set()
    wider = set(allowed)
    if "number" in wider:
        wider.add("integer")
    if "string" in wider:
        wider |= _STRINGS
    return set(found) - wider
