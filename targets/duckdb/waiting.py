"""Tables whose rows wait to replace those of another table.

A comment on such a table says which one it belongs to. A table without that comment was made by somebody else, whatever
its name is, and is never dropped.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .database import query

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MARK = "target-duckdb: rows that wait for "


def mark_waiting(connection: DuckDBPyConnection, table: str, main: str, version: int | None) -> None:
    """Comment on a table, given as SQL, that its rows wait for `main`."""
    comment = (_MARK + json.dumps([main, version])).replace("'", "''")
    query(connection, f"COMMENT ON TABLE {table} IS '{comment}'")


def waiting_tables(connection: DuckDBPyConnection, schema: str, main: str) -> dict[int | None, str]:
    """Return the names of the tables that wait for `main`, by version."""
    tables: dict[int | None, str] = {}
    for name, comment in tables_of(connection, schema):
        if (comment or "").startswith(_MARK):
            owner, version = json.loads(comment[len(_MARK) :])
            if owner == main:
                tables[version] = name
    return tables


def is_waiting(connection: DuckDBPyConnection, schema: str, table: str) -> bool:
    """Return whether a table holds rows that wait for another one."""
    return any(
        name.lower() == table.lower() and (comment or "").startswith(_MARK)
        for name, comment in tables_of(connection, schema)
    )


def free_name(connection: DuckDBPyConnection, schema: str, base: str) -> str:
    """Return a name that no table or view has: `base`, or that with underscores added."""
    taken = {name.lower() for name, _ in tables_of(connection, schema)}
    sql = (
        "SELECT view_name FROM duckdb_views() "
        "WHERE database_name = current_database() AND lower(schema_name) = lower(?)"
    )
    taken |= {name.lower() for (name,) in query(connection, sql, [schema])}
    while base.lower() in taken:
        base += "_"
    return base


def tables_of(connection: DuckDBPyConnection, schema: str) -> list[tuple[str, str]]:
    """Return the name and the comment of each table in a schema."""
    sql = (
        "SELECT table_name, comment FROM duckdb_tables() "
        "WHERE database_name = current_database() AND lower(schema_name) = lower(?)"
    )
    return [(name, comment) for name, comment in query(connection, sql, [schema])]
