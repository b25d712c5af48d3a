"""One table: made and changed as its stream's schema wants, and loaded from Arrow batches."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from kit.connector import log
from kit.sql import quoted

from ..common.columns import BIGINT, BLOB, DOUBLE, JSON, MAX_DIGITS, VARCHAR, ColumnType, decimal_type, roomy, wider
from .database import query, table_columns
from .keys import comparable, mark_widened, widened_columns

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

VERSION_COLUMN = "_sdc_table_version"
"""Where a row's version stands, by the name that other Singer targets gave it."""


class Table:
    """A table and its columns.

    Args:
        name: as in the database.

    Raises:
        ConnectorError: a view has its name.
        duckdb.Error: the database refuses a change.
    """

    def __init__(self, connection: DuckDBPyConnection, schema: str, name: str) -> None:
        self._connection = connection
        self._schema = schema
        self.name = name
        self.sql = f"{quoted(schema)}.{quoted(name)}"
        self.columns = table_columns(connection, schema, name)
        self.was = widened_columns(connection, schema, name) if self.columns else {}
        """Types that key columns had before they became text."""

    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return query(self._connection, sql, values)

    @property
    def exists(self) -> bool:
        """Whether it was made."""
        return bool(self.columns)

    def place(self, properties: Iterable[str]) -> dict[str, str]:
        """Return the column for each property.

        DuckDB's names ignore case. Where properties differ by case only, a column that has the exact name keeps it,
        else the first in the order of texts gets the plain name; the others get a suffix made from theirs.
        """
        names = list(properties)
        by_lower: dict[str, list[str]] = {}
        for name in names:
            by_lower.setdefault(name.lower(), []).append(name)
        existing = {column.lower(): column for column in self.columns}
        suffixed = {name: f"{name}_{zlib.crc32(name.encode('utf-8', 'surrogatepass')) & 0xFFFF:04x}" for name in names}
        placed: dict[str, str] = {}
        for lower, same in by_lower.items():
            plain = existing.get(lower)
            # One that got a suffix beside another keeps it; a column without a name needs one.
            free = [name for name in same if name and (name == plain or suffixed[name].lower() not in existing)]
            first = plain if plain in same else min(free, default=None)
            for name in same:
                other = existing.get(suffixed[name].lower(), suffixed[name])
                placed[name] = (plain or name) if name == first else other
        return {name: placed[name] for name in names}

    def ensure(self, wanted: dict[str, ColumnType], keys: Collection[str] = ()) -> None:
        """Make the table, or add what is missing and widen what is too narrow."""
        if not self.exists:
            columns = ", ".join(f"{quoted(name)} {type_.sql}" for name, type_ in wanted.items())
            self._run(f"CREATE SCHEMA IF NOT EXISTS {quoted(self._schema)}")
            self._run(f"CREATE TABLE {self.sql} ({columns})")
            self.columns = dict(wanted)
            return
        for name, type_ in wanted.items():
            if name not in self.columns:
                self._run(f"ALTER TABLE {self.sql} ADD COLUMN {quoted(name)} {type_.sql}")
                self.columns[name] = type_
            else:
                self.widen(name, wider(self.columns[name], type_), is_key=name in keys)

    def widen(self, name: str, type_: ColumnType, *, is_key: bool = False) -> None:
        """Change a column's type; its values stay what they are, or become text."""
        old = self.columns[name]
        if old == type_:
            return
        column = quoted(name)
        if type_.name == "DECIMAL":
            type_ = self._decimal_for(column, old, type_)
        elif type_ == DOUBLE and self._has_inexact_integers(column):
            type_ = decimal_type(MAX_DIGITS, 0)
            if old == type_:
                return
        if type_ == JSON:
            value = f"to_json({column})"
        elif old == BLOB:
            value = f"to_base64({column})"
        elif old == DOUBLE and type_.name == "DECIMAL":
            # Its shortest text is the number that was meant; its binary value has many more digits.
            value = f"CAST(CAST({column} AS VARCHAR) AS {type_.sql})"
        else:
            value = f"CAST({column} AS {type_.sql})"
        self._run(f"ALTER TABLE {self.sql} ALTER {column} SET DATA TYPE {type_.sql} USING {value}")
        self.columns[name] = type_
        if is_key and type_ in (VARCHAR, JSON):
            self.remember(name, old.name)
        log("INFO", f"table {self.name!r}: column {name!r} was {old.sql} and is {type_.sql} now")

    def remember(self, name: str, old: str) -> None:
        """Keep in the database which type a key column had."""
        mark_widened(self._connection, self._schema, self.name, name, old)
        self.was[name] = old

    def _key(self, alias: str, name: str) -> str:
        column = f"{alias}.{quoted(name)}"
        return comparable(column, self.columns[name], self.was.get(name))

    def _matches(self, other: str, keys: Sequence[str]) -> str:
        """Return the condition that the row `t` of this table has the key of a row of another relation."""
        return " AND ".join(f"{self._key('t', key)} IS NOT DISTINCT FROM {self._key(other, key)}" for key in keys)

    def _decimal_for(self, column: str, old: ColumnType, wanted: ColumnType) -> ColumnType:
        """Return a DECIMAL for the wanted digits and those that the column has; VARCHAR if there is none."""
        text = f"ltrim(CAST({column} AS VARCHAR), '-')"
        sql = (
            f"SELECT coalesce(max(length(regexp_extract({text}, '^([1-9][0-9]*)', 1))), 0), "
            f"coalesce(max(length(regexp_extract({text}, '[.]([0-9]*[1-9])0*$', 1))), 0), "
            f"count(*) FILTER (NOT regexp_full_match({text}, '[0-9]+([.][0-9]+)?')) FROM {self.sql}"
        )
        ((whole, scale, others),) = self._run(sql)
        scale = max(scale, wanted.scale, old.scale)
        return VARCHAR if others else roomy(decimal_type(max(whole, wanted.precision - wanted.scale), scale))

    def _has_inexact_integers(self, column: str) -> bool:
        """Return whether a column of integers has values that no DOUBLE holds exactly."""
        text = f"CAST(CAST({column} AS DOUBLE) AS VARCHAR)"
        exact = f"TRY_CAST({text} AS DECIMAL({MAX_DIGITS},0))"
        sql = f"SELECT 1 FROM {self.sql} WHERE {exact} IS DISTINCT FROM {column} LIMIT 1"
        return bool(self._run(sql))

    def is_empty(self) -> bool:
        """Return whether it has no rows."""
        return not self._run(f"SELECT 1 FROM {self.sql} LIMIT 1")

    def has_version(self, version: int) -> bool:
        """Return whether it has rows of this version."""
        if VERSION_COLUMN not in self.columns:
            return False
        sql = f"SELECT 1 FROM {self.sql} WHERE {VERSION_COLUMN} = ? LIMIT 1"
        return bool(self._run(sql, [version]))

    def delete_stale(self, versions: Collection[int], *, unversioned: bool) -> None:
        """Delete rows of all versions but these, and those without one if `unversioned` says so."""
        if VERSION_COLUMN in self.columns:
            kept = ", ".join(map(str, map(int, versions)))
            stale = f"{VERSION_COLUMN} NOT IN ({kept})" + (f" OR {VERSION_COLUMN} IS NULL" if unversioned else "")
            self._run(f"DELETE FROM {self.sql} WHERE {stale}")
        elif unversioned:
            self._run(f"DELETE FROM {self.sql}")

    def delete_all(self) -> None:
        """Delete all rows."""
        self._run(f"DELETE FROM {self.sql}")

    def delete_matching(self, other: Table, keys: Sequence[str]) -> None:
        """Delete the rows whose key another table has."""
        self._run(f"DELETE FROM {self.sql} AS t USING {other.sql} AS o WHERE {self._matches('o', keys)}")

    def drop(self) -> None:
        """Drop it."""
        self._run(f"DROP TABLE IF EXISTS {self.sql}")
        self.columns = {}

    def append(self, source: str, columns: Sequence[str]) -> None:
        """Insert rows of another relation, given as SQL, that has these columns."""
        names = ", ".join(map(quoted, columns))
        values = ", ".join(f"CAST({quoted(name)} AS {self.columns[name].sql})" for name in columns)
        self._run(f"INSERT INTO {self.sql} ({names}) SELECT {values} FROM {source}")

    def append_batch(self, batch: pa.Table) -> None:
        """Insert the rows of a batch whose columns have the table's names."""
        with self._registered(batch) as relation:
            self.append(relation, batch.column_names)

    def upsert_batch(self, batch: pa.Table, keys: Sequence[str], masks: dict[str, str], *, keep_old: bool) -> None:
        """Replace the rows that have the batch's keys, and adds the others.

        Rows are deleted and inserted again: this takes one pass over the keys and no index, which DuckDB would have to
        keep in memory whole. NULL is a value like others in a key.

        Args:
            batch: rows in order, of which the last one of a key counts (the first one, for `keep_old`); its columns
                have the table's names, but for a mask's.
            masks: for a column that some rows do not have, the boolean column that says which ones do. What a row does
                not have, and columns of the table that the batch does not have, keep their old values.
            keep_old: rows whose key is there already are left alone.
        """
        row = unlike("streamline_row", batch.column_names)
        with self._registered(batch.append_column(row, _numbers(batch.num_rows))) as relation:
            self._upsert(batch, relation, keys, masks, quoted(row), keep_old=keep_old)

    @contextmanager
    def _registered(self, batch: pa.Table) -> Iterator[str]:
        """Make a batch a relation, under a name that is not the table's."""
        import duckdb

        relation = unlike("streamline_batch", [self.name])
        self._connection.register(relation, batch)
        try:
            yield relation
        finally:
            # An error that ended the transaction is raised already.
            with suppress(duckdb.Error):
                self._connection.unregister(relation)

    def _upsert(
        self,
        batch: pa.Table,
        relation: str,
        keys: Sequence[str],
        masks: dict[str, str],
        row: str,
        *,
        keep_old: bool,
    ) -> None:
        masked = set(masks.values())
        present = [name for name in batch.column_names if name not in masked]
        order = "ASC" if keep_old else "DESC"
        partition = ", ".join(self._key(relation, key) for key in keys)
        last = (
            f"(SELECT * FROM {relation} QUALIFY row_number() OVER "
            f"(PARTITION BY {partition} ORDER BY {row} {order}) = 1 ORDER BY {row})"
        )
        matches = self._matches("b", keys)
        if keep_old:
            # A subquery would take `b` for a column of the table, if there is one of nested values.
            self.append(f"{last} AS b ANTI JOIN {self.sql} AS t ON {matches}", present)
            return
        if self.is_empty():
            self.append(last, present)
            return
        kept = [name for name in self.columns if name not in present]
        if not kept and not masks:
            self._run(f"DELETE FROM {self.sql} AS t USING {relation} AS b WHERE {matches}")
            self.append(last, present)
            return
        values = [
            f"CASE WHEN b.{quoted(masks[name])} THEN b.{quoted(name)} ELSE t.{quoted(name)} END AS {quoted(name)}"
            if name in masks
            else f"b.{quoted(name)}"
            for name in present
        ]
        values += [f"t.{quoted(name)}" for name in kept]
        sql = f"SELECT {', '.join(values)} FROM {last} AS b LEFT JOIN {self.sql} AS t ON {matches}"
        merged = unlike("streamline_merged", [self.name])
        self._run(f"CREATE OR REPLACE TEMP TABLE {merged} AS {sql}")
        self._run(f"DELETE FROM {self.sql} AS t USING {relation} AS b WHERE {matches}")
        self.append(merged, [*present, *kept])
        self._run(f"DROP TABLE temp.{merged}")


def unlike(name: str, taken: Iterable[str]) -> str:
    """Return a name that is not taken: `name`, or that with underscores added."""
    lower = {column.lower() for column in taken}
    while name.lower() in lower:
        name += "_"
    return name


def _numbers(count: int) -> pa.Array:
    import pyarrow as pa

    return pa.array(range(count), pa.int64())


def versioned(columns: dict[str, ColumnType]) -> dict[str, ColumnType]:
    """Return the columns and the version column."""
    return {**columns, VERSION_COLUMN: BIGINT}
