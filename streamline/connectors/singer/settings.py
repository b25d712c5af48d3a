"""Per-stream settings of source and destination blocks: read, checked, and resolved for one stream.

Settings come in layers (the block's `streams:`, then what an operator put into the store). Within a layer an exact
name beats a glob and a later entry beats an earlier one, key by key; a later layer beats an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from streamline.connectors.singer.catalog import METHODS, Catalog, is_glob, matches, method_name, unknown_stream
from streamline.errors import ConfigError
from streamline.flow.items import JSONObject
from streamline.project.suggest import suggestion

Side: TypeAlias = Literal["source", "destination"]
Where: TypeAlias = Callable[[tuple[str | int, ...]], str]

STORE = "store"
"""The origin of settings that an operator put into the state store."""

LOAD_METHODS = ("append", "upsert", "replace")
CONFLICT_METHODS = ("UPDATE", "IGNORE")
BAD_RECORD_POLICIES = ("pass", "quarantine", "fail")
SCHEMA_POLICIES = ("evolve", "freeze", "pause")


class Entry(msgspec.Struct, frozen=True):
    """The settings under one name or glob of a layer."""

    pattern: str
    settings: JSONObject
    where: str | None = None


class Layer(msgspec.Struct, frozen=True):
    """Settings from one origin (`streams:`, `store`), in the order in which they were written."""

    origin: str
    entries: tuple[Entry, ...] = ()


class Resolved(msgspec.Struct):
    """One stream's settings.

    Args:
        values: setting → value; only what was set.
        origins: setting → where it was set: a layer's origin and the entry's name.
        listed: the block's `streams:` names this stream, exactly or by a glob.
    """

    values: JSONObject
    origins: dict[str, Entry]
    from_store: frozenset[str] = frozenset()
    listed: bool = False

    def get(self, name: str, default: Any = None) -> Any:
        """A setting's value."""
        return self.values.get(name, default)

    def where(self, *names: str) -> str | None:
        """The place of the first of these settings that was set."""
        return next((self.origins[name].where for name in names if name in self.origins), None)


def parse_layer(raw: object, side: Side, *, origin: str = "streams:", where: Where | None = None) -> Layer:
    """Read a layer: `{name or glob: {setting: value}}`, or a list of names.

    Args:
        raw: the YAML value of `streams:`, or the store's settings by stream.
        side: which settings there are.
        origin: names the layer.
        where: `file:line` of a path below `raw`.

    Raises:
        ConfigError: an unknown setting, or a value of the wrong kind.
    """
    place = where or (lambda path: origin)
    if raw is None:
        return Layer(origin)
    if isinstance(raw, list) and all(isinstance(one, str) for one in raw):
        raw = {one: {} for one in raw}
    if not isinstance(raw, Mapping):
        raise ConfigError(
            "`streams` is a mapping of stream names to their settings, or a list of names", where=place(())
        )
    entries = []
    for name, given in raw.items():
        at = place((name,))
        if isinstance(given, bool):
            given = {"selected": given}
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"the settings of stream {name!r} are a mapping", where=at)
        settings: JSONObject = {}
        for key, value in (given or {}).items():
            settings[key] = check_setting(side, str(key), value, where=place((name, key)))
        entries.append(Entry(str(name), settings, at))
    return Layer(origin, tuple(entries))


def check_setting(side: Side, key: str, value: object, *, where: str | None = None) -> Any:
    """A setting's value in its own type.

    Raises:
        ConfigError: there is no such setting on this side, or the value is of the wrong kind.
    """
    kinds = _KINDS[side]
    kind = kinds.get(key)
    if kind is None:
        other: Side = "destination" if side == "source" else "source"
        hint = suggestion(key, kinds)
        if key in _KINDS[other]:
            hint = f"it is a setting of the {other} block's streams"
        raise ConfigError(f"a {side}'s stream has no setting {key!r}", where=where, hint=hint)
    try:
        return kind(value)
    except _WrongValueError as error:
        raise ConfigError(f"{key}: {error}", where=where) from None


def setting_names(side: Side) -> list[str]:
    """The settings that streams have on a side."""
    return list(_KINDS[side])


def resolve(layers: Sequence[Layer], names: Sequence[str]) -> Resolved:
    """The settings of the stream that bears `names` (its id first).

    Names are matched whole. An entry that is the stream's exact name is no glob, whatever characters it has.
    """
    resolved = Resolved({}, {})
    stored: set[str] = set()
    for layer in layers:
        exact = [entry for entry in layer.entries if entry.pattern in names]
        globbed = [
            entry
            for entry in layer.entries
            if entry.pattern not in names and is_glob(entry.pattern) and matches(entry.pattern, names)
        ]
        for entry in (*globbed, *exact):
            resolved.values.update(entry.settings)
            resolved.origins.update(dict.fromkeys(entry.settings, entry))
            if layer.origin == STORE:
                stored.update(entry.settings)
            else:
                stored.difference_update(entry.settings)
                resolved.listed = True
    resolved.from_store = frozenset(stored)
    return resolved


