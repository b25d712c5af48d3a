"""DuckDB: a file, or memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from streamline.databases.arrow import json_type, retyped, table_of_rows, unique_names, uuid_type
from streamline.databases.base import DatabaseError, Parameters, setting, split_message
from streamline.databases.database import Database
from streamline.databases.duckdb_lock import LOCKED, patiently
from streamline.errors import ConfigError

T = TypeVar("T")

MEMORY = ":memory:"
# Types that neither Parquet nor Arrow keeps, and what comes as near as can be.
_WIDE = re.compile(r"\bU?HUGEINT\b")
_TEXT_ONLY = re.compile(r"\b(TIME WITH TIME ZONE|TIMETZ|TIME_NS|BIT|BIGNUM|VARINT|VARIANT|INTERVAL)\b")
WIDE = ("BIGINT", "DECIMAL(38,0)", "DOUBLE")
"""What becomes of 128-bit integers: the first that holds all of them."""


class DuckDB(Database):
    """A connection to a DuckDB file.

    Args:
        config: `DUCKDB_DATABASE` (a path, `:memory:`, or `md:…`), `DUCKDB_SCHEMA`, `MOTHERDUCK_TOKEN`.
        name: a file in place of `DUCKDB_DATABASE`.
    """

    provider = "duckdb"
    title = "DuckDB"
    temporary_schema = "temp"
    longest_name = 1000

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        origin: str,
        root: Path,
        name: str | None = None,
        schema: str | None = None,
    ) -> None:
        super().__init__(origin)
        path = name or str(setting(config, "DUCKDB_DATABASE", origin=origin, required=True))
        self.default_schema = schema or setting(config, "DUCKDB_SCHEMA", origin=origin)
        token = setting(config, "MOTHERDUCK_TOKEN", origin=origin)
        remote = path.startswith(("md:", "motherduck:"))
        self.path = path if path == MEMORY or remote else str(root / Path(path).expanduser())
        options = {"motherduck_token": token} if token and remote else {}
        with self._errors():
            self.connection = patiently(lambda: duckdb.connect(self.path, config=options), self.path)
            # DuckDB would print it on standard output, which may be JSON, for each statement of two seconds or more.
            self.connection.execute("SET enable_progress_bar = false")
        if self.default_schema:
            self.execute(f"create schema if not exists {self.quote(self.default_schema)}")
            escaped = self.default_schema.replace("'", "''")
            self.execute(f"set schema = '{escaped}'")

    def query(self, sql: str, parameters: Parameters = None) -> pa.Table | None:
        with self._errors(sql):
            if self._is_select(sql):
                return _arrow(self.connection.sql(sql, params=parameters)) if parameters else self._select(sql)
            result = self.connection.execute(sql, parameters)
            described = result.description or []
            names = [column[0] for column in described]
            if names in ([], ["Count"], ["Success"]):
                return None
            return table_of_rows(names, result.fetchall())

    def execute(self, sql: str, parameters: Parameters = None) -> int:
        with self._errors(sql):
            result = self.connection.execute(sql, parameters)
            if [column[0] for column in result.description or []] == ["Count"]:
                row = result.fetchone()
                return int(row[0]) if row else -1
            return -1

    def exists(self, name: str, schema: str | None = None) -> bool:
        return bool(self._listed("tables", name, schema))

    def columns(self, name: str, schema: str | None = None) -> list[str]:
        return self._listed("columns", name, schema)

    def _listed(self, what: str, name: str, schema: str | None) -> list[str]:
        """Columns of the table, or the table itself: DuckDB's names do not know case."""
        column, order = ("column_name", " order by ordinal_position") if what == "columns" else ("table_name", "")
        place = "current_database() and lower(table_schema) = lower(coalesce($schema, current_schema()))"
        schema = schema or self.default_schema
        if schema == self.temporary_schema:
            schema, place = "main", "'temp' and lower(table_schema) = $schema"
        sql = f"select {column} from information_schema.{what} where lower(table_name) = lower($name)"
        with self._errors():
            rows = self.connection.execute(
                f"{sql} and table_catalog = {place}{order}", {"name": name, "schema": schema}
            ).fetchall()
        return [row[0] for row in rows]

    def create_table(self, name: str, schema: str | None, columns: pa.Schema, *, temporary: bool = False) -> None:
        table = self._new_table(name, schema, temporary=temporary)
        with self._errors():
            self.connection.register("_streamline_columns", _plain(columns.empty_table()))
            try:
                described = self.connection.execute("describe from _streamline_columns").fetchall()
            finally:
                self.connection.unregister("_streamline_columns")
            # Not `create table … as`: a table that is made so without rows, and gets more than 122,880 of them in the
            # same transaction, has lost them after the commit (DuckDB 1.3 and 2.0).
            listed = ", ".join(f"{self.quote(row[0])} {row[1]}" for row in described)
            self.connection.execute(f"create or replace {table} ({listed})")

    def insert(self, data: pa.Table | pa.RecordBatchReader, name: str, schema: str | None = None) -> int:
        table = self.temporary_name(name) if schema == self.temporary_schema else self.qualified(name, schema)
        with self._errors():
            self.connection.register("_streamline_rows", _plain(data))
            try:
                return self.execute(f"insert into {table} by name from _streamline_rows")
            finally:
                self.connection.unregister("_streamline_rows")

    def described(self, select: str) -> list[tuple[str, str]]:
        """Return the names and DuckDB's types of a SELECT's columns, without running it."""
        try:
            with self._errors(select):
                rows = self.connection.execute(f"describe\n{select}").fetchall()
        except DatabaseError as error:
            if error.line is not None:
                error.line = max(1, error.line - 1)
            raise
        return [(row[0], row[1]) for row in rows]

    def plain_select(
        self, select: str, described: list[tuple[str, str]], *, wide: str = WIDE[0], arrow: bool = False
    ) -> str:
        """Return the same rows, in types that Parquet keeps; `select` itself where nothing needs a change.

        Args:
            wide: what becomes of 128-bit integers, such as every `sum` of integers gives.
            arrow: for Arrow rather than Parquet: intervals as microseconds, UUIDs as bytes.
        """
        names = [name for name, _ in described]
        unique = unique_names(names)
        casts = [_cast(f"c{index}", kind, wide, arrow=arrow) for index, (_, kind) in enumerate(described)]
        if unique == names and not any(casts):
            return select
        inner = ", ".join(f"c{index}" for index in range(len(names)))
        outer = ", ".join(
            f"{cast or f'c{index}'} as {self.quote(name)}"
            for index, (cast, name) in enumerate(zip(casts, unique, strict=True))
        )
        return f"select {outer} from (\n{select}\n) as _({inner})"

    def register(self, name: str, data: pa.Table) -> None:
        """Make an Arrow table visible as `name`, without a copy.

        Raises:
            ConfigError: it has no columns.
        """
        if not data.num_columns:
            raise ConfigError("it has no columns", code="database.no_columns")
        with self._errors():
            self.connection.register(name, _plain(data))

    def _select(self, sql: str) -> pa.Table:
        try:
            described = self.described(sql)
        except DatabaseError:
            if self.in_transaction:
                raise  # the transaction is lost
            # What cannot be described is taken as it comes; what is wrong fails once more, with its own line.
            return _arrow(self.connection.sql(sql))
        table = self.widening(
            described,
            lambda wide: _arrow(self.connection.sql(self.plain_select(sql, described, wide=wide, arrow=True))),
        )
        for index, (_, kind) in enumerate(described):
            table = table.set_column(index, table.column_names[index], _typed(table.column(index), kind))
        return table

    def widening(self, described: list[tuple[str, str]], step: Callable[[str], T]) -> T:
        """Do the step with 128-bit integers as 64-bit ones; where they do not fit, as decimals, then as floats.

        Raises:
            DatabaseError: it fails for another reason.
        """
        for wide in WIDE if any(_WIDE.search(kind) for _, kind in described) else WIDE[-1:]:
            with self._errors():
                try:
                    return step(wide)
                except duckdb.ConversionException:
                    if wide == WIDE[-1]:
                        raise
        raise AssertionError("unreachable")

    def _is_select(self, sql: str) -> bool:
        statements = self.connection.extract_statements(sql)
        return len(statements) == 1 and statements[0].type == duckdb.StatementType.SELECT

    def create_as(self, select: str, name: str, schema: str | None = None, *, temporary: bool = False) -> None:
        self.behind(f"create or replace {self._new_table(name, schema, temporary=temporary)} as", select)

    def _replace(self, name: str, schema: str | None, fill: Callable[[str], T]) -> T:
        """`create or replace` may read the old table and can be undone: nothing has to stand beside it."""
        return fill(name)

    def ensure_schema(self, schema: str | None) -> None:
        if schema:
            self.execute(f"create schema if not exists {self.quote(schema)}")

    def _translated(self, error: Exception, sql: str = "") -> Exception:
        if not isinstance(error, duckdb.Error):
            return error
        text = str(error)
        if LOCKED in text:
            holder = re.search(r"\(PID \d+\)", text)
            return DatabaseError(
                f"another process{' ' + holder[0] if holder else ''} has {self.path} open for writing",
                where=self.origin,
                hint="close it, or wait for it",
                code="database.locked",
            )
        message, hint, line = split_message(text)
        return DatabaseError(f"DuckDB: {message}", hint=hint, line=line)


