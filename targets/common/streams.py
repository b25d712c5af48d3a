"""Settings per stream, and what they make of a stream's SCHEMA."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from kit.connector import Config, ConfigError, ConnectorError

LoadMethod = Literal["append", "upsert", "replace"]

_KEYS = ("destination_table", "unique_constraints", "unique_conflict_method", "load_method")
_KEYS_WITHOUT_UPSERT = ("destination_table", "load_method")
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

    Args:
        upsert: whether the target can replace the row that has a record's key.

    Raises:
        ConfigError: a stream's settings have an unknown key or an impossible value.
    """

    def __init__(self, config: Config, *, upsert: bool = True) -> None:
        self._method: LoadMethod | None = config["load_method"]
        self._streams: dict[str, dict[str, Any]] = config["streams"]
        self._upsert = upsert
        for name, settings in self._streams.items():
            _check(name, settings, _KEYS if upsert else _KEYS_WITHOUT_UPSERT)

    def of(self, stream: str, key_properties: list[str], schema: dict[str, Any]) -> StreamSetting:
        """Return the settings of a stream with this SCHEMA.

        A schema's `x-unique-conflict-method: IGNORE` is what a runner says for the setting of that name.

        Raises:
            ConnectorError: the schema has no properties, the key is none of them, or upsert has no key.
        """
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            raise ConnectorError(f"stream {stream!r}: its SCHEMA has no properties")
        settings = self._streams.get(stream, {})
        if not self._upsert:
            method: LoadMethod = settings.get("load_method") or self._method or "append"
            return StreamSetting(
                settings.get("destination_table") or stream, list(key_properties), method, keep_old=False
            )
        keys = settings.get("unique_constraints") or key_properties
        for key in keys:
            if key not in properties:
                raise ConnectorError(f"stream {stream!r}: the key column {key!r} is not in its schema")
        method = settings.get("load_method") or self._method or ("upsert" if keys else "append")
        if method == "upsert" and not keys:
            raise ConnectorError(f"stream {stream!r} cannot be upserted: it has no key", "set unique_constraints")
        keep_old = (settings.get("unique_conflict_method") or schema.get("x-unique-conflict-method")) == "IGNORE"
        return StreamSetting(settings.get("destination_table") or stream, list(keys), method, keep_old)


def _check(name: str, settings: Any, known: tuple[str, ...]) -> None:
    where = f"setting 'streams', stream {name!r}"
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}: must be an object")
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}", f"known: {', '.join(known)}")
        good = {
            "destination_table": isinstance(value, str) and value,
            "unique_constraints": isinstance(value, list) and all(isinstance(column, str) for column in value),
            "unique_conflict_method": value in ("UPDATE", "IGNORE"),
            "load_method": value in (_METHODS if known is _KEYS else ("append", "replace")),
        }
        if value is not None and not good[key]:
            raise ConfigError(f"{where}: invalid value for {key}: {value!r}")