def check_names(layers: Sequence[Layer], catalog: Catalog) -> None:
    """Refuse exact names that no stream of the catalog bears, and names that several bear.

    Raises:
        ConfigError: the first such name, with the nearest one that exists.
    """
    for layer in layers:
        for entry in layer.entries:
            if catalog.find(entry.pattern, where=entry.where) is None and not is_glob(entry.pattern):
                raise unknown_stream(entry.pattern, catalog.streams, where=_place(layer, entry))


def check_destination_names(layers: Sequence[Layer], known: Iterable[Sequence[str]]) -> None:
    """Refuse exact names of a destination's streams that no source has.

    Args:
        known: the names of each stream that reaches the destination.

    Raises:
        ConfigError: the first such name, with the nearest one that exists.
    """
    names = list(dict.fromkeys(name for stream in known for name in stream))
    for layer in layers:
        for entry in layer.entries:
            if entry.pattern not in names and not is_glob(entry.pattern):
                raise ConfigError(
                    f"no source of this destination has a stream {entry.pattern!r}",
                    where=_place(layer, entry),
                    hint=suggestion(entry.pattern, names, what="streams"),
                )


def lists_streams(layers: Sequence[Layer]) -> bool:
    """Whether the block's `streams:` names the streams to take (and not only ones to leave out)."""
    return any(
        entry.settings.get("selected", True) for layer in layers if layer.origin != STORE for entry in layer.entries
    )


def resolve_destination(layers: Sequence[Layer], names: Sequence[str]) -> Resolved | None:
    """The settings of a stream at a destination, None if the destination does not export it.

    Where `streams:` is left out everything is exported, else what it names; `"*"` stands for the rest.
    """
    resolved = resolve(layers, names)
    selected = resolved.get("selected")
    if selected is None:
        selected = resolved.listed or not lists_streams(layers)
    return resolved if selected else None


class _WrongValueError(Exception):
    """A setting's value is of the wrong kind; the text says what is needed."""


def _place(layer: Layer, entry: Entry) -> str | None:
    if layer.origin == STORE:
        return "settings in the store (`streamline streams list` shows them)"
    return entry.where


def _method(value: object) -> str:
    name = method_name(value) if isinstance(value, str) else value
    return _choice(METHODS)(name)


def _choice(choices: Sequence[str], *, fold: Callable[[str], str] = str) -> Callable[[object], str]:
    def check(value: object) -> str:
        found = fold(value) if isinstance(value, str) else value
        if found not in choices:
            raise _WrongValueError(f"{value!r} is none of {', '.join(choices)}")
        return str(found)

    return check


def _names(value: object) -> list[str]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not value or not all(isinstance(one, str) and one for one in value):
        raise _WrongValueError("a list of column names is needed")
    if len(set(value)) < len(value):
        raise _WrongValueError("a column is named twice")
    return list(value)


def _keys(value: object) -> list[str]:
    return [] if value in ([], ()) else _names(value)


def _columns(value: object) -> list[str] | dict[str, list[str]]:
    if isinstance(value, Mapping):
        if set(value) != {"exclude"}:
            raise _WrongValueError("either a list of columns, or `{exclude: [column, …]}`")
        return {"exclude": _names(value["exclude"])}
    return _names(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _WrongValueError(f"true or false is needed, not {value!r}")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _WrongValueError("a name is needed")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _WrongValueError(f"a number of records is needed, not {value!r}")
    return value


def _schema(value: object) -> JSONObject:
    """The override of a schema: a JSON schema with `properties`, or, shorter, `{column: its schema}`."""
    if not isinstance(value, Mapping) or not value:
        raise _WrongValueError("a JSON schema is needed, or `{column: its schema}`")
    schema = dict(value) if isinstance(value.get("properties"), Mapping) else {"properties": dict(value)}
    for column, found in schema["properties"].items():
        if not isinstance(found, Mapping):
            raise _WrongValueError(f"the schema of column {column!r} is a mapping such as `{{type: string}}`")
    return schema


_Kind: TypeAlias = Callable[[object], Any]

_SOURCE: dict[str, _Kind] = {
    "replication_method": _method,
    "bookmark_properties": _names,
    "unique_constraints": _keys,
    "columns": _columns,
    "schema": _schema,
    "run_in_parallel": _flag,
    "selected": _flag,
}
_DESTINATION: dict[str, _Kind] = {
    "destination_table": _name,
    "unique_constraints": _keys,
    "unique_conflict_method": _choice(CONFLICT_METHODS, fold=str.upper),
    "load_method": _choice(LOAD_METHODS, fold=str.lower),
    "columns": _columns,
    "partition_keys": _names,
    "run_in_parallel": _flag,
    "on_bad_record": _choice(BAD_RECORD_POLICIES, fold=str.lower),
    "max_bad_records": _count,
    "schema_change": _choice(SCHEMA_POLICIES, fold=str.lower),
    "selected": _flag,
}
_KINDS: dict[Side, dict[str, _Kind]] = {"source": _SOURCE, "destination": _DESTINATION}
