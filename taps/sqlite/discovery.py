"""Discovery: the tables and views of the database, their columns and keys."""

from __future__ import annotations

import fnmatch
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from kit.connector import ConnectorError, log
from kit.sql import quoted

from ..common.catalog import catalog_entry, unreadable_entry
from .types import Kind, kind_by_values, kind_of, schema

SAMPLE_ROWS = 1000
"""Rows sampled where the declared type does not determine the JSON type."""


class Column(NamedTuple):
    """A column of a table or view."""

    name: str
    declared: str
    kind: Kind
    nullable: bool


class Table(NamedTuple):
    """A table or view; `keys` in the order of its primary key."""

    name: str
    is_view: bool
    columns: list[Column]
    keys: list[str]


def discover(connection: sqlite3.Connection, patterns: Sequence[str] | None) -> dict[str, Any]:
    """Return the catalog of all tables and views whose name matches one of the patterns."""
    streams = []
    for name, is_view in _names(connection):
        if patterns and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            continue
        try:
            table = describe(connection, name, is_view=is_view)
        except sqlite3.Error as error:
            # A view over a dropped table, a virtual table without its module: the others can be read.
            log("WARNING", f"{name!r} is skipped: {error}")
            if "no such module" not in str(error):
                streams.append(unreadable_entry(name, ConnectorError(f"stream {name!r}: {error}")))
            continue
        if table.columns:
            streams.append(_entry(table))
    return {"streams": streams}


def _names(connection: sqlite3.Connection) -> list[tuple[str, bool]]:
    if sqlite3.sqlite_version_info >= (3, 37):
        # It tells the shadow tables of virtual ones, which are no data of the user's.
        rows = connection.execute("PRAGMA main.table_list").fetchall()
        tables = [(name, kind == "view") for schema, name, kind, *_ in rows if schema == "main" and kind != "shadow"]
    else:
        query = "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')"
        tables = [(name, kind == "view") for name, kind in connection.execute(query)]
    return sorted((name, is_view) for name, is_view in tables if not name.lower().startswith("sqlite_"))


def describe(connection: sqlite3.Connection, name: str, *, is_view: bool = False) -> Table:
    """Return a table's columns, with kinds by their declarations and, where these do not tell, by a sample of rows.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    # Hidden columns (1) are arguments of virtual tables; generated ones (2, 3) are data.
    info = [row for row in connection.execute(f"PRAGMA main.table_xinfo({quoted(name)})") if row[6] != 1]
    declared = {row[1]: kind_of(row[2] or "") for row in info}
    unclear = [column for column, kind in declared.items() if kind in (None, "date", "date-time")]
    sampled: dict[str, Sequence[Any]] = {}
    if unclear:
        names = ", ".join(map(quoted, unclear))
        rows = connection.execute(f"SELECT {names} FROM main.{quoted(name)} LIMIT {SAMPLE_ROWS}").fetchall()
        sampled = dict(zip(unclear, zip(*rows, strict=True), strict=True)) if rows else {}
    keys = [row[1] for row in sorted((row for row in info if row[5]), key=lambda row: row[5])]
    columns = [
        Column(
            name=row[1],
            declared=row[2] or "",
            kind=kind_by_values(declared[row[1]], sampled.get(row[1], ())),
            # An INTEGER PRIMARY KEY is the rowid. Other keys may hold NULL, by an old mistake that SQLite keeps.
            nullable=not (row[3] or (keys == [row[1]] and (row[2] or "").upper() == "INTEGER")),
        )
        for row in info
    ]
    return Table(name, is_view, columns, keys)


def _entry(table: Table) -> dict[str, Any]:
    root: dict[str, Any] = {"database-name": "main", "is-view": table.is_view}
    return catalog_entry(
        table.name,
        {column.name: schema(column.kind, nullable=column.nullable) for column in table.columns},
        key_properties=table.keys,
        root=root,
        columns={column.name: {"sql-datatype": column.declared} for column in table.columns},
    )
