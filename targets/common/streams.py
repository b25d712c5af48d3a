"""Settings per stream, and what they make of a stream's SCHEMA."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from .connector import Config, ConfigError, ConnectorError

LoadMethod = Literal["append", "upsert", "replace"]

_KEYS = ("destination_table", "unique_constraints", "unique_conflict_method", "load_method")
_METHODS = ("append", "upsert", "replace")


class StreamSetting(NamedTuple):
    """How one stream is loaded."""

    table: str
    keys: list[str]
    method: LoadMethod
    keep_old: bool
    """A record whose key is there already is dropped (`unique_conflict_method: IGNORE`)."""


class StreamSettings:
    """The config's `load_method` and `streams`.

    Raises:
        ConfigError: a stream's settings have an unknown key or an impossible value.
    """

    def __init__(self, config: Config) -> None:
        self._method = config["load_method"]
        self._streams: dict[str, dict[str, Any]] = config["streams"]
        for name, settings in self._streams.items():
            _check(name, settings)

    def of(self, stream: str, key_properties: list[str], properties: dict[str, Any]) -> StreamSetting:
        """The settings of a stream with this key in its SCHEMA.

        Raises:
            ConnectorError: the key is none of its columns, or upsert is asked for without a key.
        """
        given = self._streams.get(stream, {})
        keys = given.get("unique_constraints") or key_properties
        for key in keys:
            if key not in properties:
                raise ConnectorError(f"stream {stream!r}: the key column {key!r} is not in its schema")
        method: LoadMethod = given.get("load_method") or self._method or ("upsert" if keys else "append")
        if method == "upsert" and not keys:
            raise ConnectorError(f"stream {stream!r} cannot be upserted: it has no key", "set unique_constraints")
        keep_old = given.get("unique_conflict_method", "UPDATE") == "IGNORE"
        return StreamSetting(given.get("destination_table") or stream, list(keys), method, keep_old)


def _check(name: str, settings: Any) -> None:
    where = f"setting 'streams', stream {name!r}"
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}: must be an object")
    for key, value in settings.items():
        if key not in _KEYS:
            raise ConfigError(f"{where}: unknown key {key!r}", f"known: {', '.join(_KEYS)}")
        good = {
            "destination_table": isinstance(value, str) and value,
            "unique_constraints": isinstance(value, list) and all(isinstance(column, str) for column in value),
            "unique_conflict_method": value in ("UPDATE", "IGNORE"),
            "load_method": value in _METHODS,
        }
        if value is not None and not good[key]:
            raise ConfigError(f"{where}: {key} cannot be {value!r}")
