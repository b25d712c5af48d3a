"""MySQL and MariaDB by PyMySQL.

The session's time zone is UTC, so that a TIMESTAMP is the instant that it is. DDL ends transactions there: a table is
filled beside the old one, and takes its place by one RENAME.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamline.databases.arrow import (
    Reading,
    batches_of,
    first_fit,
    in_python,
    is_bytes,
    is_json,
    is_uuid,
    json_type,
    table_of_rows,
)
from streamline.databases.base import DatabaseError, Parameters, line_of_word, no_tunnel, setting
from streamline.databases.database import Database
from streamline.project.extras import need

_BINARY = 63
"""The number of the character set `binary`, which tells bytes from text."""
_UNSIGNED = 0x20
_TIMESTAMPS = (datetime.datetime(1970, 1, 1, 0, 0, 1), datetime.datetime(2038, 1, 19, 3, 14, 7))
"""What a TIMESTAMP can hold (https://dev.mysql.com/doc/refman/8.4/en/datetime.html)."""
_FAR = {b"streamline.far": b"1"}
_LINE = re.compile(r" at line (\d+)$")
_WORD = re.compile(r"(?:Unknown column|Table|FUNCTION|PROCEDURE) '?(?:\w+\.)?(\w+)'? ")
_CONNECT_HINTS = {
    1045: "check MYSQL_USER and MYSQL_PASSWORD",
    1044: "check the user's privileges",
    1049: "check MYSQL_DATABASE",
}


class MySQL(Database):
    """A connection to MySQL or MariaDB.

    Args:
        config: `MYSQL_HOST`, `MYSQL_PORT`, `MYSQL_USER`, `MYSQL_PASSWORD`, `MYSQL_DATABASE`.
        name: another database.
    """

    provider = "mysql"
    title = "MySQL"
    transactional_ddl = False
    longest_name = 64
    _temporary_word = "temporary "

    def __init__(
        self, config: Mapping[str, Any], *, origin: str, root: Path, name: str | None = None, schema: str | None = None
    ) -> None:
        super().__init__(origin)
        pymysql = need("pymysql", "mysql", "MySQL and MariaDB", package="PyMySQL")
        no_tunnel(config, "MYSQL", origin=origin)
        self.name = str(name or schema or setting(config, "MYSQL_DATABASE", origin=origin, required=True))
        host = str(setting(config, "MYSQL_HOST", origin=origin, default="localhost"))
        port = int(setting(config, "MYSQL_PORT", origin=origin, default=3306))
        try:
            self.connection = pymysql.connect(
                host=host,
                port=port,
                user=setting(config, "MYSQL_USER", origin=origin),
                password=str(setting(config, "MYSQL_PASSWORD", origin=origin, default="")),
                database=self.name,
                connect_timeout=30,
                autocommit=True,
                charset="utf8mb4",
                init_command="set time_zone = '+00:00', sql_mode = concat(@@sql_mode, ',STRICT_TRANS_TABLES')",
            )
        except (pymysql.MySQLError, OSError) as error:
            code, text = _code_and_text(error)
            hint = _CONNECT_HINTS.get(code, "check MYSQL_HOST and MYSQL_PORT, and that the server runs")
            raise self._unreachable(f"MySQL at {host}:{port}/{self.name}", text, hint) from error
        self.is_mariadb = "mariadb" in str(self.connection.get_server_info()).lower()
        # https://dev.mysql.com/doc/refman/8.4/en/temporary-table-problems.html; MariaDB can since 10.2.
        self.good_temporary = self.is_mariadb

    def query(self, sql: str, parameters: Parameters = None) -> pa.Table | None:
        from pymysql.cursors import SSCursor

        # Rows are read as they come, not all at once.
        with self._errors(sql), self.connection.cursor(SSCursor) as cursor:
            cursor.execute(sql, parameters or None)
            if cursor.description is None:
                return None
            fields = cursor._result.fields  # the flags stand nowhere else
            names = [column[0] for column in cursor.description]
            table = table_of_rows(names, cursor, [_reading(field) for field in fields])
            while cursor.nextset():  # a procedure's later results, which nobody asked for
                pass
            return table

    def execute(self, sql: str, parameters: Parameters = None) -> int:
        with self._errors(sql), self.connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            while cursor.nextset():
                pass
            return int(cursor.rowcount)

    def exists(self, name: str, schema: str | None = None) -> bool:
        return bool(self._listed("tables", "table_name", name, schema))

    def columns(self, name: str, schema: str | None = None) -> list[str]:
        return self._listed("columns", "column_name", name, schema)

    def _listed(self, what: str, column: str, name: str, schema: str | None) -> list[str]:
        order = " order by ordinal_position" if what == "columns" else ""
        sql = f"select {column} from information_schema.{what} where table_schema = %s and table_name = %s{order}"
        with self._errors(), self.connection.cursor() as cursor:
            cursor.execute(sql, (schema or self.name, name))
            return [str(row[0]) for row in cursor.fetchall()]

    def quote(self, identifier: str) -> str:
        return "`" + identifier.replace("`", "``") + "`"

    def _table_options(self) -> str:
        with self._errors(), self.connection.cursor() as cursor:
            cursor.execute("select @@character_set_database")
            row = cursor.fetchone()
        return "" if row and str(row[0]).startswith("utf8mb4") else " character set utf8mb4"

    def _declaration(self, field: pa.Field) -> str:
        kind = field.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_decimal(kind):
            # Beyond this, MySQL's decimals do not go; text keeps the digits.
            fits = kind.precision <= 65 and 0 <= kind.scale <= 30
            return f"decimal({kind.precision},{kind.scale})" if fits else "varchar(80)"
        if pa.types.is_timestamp(kind):
            far = not kind.tz or bool(field.metadata and b"streamline.far" in field.metadata)
            return "datetime(6) null" if far else "timestamp(6) null default null"
        if pa.types.is_integer(kind):
            name = {8: "tinyint", 16: "smallint", 32: "int", 64: "bigint"}[kind.bit_width]
            return f"{name} unsigned" if pa.types.is_unsigned_integer(kind) else name
        return first_fit(kind, _TYPES, "longtext")

    def write(self, data: pa.Table | pa.RecordBatchReader, *args: Any, **options: Any) -> int:
        return super().write(_marked(data), *args, **options)

    def insert(self, data: pa.Table | pa.RecordBatchReader, name: str, schema: str | None = None) -> int:
        columns = data.schema.names
        if self.exists(name, schema):  # temporary tables are not listed anywhere
            columns = self.matched(columns, name, schema)
        listed = ", ".join(self.quote(name).replace("%", "%%") for name in columns)
        marks = ", ".join(["%s"] * len(columns))
        table = self.qualified(name, schema).replace("%", "%%")
        sql = f"insert into {table} ({listed}) values ({marks})"
        count = 0
        with self._errors(), self.transaction(), self.connection.cursor() as cursor:
            for batch in batches_of(data, 10_000):
                values = [_written(column) for column in batch.columns]
                cursor.executemany(sql, list(zip(*values, strict=True)))
                count += batch.num_rows
        return count

    def _retyped(self, column: str, kind: str) -> str:
        return f"modify {column} {kind}"

    def on_conflict(self, table: str, key: Sequence[str], changed: Sequence[str]) -> str:
        changes = [f"{name} = values({name})" for name in map(self.quote, changed)]
        same = self.quote(key[0])
        return f"on duplicate key update {', '.join(changes or [f'{same} = {table}.{same}'])}"

    def finds_conflicts(self, name: str, schema: str | None, key: Sequence[str]) -> bool:
        # `on duplicate key` means any unique key; without one it would only append.
        rows = self.query(
            "select index_name as i, column_name as c from information_schema.statistics where non_unique = 0 "
            "and table_schema = %s and table_name = %s",
            [schema or self.name, name],
        )
        indexes: dict[str, set[str]] = {}
        for row in rows.to_pylist() if rows is not None else []:
            indexes.setdefault(row["i"], set()).add(row["c"].lower())
        return {column.lower() for column in key} in indexes.values()

    def temporary_name(self, name: str) -> str:
        return self.qualified(name)

    def _swap(self, new: str, name: str, schema: str | None) -> None:
        if not self.exists(name, schema):
            self._rename(new, name, schema)
            return
        if self._listed("views", "table_name", name, schema):
            raise DatabaseError(
                f"{self.shown(name, schema)} is a view, and cannot be replaced by a table",
                hint="drop the view, or give the table another name",
                code="database.table_exists",
            )
        old = self.spare_name(name, "_old")
        self.drop(old, schema)
        made, now, before = (self.qualified(table, schema) for table in (new, name, old))
        self.execute(f"rename table {now} to {before}, {made} to {now}")
        self.execute(f"drop table {before}")

    def _rename(self, old: str, new: str, schema: str | None) -> None:
        self.execute(f"rename table {self.qualified(old, schema)} to {self.qualified(new, schema)}")

    @contextlib.contextmanager
    def _alone(self, name: str, schema: str | None) -> Iterator[None]:
        mark = hashlib.sha256(f"{schema or self.name}.{name}".encode()).hexdigest()[:40]
        self.execute("select get_lock(%s, 3600)", [f"streamline {mark}"])
        try:
            yield
        finally:
            with contextlib.suppress(DatabaseError):
                self.execute("select release_lock(%s)", [f"streamline {mark}"])

    def _translated(self, error: Exception, sql: str = "") -> Exception:
        import pymysql

        if not isinstance(error, pymysql.MySQLError):
            return error
        code, text = _code_and_text(error)
        match = _LINE.search(text)
        line = int(match[1]) if match else line_of_word(sql, _WORD.search(text))
        name = "MariaDB" if self.is_mariadb else "MySQL"
        # The line is the statement's, which is another than the file's: that one is told with the error.
        return DatabaseError(f"{name}: {_LINE.sub('', text)} ({code})", line=line)


def _code_and_text(error: Exception) -> tuple[int, str]:
    if len(error.args) == 2 and isinstance(error.args[0], int):
        return error.args[0], str(error.args[1])
    return 0, str(error)


def _marked(data: pa.Table | pa.RecordBatchReader) -> pa.Table:
    """Return the data as one table; moments that no TIMESTAMP can hold are marked, to become a DATETIME in UTC."""
    table = data if isinstance(data, pa.Table) else data.read_all()
    for index, field in enumerate(table.schema):
        if not pa.types.is_timestamp(field.type) or not field.type.tz:
            continue
        moments = table.column(index).cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.timestamp("us"))
        bounds = pc.min_max(moments).as_py()
        if bounds["min"] is not None and not _TIMESTAMPS[0] <= bounds["min"] <= bounds["max"] <= _TIMESTAMPS[1]:
            far = pa.field(field.name, field.type, metadata=_FAR)
            table = table.set_column(index, far, table.column(index))
    return table


