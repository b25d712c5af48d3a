"""Checks what the decorated functions of sources and destinations return, and makes plain JSON values of it."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from streamline.errors import ConfigError

_DEEPEST = 100


class Returned:
    """What a decorated function returned.

    Args:
        function: its name, for messages.
        where: its `file:line`.
    """

    def __init__(self, value: Any, function: str, where: str) -> None:
        self._value = value
        self._function = function
        self.where = where

    def name(self) -> str:
        """Return it as the name of a source or destination.

        Raises:
            ConfigError: it is no text, or empty.
        """
        if isinstance(self._value, str) and self._value.strip():
            return str(self._value.strip())
        empty = isinstance(self._value, str)
        raise self._wrong("empty text" if empty else _kind(self._value), "return a name, such as 'postgresql'")

    def config(self) -> dict[str, Any]:
        """Return it as a config, of JSON values.

        Raises:
            ConfigError: it is no dict, or a value in it is no JSON value.
        """
        if not isinstance(self._value, Mapping):
            raise self._wrong(_kind(self._value), "return a dict of settings")
        config: dict[str, Any] = self._json(self._value, "", 0)
        return config

    def streams(self) -> list[str]:
        """Return it as the names of streams, each once; empty for None.

        Raises:
            ConfigError: it is no list of names.
        """
        if self._value is None:
            return []
        if not isinstance(self._value, list | tuple):
            raise self._wrong(_kind(self._value), "return a list of stream names")
        for number, name in enumerate(self._value):
            if not isinstance(name, str) or not name:
                raise self._wrong(f"{_kind(name)} in place {number}", "return a list of stream names")
        return list(dict.fromkeys(self._value))

    def catalog(self) -> dict[str, Any] | None:
        """Return it as a dict of JSON values that is to be a catalog, None for None.

        Raises:
            ConfigError: it is no dict with the key `streams`, or a value in it is no JSON value.
        """
        if self._value is None:
            return None
        if not isinstance(self._value, Mapping) or not ({"streams", "catalog"} & self._value.keys()):
            got = "a dict without 'streams'" if isinstance(self._value, Mapping) else _kind(self._value)
            raise self._wrong(got, "return a dict whose 'streams' is a list, or None")
        catalog: dict[str, Any] = self._json(self._value, "", 0)
        return catalog

    def _json(self, value: Any, path: str, depth: int) -> Any:
        """Return a JSON value: dates as ISO 8601, decimals and the scalars of NumPy as numbers."""
        if depth > _DEEPEST:
            raise self._wrong(f"a value that is nested more than {_DEEPEST} levels deep", "it may contain itself")
        if value is None or isinstance(value, bool | int | str):
            return value if value is None or type(value) in (bool, int, str) else _base(value)
        if isinstance(value, float | Decimal) and not isinstance(value, Enum):
            if not math.isfinite(value):
                raise self._no_json(value, path, "use None for a value that is missing")
            whole = isinstance(value, Decimal) and value == value.to_integral_value()
            return int(value) if whole else float(value)
        if isinstance(value, Enum):
            return self._json(value.value, path, depth + 1)
        if isinstance(value, Mapping):
            wrong = next((key for key in value if not isinstance(key, str)), None)
            if wrong is not None:
                raise self._no_json(wrong, path, "the keys of a dict must be text", what="the key ")
            return {str(key): self._json(item, f"{path}[{key!r}]", depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._json(item, f"{path}[{number}]", depth + 1) for number, item in enumerate(value)]
        if isinstance(value, dt.date | dt.time):  # a datetime is a date
            if value != value:  # NaT of pandas
                raise self._no_json(value, path, "use None for a value that is missing")
            return value.isoformat()
        if isinstance(value, UUID | PurePath):
            return str(value)
        if type(value).__module__.partition(".")[0] == "numpy" and getattr(value, "shape", None) == ():
            return self._json(value.item(), path, depth + 1)
        raise self._no_json(value, path, "convert it to text, a number, a list or a dict")

    def _no_json(self, value: Any, path: str, hint: str, *, what: str = "") -> ConfigError:
        at = f" at {path}" if path else ""
        return self._wrong(f"{what}{_kind(value)}{at}, which JSON has no form for", hint)

    def _wrong(self, got: str, hint: str) -> ConfigError:
        return ConfigError(f"{self._function}() returned {got}", where=self.where, hint=hint, code="block.wrong_return")


def _base(value: bool | int | str) -> Any:
    """Return the plain value of an instance of a subclass, such as a member of IntEnum or text of NumPy."""
    return int(value) if isinstance(value, int) else str.__str__(value)


def _kind(value: Any) -> str:
    """Return a value's type for messages, and never a value: it may be a secret."""
    if value is None:
        return "None"
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return "NaN or an infinite number"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
