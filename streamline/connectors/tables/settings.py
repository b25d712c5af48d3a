"""The settings of sinks into tables, checked without connecting."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from streamline.connectors.setting_kinds import Kinds, WrongValueError, choice, read_settings, secret_text, text, whole
from streamline.connectors.setting_kinds import texts as several
from streamline.connectors.stream_connector import Config, StreamContext, Where

System: TypeAlias = Literal["postgres", "duckdb"]

TITLES: Mapping[System, str] = {"postgres": "PostgreSQL", "duckdb": "DuckDB"}
KEY_COLUMN = "_key"
"""Holds the message key where no `key` is set."""
_FIELD = re.compile(r"\{([^{}]*)\}")


class TableSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a sink.

    Args:
        profile: as `databases` takes it.
        address: names the database in messages.
        table: a template: `{stream}` is the topic or stream.
        key: columns; none: the message key, in `key_column`.
        columns: the only fields that are written, with their SQL types where given; empty: all fields.
        append: rows are added, and replace none.
        evolve: new fields become columns, and columns of integers are widened.
        batch_size: the most messages of one transaction.
    """

    system: System
    profile: Mapping[str, Any]
    address: str
    table: str
    schema: str | None = None
    key: tuple[str, ...] = ()
    key_column: str = KEY_COLUMN
    columns: Mapping[str, str | None] = {}
    append: bool = False
    evolve: bool = True
    batch_size: int = 5_000

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns by which a row is replaced."""
        return () if self.append else self.key or (self.key_column,)

    def table_of(self, stream: str) -> str:
        """Return the table of a stream."""
        return self.table.replace("{stream}", stream)


def _columns(value: Any) -> Mapping[str, str | None]:
    if isinstance(value, Mapping):
        if not value or not all(isinstance(kind, str | None) for kind in value.values()):
            raise WrongValueError("must map columns to SQL types, such as `price: numeric(10,2)`")
        return {str(name): kind for name, kind in value.items()}
    if isinstance(value, str | Sequence):
        return dict.fromkeys(several(value))
    raise WrongValueError("must be a list of columns, or map columns to SQL types")


_COMMON: Kinds = {
    "table": text,
    "schema": text,
    "key": several,
    "key_column": text,
    "columns": _columns,
    "mode": choice("upsert", "append"),
    "schema_change": choice("evolve", "freeze"),
    "batch_size": whole(1),
}
_KINDS: Mapping[System, Kinds] = {
    "postgres": {
        **_COMMON,
        "url": text,
        "host": text,
        "port": whole(1),
        "user": text,
        "password": secret_text,
        "dbname": text,
        "sslmode": text,
        "connect_timeout": whole(1),
    },
    "duckdb": {**_COMMON, "path": text},
}


def table_settings(system: System, config: Config, context: StreamContext, where: Where) -> TableSettings:
    """Read the settings of a sink.

    Raises:
        ConfigError: one is unknown, missing or wrong.
    """
    settings = read_settings(config, _KINDS[system], where, what=f"a {TITLES[system]} sink")
    table = settings.need("table", "the table to write, such as `{stream}`")
    for field in _FIELD.findall(table):
        if field != "stream":
            settings.fail(f"`table` has no field {{{field}}}", "table", hint="{stream} is the topic or stream")
    append = settings.get("mode") == "append"
    columns = settings.get("columns") or {}
    key = settings.get("key") or ()
    if append:
        settings.refuse_both("mode", "key", hint="with `mode: append` rows replace none: remove `key`")
    missing = [name for name in key if columns and name not in columns]
    if missing:
        settings.fail(f"`columns` does not have {missing[0]}, a column of `key`", "columns", hint="add it to `columns`")
    if system == "duckdb":
        path = settings.need("path", "the database file")
        profile = {"DUCKDB_DATABASE": path}
        address = path
    else:
        given = _postgres(settings)
        if given.get("password"):
            context.secret(given["password"])
        profile = {f"POSTGRES_{name.upper()}": value for name, value in given.items()}
        address = f"{given.get('host', 'localhost')}:{given.get('port', 5432)}/{given['dbname']}"
    return TableSettings(
        system=system,
        profile=profile,
        address=f"{TITLES[system]} at {address}",
        table=table,
        schema=settings.get("schema"),
        key=key,
        key_column=settings.get("key_column", KEY_COLUMN),
        columns=columns,
        append=append,
        evolve=settings.get("schema_change") != "freeze",
        batch_size=settings.get("batch_size", 5_000),
    )


def _postgres(settings: Any) -> dict[str, Any]:
    parts = ("host", "port", "user", "password", "dbname", "sslmode", "connect_timeout")
    given = {name: settings[name] for name in parts if name in settings}
    if "url" not in settings:
        settings.need("dbname", "the database")
        return given
    for name in given:
        settings.refuse_both("url", name)
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        if urlsplit(settings["url"]).scheme not in ("postgresql", "postgres"):
            raise ValueError
        found = conninfo_to_dict(settings["url"])
    except (ProgrammingError, ValueError):
        settings.fail("`url` is no URL of PostgreSQL", "url", hint="postgresql://USER:PASSWORD@HOST:5432/DBNAME")
    unknown = next((name for name in found if name not in parts), None)
    if unknown is not None:
        settings.fail(f"`url` has the parameter {unknown}, which is not supported", "url")
    if not found.get("dbname"):
        settings.fail("`url` names no database", "url", hint="postgresql://USER:PASSWORD@HOST:5432/DBNAME")
    return dict(found)
