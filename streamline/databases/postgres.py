"""PostgreSQL by psycopg 3: rows go in by COPY."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from streamline.databases.arrow import (
    Reading,
    batches_of,
    first_fit,
    in_microseconds,
    in_python,
    is_bytes,
    is_json,
    is_list,
    is_uuid,
    json_text,
    json_type,
    table_of_rows,
    uuid_type,
)
from streamline.databases.base import DatabaseError, Parameters, line_of_offset, no_tunnel, setting
from streamline.databases.database import Database
from streamline.databases.postgres_copy import TYPES, copied, copyable, described
from streamline.project.extras import need
from streamline.project.suggest import words

_AS_TEXT = words(
    "inet cidr macaddr macaddr8 int4range int8range numrange tsrange tstzrange daterange json jsonb timetz hstore bit "
    "varbit money tsvector xml record"
)
"""Types whose values are read as the text that PostgreSQL writes."""

_ROWS_AT_A_TIME = 20_000


class Postgres(Database):
    """A connection to PostgreSQL.

    Args:
        config: `POSTGRES_HOST`, `POSTGRES_PORT`, `POSTGRES_USER`, `POSTGRES_PASSWORD`, `POSTGRES_DBNAME` (or
            `POSTGRES_DB`), `POSTGRES_SCHEMA`, `POSTGRES_CONNECT_TIMEOUT` (seconds), `POSTGRES_SSLMODE`.
        name: another database.
        schema: another schema.
    """

    provider = "postgres"
    title = "PostgreSQL"
    temporary_schema = "pg_temp"
    longest_name = 63
    exact_names = True

    def __init__(
        self, config: Mapping[str, Any], *, origin: str, root: Path, name: str | None = None, schema: str | None = None
    ) -> None:
        super().__init__(origin)
        psycopg = need("psycopg", "pip:'psycopg[binary]'", "PostgreSQL")
        no_tunnel(config, "POSTGRES", origin=origin)
        self.name = name or setting(config, "POSTGRES_DBNAME", "POSTGRES_DB", origin=origin, required=True)
        self.default_schema = schema or setting(config, "POSTGRES_SCHEMA", origin=origin)
        wanted = {
            "host": setting(config, "POSTGRES_HOST", origin=origin),
            "port": setting(config, "POSTGRES_PORT", origin=origin),
            "user": setting(config, "POSTGRES_USER", origin=origin),
            "password": setting(config, "POSTGRES_PASSWORD", origin=origin),
            "dbname": self.name,
            "connect_timeout": setting(config, "POSTGRES_CONNECT_TIMEOUT", origin=origin, default=30),
            "sslmode": setting(config, "POSTGRES_SSLMODE", origin=origin),
        }
        settings = {key: str(value) for key, value in wanted.items() if value is not None}
        try:
            self.connection = psycopg.connect(
                "", autocommit=True, application_name="streamline", client_encoding="utf8", **settings
            )
        except psycopg.Error as error:
            address = f"PostgreSQL at {settings.get('host', 'localhost')}:{settings.get('port', '5432')}/{self.name}"
            reason = " ".join(str(error).split())
            raise self._unreachable(address, reason, _connect_hint(reason)) from error
        self.execute("set bytea_output = hex; set datestyle = ISO")
        for kind in _AS_TEXT:
            self._read_as_text(kind)
        if self.default_schema:
            # It may not be there yet: the first write makes it.
            self.execute(f"set search_path to {self.quote(self.default_schema)}, public")
        else:
            # Named always, so that a temporary table of the same name is never meant.
            with self._errors():
                row = self.connection.execute("select current_schema()").fetchone()
            self.default_schema = row[0] if row else None

    def query(self, sql: str, parameters: Parameters = None) -> pa.Table | None:
        if not parameters and copyable(sql):
            table = self._copied(sql)
            if table is not None:
                return table
        with self._errors(sql), self.connection.cursor() as cursor:
            # Without parameters a `%` is a `%`.
            cursor.execute(sql.encode(), parameters or None)
            if cursor.description is None:
                return None
            names = [column.name for column in cursor.description]
            return table_of_rows(names, cursor, [_reading(column) for column in cursor.description])

    def _copied(self, sql: str) -> pa.Table | None:
        """Read the rows by COPY; None if COPY cannot take this statement.

        In a transaction, so that the tables stay locked from their description on. COPY looks at the time before it
        got its locks: a table that was replaced while it waited for one would seem to be empty.
        """
        with self.transaction():
            return self._copied_inside(sql)

    def _copied_inside(self, sql: str) -> pa.Table | None:
        with self._errors(sql):
            columns = described(self.connection, sql)
        if not columns:
            return None
        statement = f"copy ({sql}\n) to stdout (format csv)"
        self.execute("savepoint streamline_copy")
        with self._errors(statement):
            try:
                table = copied(self.connection, statement, columns)
            except pa.ArrowException:
                self.execute("rollback to savepoint streamline_copy")
                return None  # once more by the driver, which takes more values, and says what is wrong with one
        self.execute("release savepoint streamline_copy")
        return table

    def execute(self, sql: str, parameters: Parameters = None) -> int:
        with self._errors(sql), self.connection.cursor() as cursor:
            cursor.execute(sql.encode(), parameters or None)
            return int(cursor.rowcount)

    def _begin(self) -> None:
        self.connection.execute("begin")

    @property
    def in_transaction(self) -> bool:
        from psycopg.pq import TransactionStatus

        return bool(self.connection.info.transaction_status != TransactionStatus.IDLE)

    def exists(self, name: str, schema: str | None = None) -> bool:
        with self._errors():
            return self._relation(name, schema) is not None

    def columns(self, name: str, schema: str | None = None) -> list[str]:
        return list(self._column_types(name, schema))

    def _column_types(self, name: str, schema: str | None) -> dict[str, str]:
        with self._errors():
            rows = self.connection.execute(
                "select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = %s "
                "and attnum > 0 and not attisdropped order by attnum",
                [self._relation(name, schema)],
            ).fetchall()
        return dict(rows)

    def _relation(self, name: str, schema: str | None) -> int | None:
        """Return a table's or view's oid. Not by to_regclass: it may remember an absence for a whole transaction."""
        schema = schema or self.default_schema
        if schema == self.temporary_schema:
            place = "relnamespace = pg_my_temp_schema() and %s::text is not null"
        elif schema is None:
            place = "pg_table_is_visible(oid) and %s::text is null"
        else:
            place = "relnamespace = (select oid from pg_namespace where nspname = %s::name)"
        row = self.connection.execute(
            f"select oid from pg_class where relname = %s::name and relkind in ('r', 'v', 'm', 'f', 'p') and {place}",
            [name, schema],
        ).fetchone()
        return int(row[0]) if row is not None else None

    def _declaration(self, field: pa.Field) -> str:
        return _declared(field.type)

    def _retyped(self, column: str, kind: str) -> str:
        return f"alter column {column} type {kind} using {column}::{kind}"

    def insert(self, data: pa.Table | pa.RecordBatchReader, name: str, schema: str | None = None) -> int:
        columns = self.matched(data.schema.names, name, schema)
        types = self._column_types(name, schema)
        arrays = [types[column].endswith("[]") for column in columns]
        listed = ", ".join(map(self.quote, columns))
        sql = f"copy {self.qualified(name, schema)} ({listed}) from stdin (format csv)"
        options = csv.WriteOptions(include_header=False)
        count = 0
        with self._errors(), self.connection.cursor() as cursor, cursor.copy(sql.encode()) as copy:
            for batch in batches_of(data, _ROWS_AT_A_TIME):
                written = [_written(column, array) for column, array in zip(batch.columns, arrays, strict=True)]
                buffer = io.BytesIO()
                csv.write_csv(pa.table(written, names=[str(i) for i in range(len(written))]), buffer, options)
                copy.write(buffer.getbuffer())
                count += batch.num_rows
        return count

    def _swap(self, new: str, name: str, schema: str | None) -> None:
        """Swap the tables. If views depend on the old one, it stays and gets the new rows."""
        from psycopg.errors import DependentObjectsStillExist

        self.execute("savepoint streamline_swap")
        try:
            super()._swap(new, name, schema)
        except DatabaseError as error:
            if not isinstance(error.__cause__, DependentObjectsStillExist):
                raise
            self.execute("rollback to savepoint streamline_swap")
            if self._column_types(new, schema) != self._column_types(name, schema):
                error.hint = "its columns change, and what depends on it would not last: drop that first"
                raise
            columns = ", ".join(map(self.quote, self.columns(name, schema)))
            old, made = self.qualified(name, schema), self.qualified(new, schema)
            self.execute(f"delete from {old}")
            self.execute(f"insert into {old} ({columns}) select {columns} from {made}")
            self.drop(new, schema)
        self.execute("release savepoint streamline_swap")

    def ensure_schema(self, schema: str | None) -> None:
        schema = schema or self.default_schema
        if schema and not self._has_schema(schema):
            # Of two CREATE SCHEMA IF NOT EXISTS at the same time, one fails.
            self._lock(self.quote(schema))
            if not self._has_schema(schema):
                self.execute(f"create schema {self.quote(schema)}")

    def _has_schema(self, schema: str) -> bool:
        # Not to_regnamespace: it may answer from a cache that is as old as the transaction.
        with self._errors():
            query = "select 1 from pg_catalog.pg_namespace where nspname = %s"
            return self.connection.execute(query, [schema]).fetchone() is not None

    @contextlib.contextmanager
    def _alone(self, name: str, schema: str | None) -> Iterator[None]:
        self._lock(self.qualified(name, schema))
        yield

    def _lock(self, name: str) -> None:
        """Lock a name until the transaction ends."""
        with self._errors():
            self.connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"streamline {name}"])

    def _read_as_text(self, kind: str) -> None:
        from psycopg.types.string import TextLoader

        info = self.connection.adapters.types.get(kind)
        if info is not None:
            self.connection.adapters.register_loader(info.oid, TextLoader)

    def _translated(self, error: Exception, sql: str = "") -> Exception:
        import psycopg

        if not isinstance(error, psycopg.Error):
            return error
        diagnostics = error.diag
        text = diagnostics.message_primary or " ".join(str(error).split()) or type(error).__name__
        message = f"PostgreSQL: {text}"
        if diagnostics.message_detail:
            message += f" ({diagnostics.message_detail})"
        if diagnostics.context and diagnostics.context.startswith("COPY"):
            message += f" ({diagnostics.context})"
        position = diagnostics.statement_position
        line = line_of_offset(sql, int(position) - 1) if position and sql else None
        return DatabaseError(message, hint=diagnostics.message_hint, line=line)


def _connect_hint(reason: str) -> str:
    if "password" in reason or "role" in reason or "authentication" in reason:
        return "check POSTGRES_USER and POSTGRES_PASSWORD"
    if "database" in reason and "does not exist" in reason:
        return "check POSTGRES_DBNAME"
    return "check POSTGRES_HOST and POSTGRES_PORT, and that the server runs"


_TYPES: tuple[tuple[str, Callable[[pa.DataType], bool]], ...] = (
    ("boolean", pa.types.is_boolean),
    ("numeric(20,0)", pa.types.is_uint64),
    ("bigint", lambda kind: pa.types.is_int64(kind) or pa.types.is_uint32(kind)),
    ("integer", lambda kind: pa.types.is_int32(kind) or pa.types.is_uint16(kind)),
    ("smallint", pa.types.is_integer),
    ("double precision", pa.types.is_float64),
    ("real", pa.types.is_floating),
    ("date", pa.types.is_date),
    ("time", pa.types.is_time),
    ("interval", pa.types.is_duration),
    ("uuid", is_uuid),
    ("json", is_json),
    ("jsonb", pa.types.is_nested),
    ("bytea", is_bytes),
)


def _declared(kind: pa.DataType) -> str:
    """Return the PostgreSQL type whose columns hold values of an Arrow type."""
    if pa.types.is_dictionary(kind):
        return _declared(kind.value_type)
    if pa.types.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    if is_list(kind):
        # PostgreSQL's arrays are rectangular; lists of lists are not.
        nested = pa.types.is_nested(kind.value_type)
        return "jsonb" if nested else f"{_declared(kind.value_type)}[]"
    return first_fit(kind, _TYPES, "text")


def _reading(column: Any) -> Reading:
    from psycopg import postgres

    info = postgres.types.get(column.type_code)
    name = info.name if info is not None else ""
    kind = _scalar(name, column)
    if info is not None and column.type_code == info.array_oid and info.array_oid:
        # Its dimensions are known by its values only.
        if kind is None:
            return None, _list_of_text
        return pa.list_(kind), None
    return kind, str if name in _AS_TEXT else None


def _scalar(name: str, column: Any) -> pa.DataType | None:
    if name in TYPES:
        return TYPES[name]
    if name == "numeric":
        precision, scale = column.precision, column.scale
        if precision and scale is not None and 0 <= scale <= precision <= 38:
            return pa.decimal128(precision, scale)
        return None
    if name in ("json", "jsonb"):
        return json_type()
    return {
        "oid": pa.int64(),
        "bytea": pa.binary(),
        "time": pa.time64("us"),
        "interval": pa.duration("us"),
        "uuid": uuid_type(),
    }.get(name, pa.string() if name in _AS_TEXT else None)


def _list_of_text(value: list[Any]) -> list[Any]:
    """Elements that Arrow has no type for, as text."""
    return [item if item is None or isinstance(item, list | decimal.Decimal) else str(item) for item in value]


def _written(column: pa.Array, array: bool) -> pa.Array:
    """Convert a column to one that CSV can carry to PostgreSQL.

    Args:
        array: the table's column is an array.
    """
    column = in_microseconds(column)
    kind = column.type
    if is_bytes(kind):
        return pa.array([None if value is None else "\\x" + value.hex() for value in column.to_pylist()], pa.string())
    if is_list(kind) and array:
        return pa.array([None if value is None else array_text(value) for value in column.to_pylist()], pa.string())
    if is_uuid(kind) or pa.types.is_nested(kind):
        return pa.array(in_python(column), pa.string())
    if is_json(kind) or pa.types.is_decimal(kind) or pa.types.is_time(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_duration(kind):
        digits = column.cast(pa.int64()).cast(pa.decimal128(19, 0)).cast(pa.string())
        return pc.binary_join_element_wise(digits, pa.scalar("microseconds"), " ")
    if pa.types.is_date64(kind):
        return column.cast(pa.date32())
    return column.cast(pa.float32()) if pa.types.is_float16(kind) else column


def array_text(values: Sequence[Any]) -> str:
    """Return a list as the text of an array (https://www.postgresql.org/docs/current/arrays.html, §8.15.6)."""
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        return array_text(value)
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, int | float | decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        text = "\\x" + value.hex()
    elif isinstance(value, datetime.timedelta):
        text = f"{value // datetime.timedelta(microseconds=1)} microseconds"
    elif isinstance(value, dict):
        text = json_text(value)
    else:
        text = str(value)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
