"""Per-stream settings of source and destination blocks: read, checked, and resolved for one stream.

They stand in the block's `streams:`. An exact name beats a glob and a later entry beats an earlier one, key by key.
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

DEFAULT = "default"
"""The value of `selected` that leaves a stream to the catalog, as if the block had no `streams:`."""

LOAD_METHODS = ("append", "upsert", "replace")
CONFLICT_METHODS = ("UPDATE", "IGNORE")
BAD_RECORD_POLICIES = ("pass", "quarantine", "fail")
SCHEMA_POLICIES = ("evolve", "freeze", "pause")


class Entry(msgspec.Struct, frozen=True):
    """The settings under one name or glob of a layer."""

    pattern: str
    settings: JSONObject
    where: str | None = None


class StreamSettings(msgspec.Struct, frozen=True):
    """A block's `streams:`, in the order in which it is written."""

    entries: tuple[Entry, ...] = ()

    @property
    def lists_streams(self) -> bool:
        """Whether it names the streams to take (and not only ones to leave out)."""
        return any(entry.settings.get("selected", True) is True for entry in self.entries)


NO_SETTINGS = StreamSettings()


class Resolved(msgspec.Struct):
    """One stream's settings.

    Args:
        values: setting → value; only what was set.
        origins: setting → the entry that set it.
        listed: the block's `streams:` names this stream, exactly or by a glob.
    """

    values: JSONObject
    origins: dict[str, Entry]
    listed: bool = False

    def get(self, name: str, default: Any = None) -> Any:
        """Return a setting's value."""
        return self.values.get(name, default)

    def where(self, *names: str) -> str | None:
        """Return the place of the first of these settings that was set."""
        return next((self.origins[name].where for name in names if name in self.origins), None)


def parse_streams(raw: object, side: Side, *, where: Where | None = None) -> StreamSettings:
    """Read the value of `streams:`: `{name or glob: {setting: value}}`, or a list of names.

    Args:
        side: which settings there are.
        where: `file:line` of a path below `raw`.

    Raises:
        ConfigError: an unknown setting, or a value of the wrong kind.
    """
    place = where or (lambda path: "streams:")
    if raw is None:
        return NO_SETTINGS
    if isinstance(raw, list) and all(isinstance(stream_name, str) for stream_name in raw):
        raw = {stream_name: {} for stream_name in raw}
    if not isinstance(raw, Mapping):
        raise ConfigError(
            "`streams` must be a mapping of stream names to settings, or a list of names",
            where=place(()),
            code="setting.invalid",
        )
    entries = []
    for name, options in raw.items():
        at = place((name,))
        if isinstance(options, bool):
            options = {"selected": options}
        if options is not None and not isinstance(options, Mapping):
            raise ConfigError(f"the settings of stream {name!r} must be a mapping", where=at, code="setting.invalid")
        settings: JSONObject = {}
        for key, value in (options or {}).items():
            settings[key] = check_setting(side, str(key), value, where=place((name, key)))
        entries.append(Entry(str(name), settings, at))
    return StreamSettings(tuple(entries))


