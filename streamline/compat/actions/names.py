"""Column names in snake case."""

from __future__ import annotations

import re
from keyword import iskeyword

_AROUND = " '\"_-"
_BETWEEN = re.compile(r"[\s.-]")
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_]")
_CAPITALISED = re.compile(r"[A-Z][a-z]*")
_CAMEL = re.compile(r"([a-z]*)((?:[A-Z][a-z]*)*)")


def clean_column_name(name: str) -> str:
    """`PascalCase`, `camelCase` and `bad case` in snake case, without signs; a number and a keyword of Python are
    marked as what they are (`number_42`, `class_`).
    """
    name = _keyword_marked(name).strip(_AROUND)
    name = _NOT_ALLOWED.sub("", _BETWEEN.sub("_", name))
    if not name or name.isdigit():
        name = f"number_{name}"
    name = _keyword_marked(name)
    match = _CAMEL.fullmatch(name)
    if match and not name.isupper():
        # Only names of letters; in others it is not known where words begin.
        name = "_".join(filter(None, [match[1], *_CAPITALISED.findall(match[2])]))
    return name.lower()


def _keyword_marked(name: str) -> str:
    return f"{name}_" if iskeyword(name) else name