_TYPES: tuple[tuple[str, Callable[[pa.DataType], bool]], ...] = (
    ("boolean", pa.types.is_boolean),
    ("double", pa.types.is_float64),
    ("float", pa.types.is_floating),
    ("date", pa.types.is_date),
    ("time(6)", lambda kind: pa.types.is_time(kind) or pa.types.is_duration(kind)),
    ("char(36)", is_uuid),
    ("json", lambda kind: is_json(kind) or pa.types.is_nested(kind)),
    ("longblob", is_bytes),
)


def _reading(field: Any) -> Reading:
    """Return the Arrow type of a result's column, by the protocol's type code, flags and lengths."""
    from pymysql.constants import FIELD_TYPE as T

    code, unsigned = field.type_code, bool(field.flags & _UNSIGNED)
    integers = {T.TINY: 8, T.SHORT: 16, T.INT24: 32, T.LONG: 32, T.LONGLONG: 64}
    if code in integers:
        kind: pa.DataType = getattr(pa, f"{'u' if unsigned else ''}int{integers[code]}")()
        return kind, None
    if code in (T.DECIMAL, T.NEWDECIMAL):
        scale = field.scale
        precision = field.length - (0 if unsigned else 1) - (1 if scale else 0)
        if 1 <= precision <= 76 and 0 <= scale <= precision:
            make = pa.decimal128 if precision <= 38 else pa.decimal256
            return make(precision, scale), None
        return None, None
    if code in (T.VARCHAR, T.VAR_STRING, T.STRING, T.BLOB, T.TINY_BLOB, T.MEDIUM_BLOB, T.LONG_BLOB):
        return (pa.binary(), None) if field.charsetnr == _BINARY else (pa.string(), None)
    known: dict[int, Reading] = {
        T.YEAR: (pa.int16(), None),
        T.FLOAT: (pa.float32(), None),
        T.DOUBLE: (pa.float64(), None),
        T.DATE: (pa.date32(), _not_zero),
        T.DATETIME: (pa.timestamp("us"), _not_zero),
        T.TIMESTAMP: (pa.timestamp("us", "UTC"), _utc),
        T.TIME: (pa.duration("us"), None),
        T.JSON: (json_type(), None),
        T.BIT: (pa.uint64(), lambda value: int.from_bytes(value, "big")),
        T.ENUM: (pa.string(), None),
        T.SET: (pa.string(), None),
        T.GEOMETRY: (pa.binary(), None),
    }
    return known.get(code, (None, None))


def _not_zero(value: Any) -> Any:
    """Return None for '0000-00-00', which is not a date and which the driver returns as text."""
    return None if isinstance(value, str) and value.startswith("0000-") else value


def _utc(value: Any) -> Any:
    value = _not_zero(value)
    return value.replace(tzinfo=datetime.UTC) if isinstance(value, datetime.datetime) else value


def _written(column: pa.Array) -> list[Any]:
    """Return a column's values as PyMySQL takes them."""
    values = in_python(column)
    if pa.types.is_floating(column.type):
        # MySQL has neither NaN nor infinities; its own arithmetic gives NULL where others give these.
        return [None if value is None or not math.isfinite(value) else value for value in values]
    return values
