"""Checks what the decorated functions of sources and destinations return, and makes plain JSON values of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamline.blocks.connector.json_values import json_value, kind_of_value
from streamline.errors import ConfigError


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
        raise self._wrong("empty text" if empty else kind_of_value(self._value), "return a name, such as 'postgresql'")

    def config(self) -> dict[str, Any]:
        """Return it as a config, of JSON values.

        Raises:
            ConfigError: it is no dict, or a value in it is no JSON value.
        """
        if not isinstance(self._value, Mapping):
            raise self._wrong(kind_of_value(self._value), "return a dict of settings")
        config: dict[str, Any] = json_value(self._value, self._wrong)
        return config

    def streams(self) -> list[str]:
        """Return it as the names of streams, each once; empty for None.

        Raises:
            ConfigError: it is no list of names.
        """
        if self._value is None:
            return []
        if not isinstance(self._value, list | tuple):
            raise self._wrong(kind_of_value(self._value), "return a list of stream names")
        for number, name in enumerate(self._value):
            if not isinstance(name, str) or not name:
                raise self._wrong(f"{kind_of_value(name)} in place {number}", "return a list of stream names")
        return list(dict.fromkeys(self._value))

    def catalog(self) -> dict[str, Any] | None:
        """Return it as a dict of JSON values that is to be a catalog, None for None.

        Raises:
            ConfigError: it is no dict with the key `streams`, or a value in it is no JSON value.
        """
        if self._value is None:
            return None
        if not isinstance(self._value, Mapping) or not ({"streams", "catalog"} & self._value.keys()):
            got = "a dict without 'streams'" if isinstance(self._value, Mapping) else kind_of_value(self._value)
            raise self._wrong(got, "return a dict whose 'streams' is a list, or None")
        catalog: dict[str, Any] = json_value(self._value, self._wrong)
        return catalog

    def _wrong(self, got: str, hint: str) -> ConfigError:
        return ConfigError(f"{self._function}() returned {got}", where=self.where, hint=hint, code="block.wrong_return")