def check_setting(side: Side, key: str, value: object, *, where: str | None = None) -> Any:
    """Return a setting's value in its own type.

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
        raise ConfigError(f"a {side}'s stream has no setting {key!r}", where=where, hint=hint, code="setting.unknown")
    try:
        return kind(value)
    except _WrongSettingError as error:
        raise ConfigError(f"{key}: {error}", where=where, code="setting.invalid") from None


def setting_names(side: Side) -> list[str]:
    """Return the settings that streams have on a side."""
    return list(_KINDS[side])


def resolve(streams: StreamSettings, names: Sequence[str]) -> Resolved:
    """Return the settings of the stream that is called `names` (its id first).

    Names are matched whole. An entry that is the stream's exact name is no glob, whatever characters it has.
    """
    exact = [entry for entry in streams.entries if entry.pattern in names]
    globs = [
        entry
        for entry in streams.entries
        if entry.pattern not in names and is_glob(entry.pattern) and matches(entry.pattern, names)
    ]
    resolved = Resolved({}, {}, listed=bool(globs or exact))
    for entry in (*globs, *exact):
        resolved.values.update(entry.settings)
        resolved.origins.update(dict.fromkeys(entry.settings, entry))
    return resolved


def check_names(streams: StreamSettings, catalog: Catalog) -> None:
    """Refuse exact names that no stream of the catalog has, and names that several have.

    Raises:
        ConfigError: the first such name, with the nearest one that exists.
    """
    for entry in streams.entries:
        if catalog.find(entry.pattern, where=entry.where) is None and not is_glob(entry.pattern):
            raise unknown_stream(entry.pattern, catalog.streams, where=entry.where)


def check_destination_names(streams: StreamSettings, known: Iterable[Sequence[str]]) -> None:
    """Refuse exact names of a destination's streams that no source has.

    Args:
        known: the names of each stream that reaches the destination.

    Raises:
        ConfigError: the first such name, with the nearest one that exists.
    """
    names = list(dict.fromkeys(name for stream in known for name in stream))
    for entry in streams.entries:
        if entry.pattern not in names and not is_glob(entry.pattern):
            raise ConfigError(
                f"no source of this destination has a stream {entry.pattern!r}",
                where=entry.where,
                hint=suggestion(entry.pattern, names, what="streams"),
                code="stream.unknown",
            )


def resolve_destination(streams: StreamSettings, names: Sequence[str]) -> Resolved | None:
    """Return the settings of a stream at a destination, None if the destination does not export it.

    Where `streams:` is left out everything is exported, else what it names; `"*"` stands for the rest.
    """
    resolved = resolve(streams, names)
    selected = resolved.get("selected")
    if selected is None:
        selected = resolved.listed or not streams.lists_streams
    return resolved if selected else None


class _WrongSettingError(Exception):
    """A setting's value is of the wrong kind; the text says what is needed."""


def _method(value: object) -> str:
    name = method_name(value) if isinstance(value, str) else value
    return _choice(METHODS)(name)


def _choice(choices: Sequence[str], *, fold: Callable[[str], str] = str) -> Callable[[object], str]:
    def check(value: object) -> str:
        folded = fold(value) if isinstance(value, str) else value
        if folded not in choices:
            raise _WrongSettingError(f"{value!r} is not one of {', '.join(choices)}")
        return str(folded)

    return check


def _names(value: object) -> list[str]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not value or not all(isinstance(name, str) and name for name in value):
        raise _WrongSettingError("must be a list of column names")
    if len(set(value)) < len(value):
        raise _WrongSettingError("a column is named twice")
    return list(value)


def _keys(value: object) -> list[str]:
    return [] if value in ([], ()) else _names(value)


def _columns(value: object) -> list[str] | dict[str, list[str]]:
    if isinstance(value, Mapping):
        if set(value) != {"exclude"}:
            raise _WrongSettingError("must be a list of columns, or `{exclude: [column, …]}`")
        return {"exclude": _names(value["exclude"])}
    return _names(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _WrongSettingError(f"must be true or false, not {value!r}")
    return value


def _selected(value: object) -> bool | str:
    return DEFAULT if value == DEFAULT else _flag(value)


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _WrongSettingError("must be a name")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _WrongSettingError(f"must be a number of records, not {value!r}")
    return value


def _schema(value: object) -> JSONObject:
    """Return the override of a schema: a JSON schema with `properties`, or, shorter, `{column: its schema}`."""
    if not isinstance(value, Mapping) or not value:
        raise _WrongSettingError("must be a JSON schema, or `{column: its schema}`")
    schema = dict(value) if isinstance(value.get("properties"), Mapping) else {"properties": dict(value)}
    for column, column_schema in schema["properties"].items():
        if not isinstance(column_schema, Mapping):
            raise _WrongSettingError(f"the schema of column {column!r} must be a mapping such as `{{type: string}}`")
    return schema


_Kind: TypeAlias = Callable[[object], Any]

_SOURCE: dict[str, _Kind] = {
    "replication_method": _method,
    "bookmark_properties": _names,
    "unique_constraints": _keys,
    "columns": _columns,
    "schema": _schema,
    "run_in_parallel": _flag,
    "selected": _selected,
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
