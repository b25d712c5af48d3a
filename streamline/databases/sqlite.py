"""SQLite: a file, by the standard library.

SQLite's columns have no types, only names of types. A table that is made here gets names that tell what was written,
and a SELECT that hands such a column through gives it back: dates, times, booleans, decimals, UUIDs.
"""

from __future__ import annotations

import datetime
import decimal
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamline.databases.arrow import (
    Reading,
    batches_of,
    first_fit,
    in_microseconds,
    in_python,
    is_bytes,
    is_json,
    is_uuid,
    json_type,
    table_of_rows,
    uuid_type,
)
from streamline.databases.base import DatabaseError, Parameters, line_of_word, setting
from streamline.databases.database import Database

LOCK_SECONDS = 600.0
"""How long to wait for another process that writes: a block beside this one may be putting millions of rows there."""

EXACT_DIGITS = 15
"""Digits that a number keeps in a column of SQLite's numeric affinity (https://sqlite.org/datatype3.html, §3)."""

_EXACT = {b"streamline.exact": b"1"}
_DECIMAL = re.compile(r"(?:TEXT_)?(?:DECIMAL|NUMERIC)\((\d+),\s*(-?\d+)\)")
_WORD = re.compile(r"""(?:near "|no such \w+: (?:\w+\.)?)(\w+)""")
_SELECT = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(select|with|values)\b", re.IGNORECASE | re.DOTALL)


class SQLite(Database):
    """A connection to an SQLite file.

    Args:
        config: `SQLITE_DATABASE`: a path, or `:memory:`.
        name: a file in its place.
    """

    provider = "sqlite"
    title = "SQLite"
    temporary_schema = "temp"
    longest_name = 1000
    retypes_rows = False

    def __init__(
        self, config: Mapping[str, Any], *, origin: str, root: Path, name: str | None = None, schema: str | None = None
    ) -> None:
        super().__init__(origin)
        path = name or str(setting(config, "SQLITE_DATABASE", origin=origin, required=True))
        self.path = path if path == ":memory:" else str(root / Path(path).expanduser())
        with self._errors():
            self.connection: sqlite3.Connection = sqlite3.connect(
                self.path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )

    def query(self, sql: str, parameters: Parameters = None) -> pa.Table | None:
        with self._errors(sql):
            declared = self._declared(sql) if not parameters and _SELECT.match(sql) else None
            cursor = self.connection.execute(sql, parameters or ())
            if cursor.description is None:
                return None
            names = [column[0] for column in cursor.description]
            if declared is None or len(declared) != len(names):
                return table_of_rows(names, cursor)
            return table_of_rows(names, cursor, [_reading(declaration) for declaration in declared])

    def execute(self, sql: str, parameters: Parameters = None) -> int:
        with self._errors(sql):
            cursor = self.connection.execute(sql, parameters or ())
            if cursor.description is not None:
                cursor.fetchall()
            return cursor.rowcount

    def _begin(self) -> None:
        # At once the lock to write: a transaction that reads first cannot always get it later.
        self.connection.execute("begin immediate")

    @property
    def in_transaction(self) -> bool:
        return self.connection.in_transaction

    def exists(self, name: str, schema: str | None = None) -> bool:
        return bool(self.columns(name, schema))

    def columns(self, name: str, schema: str | None = None) -> list[str]:
        with self._errors():
            rows = self.connection.execute(
                "select name from pragma_table_xinfo(?, ?) where hidden in (0, 2, 3) order by cid",
                (name, schema or "main"),
            ).fetchall()
        return [row[0] for row in rows]

    def qualified(self, name: str, schema: str | None = None) -> str:
        return f"{self.quote(schema)}.{self.quote(name)}" if schema else self.quote(name)

    def _declaration(self, field: pa.Field) -> str:
        """Return a column's declaration: its affinity keeps the values, and `_reading` recognises it."""
        kind = field.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_decimal(kind):
            exact = "TEXT_" if field.metadata and b"streamline.exact" in field.metadata else ""
            return f"{exact}DECIMAL({kind.precision},{kind.scale})"
        if pa.types.is_timestamp(kind):
            return "TIMESTAMPTZ" if kind.tz else "TIMESTAMP"
        return first_fit(kind, _TYPES, "TEXT")

    def change_types(self, name: str, schema: str | None, types: Mapping[str, str]) -> None:
        """Create the table, which is empty, again: SQLite changes no column's type."""
        if types:
            rows = self.rows(f"pragma table_info({self.quote(name)})").to_pylist()
            listed = ", ".join(f"{self.quote(row['name'])} {types.get(row['name'], row['type'])}" for row in rows)
            self.execute(f"drop table {self.qualified(name, schema)}")
            self.execute(f"create table {self.qualified(name, schema)} ({listed})")

    def create_unique_index(self, index: str, name: str, schema: str | None, columns: Sequence[str]) -> None:
        listed = ", ".join(map(self.quote, columns))
        self.execute(f"create unique index {self.qualified(index, schema)} on {self.quote(name)} ({listed})")

    def insert(self, data: pa.Table | pa.RecordBatchReader, name: str, schema: str | None = None) -> int:
        columns = self.matched(data.schema.names, name, schema)
        listed, marks = ", ".join(map(self.quote, columns)), ", ".join("?" * len(columns))
        sql = f"insert into {self.qualified(name, schema)} ({listed}) values ({marks})"
        count = 0
        with self._errors(), self.transaction():
            for batch in batches_of(data):
                values = [_written(column) for column in batch.columns]
                self.connection.executemany(sql, zip(*values, strict=True))
                count += batch.num_rows
        return count

    def write(self, data: pa.Table | pa.RecordBatchReader, *args: Any, **options: Any) -> int:
        # What a decimal column is called depends on the digits of all its values.
        return super().write(_narrowed(data), *args, **options)

    def _declared(self, select: str) -> list[str] | None:
        """Return the declarations of a SELECT's columns: a view has them for columns passed through unchanged."""
        view = "temp._streamline_declared"
        try:
            self.connection.execute(f"create temp view _streamline_declared as {select}")
        except sqlite3.Error:
            return None  # not a SELECT after all, or a wrong one: its own error comes where it runs
        try:
            rows = self.connection.execute("select type from pragma_table_info('_streamline_declared')").fetchall()
            return [str(row[0] or "").upper() for row in rows]
        except sqlite3.Error:
            return None
        finally:
            self.connection.execute(f"drop view {view}")

    def _rename(self, old: str, new: str, schema: str | None) -> None:
        # Views on the old table are checked by a rename, and there is no such table just now.
        before = self.connection.execute("pragma legacy_alter_table").fetchone()[0]
        self.execute("pragma legacy_alter_table = on")
        try:
            super()._rename(old, new, schema)
        finally:
            self.execute(f"pragma legacy_alter_table = {before}")

    def _translated(self, error: Exception, sql: str = "") -> Exception:
        if not isinstance(error, sqlite3.Error | sqlite3.Warning):
            return error
        text = str(error)
        hint = None
        if "unable to open database file" in text:
            text, hint = f"cannot open {self.path}", "see that its folder exists and may be written"
        elif "locked" in text:
            hint = f"another process has {self.path} open for writing: close it, or wait for it"
        return DatabaseError(f"SQLite: {text}", hint=hint, line=line_of_word(sql, _WORD.search(text)))


