"""The DuckDB database: opened, and what it has."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kit.connector import Config, ConfigError, ConnectorError

from ..common.columns import BIGINT, BLOB, BOOLEAN, DATE, DOUBLE, HUGEINT, JSON, TIME, TIMESTAMP, VARCHAR, ColumnType

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SECONDS_IN_RUN = 3600
"""How long to wait for another part of the same run, such as a dbt build, which will let go of the file."""
_GIBIBYTES = 2
"""DuckDB's memory where the config does not say how much; beyond it, DuckDB uses a file beside the database."""
_KNOWN = {found.name: found for found in (BOOLEAN, BIGINT, HUGEINT, DOUBLE, DATE, TIMESTAMP, TIME, BLOB, JSON, VARCHAR)}


def connect(config: Config) -> DuckDBPyConnection:
    """Open `config['path']`; wait while another process has it open, up to an hour if that belongs to the same run.

    Raises:
        ConfigError: its folder does not exist, or DuckDB rejects a setting.
        ConnectorError: it is locked, or not a database.
    """
    import duckdb

    options = {key: config[key] for key in ("memory_limit", "threads") if config[key] is not None}
    began = time.monotonic()
    while True:
        try:
            connection = duckdb.connect(config["path"], config=options)
        except duckdb.IOException as error:
            if "lock" not in str(error):
                raise ConfigError(f"{config['path']}: {_first_line(error)}", "setting 'path'") from error
            patience = max(config["lock_timeout"], _SECONDS_IN_RUN if _in_this_run(str(error)) else 0)
            if time.monotonic() >= began + patience:
                hint = "close the program that has it open, or raise lock_timeout"
                raise ConnectorError(f"{config['path']} is in use: {_first_line(error)}", hint) from error
            time.sleep(0.1)
        except duckdb.Error as error:
            raise ConnectorError(f"{config['path']}: {_first_line(error)}") from error
        else:
            # Moments are in UTC; a column of type TIMESTAMPTZ takes them by the session's zone.
            connection.execute("SET TimeZone = 'UTC'")
            # DuckDB would print it on standard output, among the STATEs, for each statement of two seconds or more.
            connection.execute("SET enable_progress_bar = false")
            if config["memory_limit"] is None:
                _limit_memory(connection)
            return connection


def _limit_memory(connection: DuckDBPyConnection) -> None:
    """Lower DuckDB's own limit, most of the machine's memory: it fills it with pages that it has written."""
    ((limit,),) = query(connection, "SELECT current_setting('memory_limit')")
    number, unit = limit.split()
    if unit == "TiB" or (unit == "GiB" and float(number) > _GIBIBYTES):
        query(connection, f"SET memory_limit = '{_GIBIBYTES}GiB'")


def _in_this_run(message: str) -> bool:
    """Return whether the process that has the file open belongs to the same run: another block, or dbt."""
    holder, run = re.search(r"\(PID (\d+)\)", message), os.environ.get("STREAMLINE_RUN_ID")
    if holder is None or not run:
        return False
    try:
        with open(f"/proc/{holder[1]}/environ", "rb") as file:
            return f"STREAMLINE_RUN_ID={run}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def query(connection: DuckDBPyConnection, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run a statement to its end and returns its rows: DuckDB refuses work while a result is unfinished."""
    return connection.execute(sql, list(values)).fetchall()


def parse_type(text: str) -> ColumnType:
    """Return a type by DuckDB's name for it; an unknown one keeps its name, and values are cast to it."""
    if text.startswith("DECIMAL("):
        precision, scale = text[8:-1].split(",")
        return ColumnType("DECIMAL", int(precision), int(scale))
    return _KNOWN.get(text) or ColumnType(text)


def table_columns(connection: DuckDBPyConnection, schema: str, table: str) -> dict[str, ColumnType]:
    """Return a table's columns, none if there is no such table.

    Raises:
        ConnectorError: it is a view.
    """
    sql = (
        "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() "
        "AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?) ORDER BY column_index"
    )
    columns = {name: parse_type(type_) for name, type_ in query(connection, sql, [schema, table])}
    if columns:
        sql = (
            "SELECT count(*) FROM duckdb_views() WHERE database_name = current_database() "
            "AND lower(schema_name) = lower(?) AND lower(view_name) = lower(?)"
        )
        if query(connection, sql, [schema, table]) != [(0,)]:
            raise ConnectorError(f"{table!r} is a view, not a table", "give the stream another destination_table")
    return columns
