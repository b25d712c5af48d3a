"""The tables of a sink in their database: made and changed as messages need it, and filled by upsert."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamline.connectors.tables.rows import Row, last_of_each_key
from streamline.connectors.tables.settings import TableSettings
from streamline.connectors.tables.values import Column, MisfitError, column_of, family_of, sql_type, widened
from streamline.databases.base import DatabaseError
from streamline.databases.database import Database
from streamline.databases.faults import fault_of
from streamline.databases.registry import database

_ROWS = "streamline_rows"


class TableDestination:
    """An open connection, and what is known of the tables.

    Raises:
        DatabaseError: the database does not answer, or does not let it in.
    """

    def __init__(self, settings: TableSettings, root: Path, block: str) -> None:
        self._settings = settings
        self.database: Database = database(
            settings.system, settings.profile, origin=f"block {block}", root=root, schema=settings.schema
        )
        self._tables: dict[str, dict[str, Column]] = {}
        """Columns by name, of each table."""
        self._staged: set[str] = set()

    def forget(self) -> None:
        """Look at the tables again."""
        self._tables.clear()

    def close(self) -> None:
        """End the connection."""
        self.database.close()

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Write rows in one transaction: of each key the last.

        Raises:
            ValueError: one of them does not fit; it is not said which.
            DatabaseError: the database refuses one of them, or cannot be used.
        """
        rows = last_of_each_key(rows)
        written = [row for row in rows if row.fields is not None]
        deleted = [row for row in rows if row.fields is None]
        columns = self._fit(table, written)
        if columns is None:
            return  # nothing but tombstones, and there is no table
        with self.database.transaction():
            if written:
                self._upsert(table, columns, [row.fields or {} for row in written])
            if deleted:
                self._delete(table, columns, deleted)

    # -- tables

    def columns(self, table: str) -> dict[str, Column]:
        """Return a table's columns by name; empty if there is no such table."""
        found = self._tables.get(table)
        if found is None:
            found = self._read_columns(table)
            if found:
                self._tables[table] = found
        return found

    def _read_columns(self, table: str) -> dict[str, Column]:
        db = self.database
        if db.provider == "postgres":
            select = (
                "select attname as name, format_type(atttypid, null) as kind, "
                "atthasdef or attidentity <> '' as preset, attgenerated <> '' or attidentity = 'a' as made "
                f"from pg_attribute where attrelid = to_regclass({_literal(db.qualified(table))}) "
                "and attnum > 0 and not attisdropped order by attnum"
            )
        else:
            schema = _literal(db.default_schema) if db.default_schema else "current_schema()"
            select = (
                "select column_name as name, data_type as kind, column_default is not null as preset, false as made "
                "from information_schema.columns where table_catalog = current_database() "
                f"and lower(table_schema) = lower({schema}) and lower(table_name) = lower({_literal(table)}) "
                "order by ordinal_position"
            )
        found = db.rows(select).to_pylist()
        columns = [Column(each["name"], each["kind"], bool(each["preset"]), bool(each["made"])) for each in found]
        return {column.name: column for column in columns}

    def _fit(self, table: str, rows: Sequence[Row]) -> dict[str, Column] | None:
        """Make the table, or add and widen columns, so that the rows fit; return its columns."""
        values: dict[str, list[Any]] = {}
        for row in rows:
            for name, value in (row.fields or {}).items():
                values.setdefault(name, []).append(value)
        columns = self.columns(table)
        db, named = self.database, self._settings.columns
        new: dict[str, str] = {}
        wider: dict[str, str] = {}
        for name, some in values.items():
            column = self._named(columns, name)
            if column is None:
                family = family_of(some)
                kind = named.get(name) or (sql_type(family, self._settings.system) if family is not None else None)
                if kind is not None:
                    new[name] = self._checked(name, kind, new)
            elif self._settings.evolve and column.name not in self._settings.key_columns:
                kind = widened(column, some, self._settings.system)
                if kind is not None:
                    wider[column.name] = kind
        if not columns:
            if not rows:
                return None
            new |= {name: kind for name, kind in named.items() if kind is not None}
            self._create(table, new)
        elif new and not self._settings.evolve:
            raise MisfitError(f"table {table} has no column {next(iter(new))}, and `schema_change` is freeze")
        elif new:
            with db.transaction():
                for name, kind in new.items():
                    db.execute(f"alter table {db.qualified(table)} add column if not exists {db.quote(name)} {kind}")
        if wider:
            try:
                with db.transaction():
                    db.change_types(table, None, wider)
            except DatabaseError as error:
                if fault_of(error) == "outage":
                    raise
                raise MisfitError(
                    f"column {', '.join(wider)} of table {table} cannot be widened: {error.message}"
                ) from error
        if new or wider:
            self._tables.pop(table, None)
        return self.columns(table)

    def _create(self, table: str, new: Mapping[str, str]) -> None:
        db, key = self.database, self._settings.key_columns
        if not new:
            raise MisfitError(f"table {table} is not there, and there is nothing that its columns could be made of")
        listed = [f"{db.quote(name)} {kind}" for name, kind in new.items()]
        if key:
            listed.append(f"primary key ({', '.join(map(db.quote, key))})")
        try:
            with db.transaction():
                db.ensure_schema(db.default_schema)
                db.execute(f"create table if not exists {db.qualified(table)} ({', '.join(listed)})")
        except DatabaseError:
            # Of two processes that make it at the same time, one may fail.
            if not self.columns(table):
                raise

    def _checked(self, name: str, kind: str, others: Mapping[str, str]) -> str:
        if not name or "\0" in name or len(name.encode()) > self.database.longest_name:
            raise MisfitError(f"a column cannot have the name {name!r:.100}")
        if not self.database.exact_names and any(name.casefold() == other.casefold() for other in others):
            raise MisfitError(f"two fields differ only in case: {name}")
        return kind

    def _named(self, columns: Mapping[str, Column], name: str) -> Column | None:
        column = columns.get(name)
        if column is None and not self.database.exact_names:
            folded = name.casefold()
            column = next((each for each in columns.values() if each.name.casefold() == folded), None)
        return column

    # -- rows

    def _upsert(self, table: str, columns: Mapping[str, Column], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, or replace those of the same keys. A row is replaced whole: a field that it lacks is null."""
        fields = {column.name: name for name in _names(rows) if (column := self._named(columns, name)) is not None}
        listed = self._settings.columns
        written = [
            column
            for column in columns.values()
            if not column.generated
            and (column.name in fields or not (column.default or (listed and column.name not in listed)))
        ]
        key = [self._key_column(table, columns, name) for name in self._settings.key_columns]
        arrays = [
            column_of([row.get(fields.get(column.name, column.name)) for row in rows], column, self._settings.system)
            for column in written
        ]
        source = self._stage(table, written, arrays)
        db = self.database
        names = [column.name for column in written]
        insert = (
            f"insert into {db.qualified(table)} ({', '.join(map(db.quote, names))}) "
            f"select {', '.join(map(self._expression, written))} from {source}"
        )
        if key:
            changed = [name for name in names if name not in {column.name for column in key}]
            insert += " " + db.on_conflict(db.qualified(table), [column.name for column in key], changed)
        db.execute(insert)

    def _delete(self, table: str, columns: Mapping[str, Column], rows: Sequence[Row]) -> None:
        key = [self._key_column(table, columns, name) for name in self._settings.key_columns]
        arrays = [
            column_of([row.key[index] for row in rows], column, self._settings.system)
            for index, column in enumerate(key)
        ]
        source = self._stage(table, key, arrays)
        db = self.database
        target = db.qualified(table)
        same = " and ".join(f"{target}.{db.quote(each.name)} = s.{db.quote(each.name)}" for each in key)
        listed = ", ".join(f"{self._expression(each)} as {db.quote(each.name)}" for each in key)
        db.execute(f"delete from {target} using (select {listed} from {source}) s where {same}")

    def _key_column(self, table: str, columns: Mapping[str, Column], name: str) -> Column:
        column = self._named(columns, name)
        if column is None:
            raise MisfitError(f"table {table} has no column {name}, which is part of the key")
        return column

    def _stage(self, table: str, columns: Sequence[Column], arrays: list[pa.Array]) -> str:
        """Hand rows to the database; return what a SELECT reads them from."""
        db = self.database
        data = pa.table(arrays, names=[column.name for column in columns])
        if db.provider == "duckdb":
            db.register(_ROWS, data)  # type: ignore[attr-defined]
            return _ROWS
        # Made once for each set of columns: a table for every transaction would fill the catalog.
        shape = repr((table, [(column.name, column.kind) for column in columns]))
        name = f"{_ROWS}_{hashlib.sha256(shape.encode()).hexdigest()[:16]}"
        listed = ", ".join(db.quote(column.name) for column in columns)
        db.execute(
            f"create temporary table if not exists {name} on commit delete rows as "
            f"select {listed} from {db.qualified(table)} with no data"
        )
        db.insert(data, name, db.temporary_schema)
        return f"{db.temporary_name(name)}"

    def _expression(self, column: Column) -> str:
        name = self.database.quote(column.name)
        return f"cast({name} as {column.kind})" if self._settings.system == "duckdb" else name


def _names(rows: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    return {name: None for row in rows for name in row}


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
