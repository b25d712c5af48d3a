"""Makes plain JSON values of what user code and templates give: no object of a user's class leaves its worker."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

_DEEPEST = 100

Refuse = Callable[[str, str], Exception]
"""Makes the error for a value, of what it is and a hint."""


def json_value(value: Any, refuse: Refuse) -> Any:
    """Return a JSON value: dates as ISO 8601, decimals and the scalars of NumPy as numbers.

    Raises:
        Exception: what `refuse` returns, for a value that JSON has no form for.
    """
    return _Values(refuse).plain(value, "", 0)


def kind_of_value(value: Any) -> str:
    """Return a value's type for messages, and never a value: it may be a secret."""
    if value is None:
        return "None"
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return "NaN or an infinite number"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


class _Values:
    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse

    def plain(self, value: Any, path: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise self._refuse(f"a value that is nested more than {_DEEPEST} levels deep", "it may contain itself")
        if value is None or isinstance(value, bool | int | str):
            return value if value is None or type(value) in (bool, int, str) else _base(value)
        if isinstance(value, float | Decimal) and not isinstance(value, Enum):
            if not math.isfinite(value):
                raise self._no_json(value, path, "use None for a value that is missing")
            whole = isinstance(value, Decimal) and value == value.to_integral_value()
            return int(value) if whole else float(value)
        if isinstance(value, Enum):
            return self.plain(value.value, path, depth + 1)
        if isinstance(value, Mapping):
            wrong = next((key for key in value if not isinstance(key, str)), None)
            if wrong is not None:
                raise self._no_json(wrong, path, "the keys of a dict must be text", what="the key ")
            return {str.__str__(key): self.plain(item, f"{path}[{key!r}]", depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(item, f"{path}[{number}]", depth + 1) for number, item in enumerate(value)]
        if isinstance(value, dt.date | dt.time):  # a datetime is a date
            if value != value:  # NaT of pandas
                raise self._no_json(value, path, "use None for a value that is missing")
            return value.isoformat()
        if isinstance(value, UUID | PurePath):
            return str(value)
        if type(value).__module__.partition(".")[0] == "numpy" and getattr(value, "shape", None) == ():
            return self.plain(value.item(), path, depth + 1)
        raise self._no_json(value, path, "convert it to text, a number, a list or a dict")

    def _no_json(self, value: Any, path: str, hint: str, *, what: str = "") -> Exception:
        at = f" at {path}" if path else ""
        return self._refuse(f"{what}{kind_of_value(value)}{at}, which JSON has no form for", hint)


def _base(value: bool | int | str) -> Any:
    """Return the plain value of an instance of a subclass, such as a member of IntEnum or text of NumPy."""
    return int(value) if isinstance(value, int) else str.__str__(value)