def _narrowed(data: pa.Table | pa.RecordBatchReader) -> pa.Table:
    """Return the data as one table; columns with too many digits for SQLite's numbers are marked, for text."""
    table = data if isinstance(data, pa.Table) else data.read_all()
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if pa.types.is_uint64(field.type) and (pc.max(column).as_py() or 0) >= 2**63:
            column = column.cast(pa.decimal128(20, 0))
        elif not pa.types.is_decimal(field.type) or not any(
            value is not None and len(value.normalize().as_tuple().digits) > EXACT_DIGITS
            for batch in column.chunks
            for value in batch.to_pylist()
        ):
            continue
        table = table.set_column(index, pa.field(field.name, column.type, metadata=_EXACT), column)
    return table


_TYPES: tuple[tuple[str, Callable[[pa.DataType], bool]], ...] = (
    ("UNSIGNED BIGINT", pa.types.is_uint64),
    ("BOOLEAN", pa.types.is_boolean),
    ("INTEGER", pa.types.is_integer),
    ("REAL", pa.types.is_floating),
    ("DATE", pa.types.is_date),
    ("TIME", pa.types.is_time),
    ("INTERVAL_US", pa.types.is_duration),
    ("UUID_TEXT", is_uuid),
    ("JSON_TEXT", lambda kind: is_json(kind) or pa.types.is_nested(kind)),
    ("BLOB", is_bytes),
)


def _reading(declared: str) -> Reading:
    """Return how a column with this declaration is read."""
    match = _DECIMAL.fullmatch(declared)
    if match is not None and 1 <= int(match[1]) <= 38 and 0 <= int(match[2]) <= int(match[1]):
        return pa.decimal128(int(match[1]), int(match[2])), lambda value: decimal.Decimal(_number(value))
    known: dict[str, Reading] = {
        "BOOLEAN": (pa.bool_(), _boolean),
        "BOOL": (pa.bool_(), _boolean),
        "UNSIGNED BIGINT": (pa.uint64(), None),
        "DATE": (pa.date32(), datetime.date.fromisoformat),
        "TIME": (pa.time64("us"), datetime.time.fromisoformat),
        "TIMESTAMP": (pa.timestamp("us"), lambda value: _moment(value, aware=False)),
        "DATETIME": (pa.timestamp("us"), lambda value: _moment(value, aware=False)),
        "TIMESTAMPTZ": (pa.timestamp("us", "UTC"), lambda value: _moment(value, aware=True)),
        "TIMESTAMP WITH TIME ZONE": (pa.timestamp("us", "UTC"), lambda value: _moment(value, aware=True)),
        "INTERVAL_US": (pa.duration("us"), lambda value: datetime.timedelta(microseconds=value)),
        "UUID_TEXT": (uuid_type(), None),
        "JSON_TEXT": (json_type(), None),
        "TEXT": (pa.string(), None),
        "REAL": (pa.float64(), None),
        "BLOB": (pa.binary(), None),
        "INTEGER": (pa.int64(), None),
    }
    return known.get(declared, (None, None))


def _boolean(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError(f"no boolean: {value!r}")
    return bool(value)


def _number(value: Any) -> str:
    if not isinstance(value, int | float | str):
        raise TypeError(f"no number: {value!r}")
    return repr(value) if isinstance(value, float) else str(value)


def _moment(value: Any, *, aware: bool) -> Any:
    moment = datetime.datetime.fromisoformat(value)
    if (moment.tzinfo is not None) != aware:
        raise ValueError(f"a time zone, or none, where the other was declared: {value!r}")
    return moment


def _written(column: pa.Array) -> list[Any]:
    """Return a column's values as SQLite takes them."""
    column = in_microseconds(column)
    kind = column.type
    if pa.types.is_timestamp(kind):
        return [None if value is None else value.isoformat(sep=" ") for value in column.to_pylist()]
    if pa.types.is_duration(kind):
        return list(column.cast(pa.int64()).to_pylist())
    values = in_python(column)
    if pa.types.is_decimal(kind):
        return [None if value is None else str(value) for value in values]
    if pa.types.is_date(kind) or pa.types.is_time(kind):
        return [None if value is None else value.isoformat() for value in values]
    return values