def _cast(column: str, kind: str, wide: str, *, arrow: bool) -> str | None:
    """Return the expression that casts `column` to a type that is kept; None if its type is."""
    if kind.startswith("ENUM"):
        return None
    if arrow and kind == "INTERVAL":
        return f"epoch_us({column})"
    if arrow and kind == "UUID":
        return f"unhex(replace(cast({column} as VARCHAR), '-', ''))"
    text = _TEXT_ONLY.sub("VARCHAR", _WIDE.sub(wide, kind))
    return f"cast({column} as {text})" if text != kind else None


def _typed(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    if kind == "INTERVAL":
        return column.cast(pa.duration("us"))
    if kind == "UUID":
        return column.cast(pa.binary(16)).cast(uuid_type()) if hasattr(pa, "uuid") else column
    if kind == "JSON":
        return column.cast(json_type())
    if kind == "TIMESTAMP WITH TIME ZONE":
        return column.cast(pa.timestamp("us", "UTC"))
    return column


def _arrow(relation: Any) -> pa.Table:
    return relation.to_arrow_table() if hasattr(relation, "to_arrow_table") else relation.arrow()


def _plain(data: pa.Table | pa.RecordBatchReader) -> pa.Table | pa.RecordBatchReader:
    """Return the data without the Arrow types that DuckDB does not take."""

    def taken(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_float16(kind):
            return pa.float32()
        return pa.string() if pa.types.is_decimal256(kind) or pa.types.is_null(kind) else kind

    return retyped(data, taken)
