"""A database connection: SQL in, Arrow out. A table is written completely, or not at all.

A new table is filled beside the old one, which it then replaces. Each system has its own file in `databases/`;
`registry.py` opens them.
"""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from streamline.databases.base import WRITE_POLICIES, DatabaseError, IfExists, Parameters, TableExists
from streamline.errors import ConfigError, StreamlineError
from streamline.project.suggest import suggestion, suggestion_and

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")


class Database(ABC):
    """An open connection.

    Outside `begin` … `commit` every statement is a transaction of its own. `write` and `write_query` are one
    transaction, or part of the one that is open. All methods raise DatabaseError.

    Args:
        origin: where its settings come from, such as `io_config.yaml, profile 'default'`; for errors.
    """

    provider: ClassVar[str]
    """The name in `registry.PROVIDERS`."""
    title: str
    """The name for people."""
    transactional_ddl: bool = True
    """Whether `create table` and `drop table` are undone by a rollback."""
    default_schema: str | None = None
    """Where tables without a schema are made; None: wherever the database's own default is."""
    temporary_schema: ClassVar[str | None] = None
    """Where temporary tables live, if they can be named apart from others."""
    good_temporary: bool = True
    """Whether a temporary table is as good as any: MySQL cannot join one with itself."""
    longest_name: int = 63
    """What an identifier may have at most, in bytes."""
    exact_names: ClassVar[bool] = False
    """Whether quoted column names that differ only in case are different columns."""
    retypes_rows: ClassVar[bool] = True
    """Whether `change_types` can change a table with rows."""
    connection: Any
    """The driver's connection."""
    _transaction: bool = False
    _temporary_word: ClassVar[str] = ""
    """What `drop table` needs before `table` for a temporary one."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    # --- implemented by each database

    @abstractmethod
    def query(self, sql: str, parameters: Parameters = None) -> pa.Table | None:
        """Run a statement; return its rows, or None if it is of a kind that has none."""

    @abstractmethod
    def execute(self, sql: str, parameters: Parameters = None) -> int:
        """Run a statement without reading its rows; return how many rows it changed, -1 if that is not known."""

    @abstractmethod
    def exists(self, name: str, schema: str | None = None) -> bool:
        """Return whether there is such a table or view."""

    @abstractmethod
    def columns(self, name: str, schema: str | None = None) -> list[str]:
        """Return a table's columns, in its order; empty if there is no such table."""

    @abstractmethod
    def insert(self, data: pa.Table | pa.RecordBatchReader, name: str, schema: str | None = None) -> int:
        """Append rows to an existing table, by the columns' names; return how many."""

    @abstractmethod
    def _translated(self, error: Exception, sql: str = "") -> Exception:
        """Translate the driver's error into a DatabaseError; return any other error as it is."""

    # --- transactions

    def begin(self) -> None:
        """Start a transaction."""
        with self._errors():
            self._begin()
        self._transaction = True

    def commit(self) -> None:
        """Commit the transaction; nothing happens if there is none."""
        if self.in_transaction:
            with self._errors():
                self._end("commit")
            self._transaction = False

    def rollback(self) -> None:
        """Roll the transaction back; nothing happens if there is none. Raises nothing."""
        with contextlib.suppress(Exception):
            if self.in_transaction:
                self._transaction = False
                self._end("rollback")

    @property
    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        return self._transaction

    def close(self) -> None:
        """End the connection; what was not committed is undone. Raises nothing, and may be called again."""
        self.rollback()
        with contextlib.suppress(Exception):
            self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the body, or nothing of it. Inside another transaction it is part of that one."""
        if self.in_transaction:
            yield
            return
        self.begin()
        try:
            yield
            self.commit()
        except BaseException:
            self.rollback()
            raise

    def _begin(self) -> None:
        self.connection.begin()

    def _end(self, how: str) -> None:
        """Commit or roll back the driver's transaction."""
        getattr(self.connection, how)()

    def _rename(self, old: str, new: str, schema: str | None) -> None:
        """Rename a table."""
        self.execute(f"alter table {self.qualified(old, schema)} rename to {self.quote(new)}")

    def ensure_schema(self, schema: str | None) -> None:
        """Create the schema if it does not exist; databases without schemas do nothing. Call it in a transaction."""
        return

    def _alone(self, name: str, schema: str | None) -> contextlib.AbstractContextManager[None]:
        """Lock the table's name against other writers of this project, where several can write at once."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def _errors(self, sql: str = "") -> Iterator[None]:
        """Translate the driver's errors into DatabaseError."""
        try:
            yield
        except StreamlineError:
            raise
        except Exception as error:
            translated = self._translated(error, sql)
            if translated is error:
                raise
            raise translated from error

    # --- tables

    def write(
        self,
        data: pa.Table | pa.RecordBatchReader,
        name: str,
        schema: str | None = None,
        if_exists: IfExists = "append",
        *,
        temporary: bool = False,
    ) -> int:
        """Write rows into a table, made where there is none: all of them, or nothing changes.

        Args:
            if_exists: what to do if the table is there: add to it, put the new one in its place, or raise TableExists.
            temporary: only this connection sees the table, as long as it is open; `schema` does not count then.

        Returns:
            how many rows.
        """
        if not data.schema.names:
            raise DatabaseError(
                "there are no columns to write",
                hint="give the DataFrame columns; it may have no rows",
                code="database.no_columns",
            )
        if temporary:
            return self._write_temporary(data, name)
        self._check_policy(if_exists)

        def fill(table: str) -> int:
            self.create_table(table, schema, data.schema)
            return self.insert(data, table, schema)

        with self.transaction():
            exists = self._exists_for(if_exists, name, schema)
            if not exists or if_exists == "replace":
                with self._alone(name, schema):
                    # Another writer may have made it while we waited, such as a child of the same dynamic block.
                    exists = self._exists_for(if_exists, name, schema)
                    if not exists or if_exists == "replace":
                        return self._put(name, schema, fill, exists=exists)
            self.matched(data.schema.names, name, schema)
            return self.insert(data, name, schema)

    def write_query(
        self, select: str, name: str, schema: str | None = None, if_exists: IfExists = "append"
    ) -> pa.Table:
        """Write what a SELECT gives into a table, inside the database, and return those rows.

        The SELECT runs once, and may read the table that is replaced.
        """
        self._check_policy(if_exists)

        def fill(table: str) -> None:
            self.create_as(select, table, schema)

        with self.transaction():
            if self._exists_for(if_exists, name, schema) and if_exists == "append":
                return self._append_query(select, name, schema)
            with self._alone(name, schema):
                exists = self._exists_for(if_exists, name, schema)
                if exists and if_exists == "append":
                    return self._append_query(select, name, schema)
                self._put(name, schema, fill, exists=exists)
            return self.rows(f"select * from {self.qualified(name, schema)}")

    def create_table(self, name: str, schema: str | None, columns: pa.Schema, *, temporary: bool = False) -> None:
        """Create an empty table whose columns can hold these types. A temporary one ends with the connection."""
        listed = ", ".join(f"{self.quote(field.name)} {self._declaration(field)}" for field in columns)
        self.execute(f"create {self._new_table(name, schema, temporary=temporary)} ({listed}){self._table_options()}")

    def _declaration(self, field: pa.Field) -> str:
        """Return the type that a column is declared with."""
        raise NotImplementedError

    def _table_options(self) -> str:
        """Return what follows the columns of CREATE TABLE."""
        return ""

    def change_types(self, name: str, schema: str | None, types: Mapping[str, str]) -> None:
        """Change the SQL types of columns."""
        for column, kind in types.items():
            self.execute(f"alter table {self.qualified(name, schema)} {self._retyped(self.quote(column), kind)}")

    def _retyped(self, column: str, kind: str) -> str:
        """Return the clause of ALTER TABLE that changes a column's type."""
        return f"alter column {column} type {kind}"

    def create_unique_index(self, index: str, name: str, schema: str | None, columns: Sequence[str]) -> None:
        """Create a unique index on a table."""
        listed = ", ".join(map(self.quote, columns))
        self.execute(f"create unique index {self.quote(index)} on {self.qualified(name, schema)} ({listed})")

    def on_conflict(self, table: str, key: Sequence[str], changed: Sequence[str]) -> str:
        """Return the clause of INSERT for rows whose key exists: these columns change; none: the row is left out."""
        changes = ", ".join(f"{name} = excluded.{name}" for name in map(self.quote, changed))
        action = f"do update set {changes}" if changes else "do nothing"
        return f"on conflict ({', '.join(map(self.quote, key))}) {action}"

    def finds_conflicts(self, name: str, schema: str | None, key: Sequence[str]) -> bool:
        """Return False if the table has no unique index on the key and the database would not report that."""
        return True

    def create_as(self, select: str, name: str, schema: str | None = None, *, temporary: bool = False) -> None:
        """Create a table from a SELECT. A line that an error names is a line of the SELECT."""
        self.behind(f"create {self._new_table(name, schema, temporary=temporary)} as", select)

    def _new_table(self, name: str, schema: str | None, *, temporary: bool) -> str:
        """Return `table NAME`, or `temporary table NAME`, for a CREATE statement."""
        return f"temporary table {self.temporary_name(name)}" if temporary else f"table {self.qualified(name, schema)}"

    def behind(self, first_line: str, select: str) -> None:
        """Run a statement whose second part, from a new line on, is the user's."""
        try:
            self.execute(f"{first_line}\n{select}")
        except DatabaseError as error:
            if error.line is not None:
                error.line = max(1, error.line - 1)
            raise

    def rows(self, select: str) -> pa.Table:
        """Return the rows of a SELECT."""
        table = self.query(select)
        if table is None:
            raise DatabaseError(
                "the statement returned no rows",
                where=self.origin,
                hint="use a SELECT, or another statement that returns rows",
                code="database.no_rows",
            )
        return table

    def drop(self, name: str, schema: str | None = None) -> None:
        """Drop a table, if there is one."""
        self.execute(f"drop table if exists {self.qualified(name, schema)}")

    def drop_temporary(self, name: str) -> None:
        """Drop a temporary table, if there is one."""
        self.execute(f"drop {self._temporary_word}table if exists {self.temporary_name(name)}")

    def quote(self, identifier: str) -> str:
        """Return an identifier in the database's quotes."""
        return '"' + identifier.replace('"', '""') + '"'

    def qualified(self, name: str, schema: str | None = None) -> str:
        """Return a table's quoted name, with its schema."""
        schema = schema or self.default_schema
        return f"{self.quote(schema)}.{self.quote(name)}" if schema else self.quote(name)

    def temporary_name(self, name: str) -> str:
        """Return the quoted name of a temporary table."""
        return f"{self.quote(self.temporary_schema)}.{self.quote(name)}" if self.temporary_schema else self.quote(name)

    def matched(self, names: Sequence[str], table: str, schema: str | None) -> list[str]:
        """Return the table's own spelling of the columns `names`.

        Raises:
            DatabaseError: the table does not have one of them.
        """
        columns = self.columns(table, schema)
        by_key = {self._column_key(column): column for column in columns}
        for name in names:
            if self._column_key(name) not in by_key:
                raise DatabaseError(
                    f"the table {self.shown(table, schema)} has no column '{name}'",
                    hint=suggestion_and(
                        suggestion(name, columns, what="its columns"),
                        "to give it other columns, replace it (export_write_policy: replace)",
                    ),
                    code="database.column_missing",
                )
        return [by_key[self._column_key(name)] for name in names]

    def shown(self, name: str, schema: str | None = None) -> str:
        """Return a table's name for messages."""
        schema = schema or self.default_schema
        return f"{schema}.{name}" if schema else name

    def spare_name(self, name: str, suffix: str = "_new") -> str:
        """Return a free name like `name`, within the length that the database allows."""
        spare = f"{name}_{suffix.strip('_')}"
        if len(spare.encode()) <= self.longest_name:
            return spare
        mark = hashlib.sha256(name.encode()).hexdigest()[:8]
        room = self.longest_name - len(suffix) - len(mark) - 2
        return f"{name.encode()[:room].decode(errors='ignore')}_{mark}{suffix}"

    def _column_key(self, name: str) -> str:
        return name if self.exact_names else name.casefold()

    def _unreachable(self, address: str, reason: str, hint: str) -> DatabaseError:
        """Return the error of a connection that failed."""
        return DatabaseError(
            f"cannot connect to {address}: {reason}", where=self.origin, hint=hint, code="database.unreachable"
        )

    def _check_policy(self, if_exists: str) -> None:
        if if_exists not in WRITE_POLICIES:
            raise ConfigError(
                f"unknown write policy '{if_exists}'",
                hint=suggestion(if_exists, WRITE_POLICIES, what="write policies"),
                code="export.unknown_write_policy",
            )

    def _exists_for(self, if_exists: IfExists, name: str, schema: str | None) -> bool:
        exists = self.exists(name, schema)
        if exists and if_exists == "fail":
            raise TableExists(
                f"the table {self.shown(name, schema)} exists, and the write policy is 'fail'",
                hint="remove it, or use append or replace",
            )
        return exists

    def _write_temporary(self, data: pa.Table | pa.RecordBatchReader, name: str) -> int:
        self.drop_temporary(name)
        self.create_table(name, None, data.schema, temporary=True)
        return self.insert(data, name, self.temporary_schema)

    def _put(self, name: str, schema: str | None, fill: Callable[[str], T], *, exists: bool) -> T:
        """Create the table, or replace the existing one."""
        if not exists:
            self.ensure_schema(schema)
            if self.transactional_ddl:
                return fill(name)  # nobody sees it before the end
        return self._replace(name, schema, fill)

    def _replace(self, name: str, schema: str | None, fill: Callable[[str], T]) -> T:
        """Fill a new table beside the old one, then swap: the old one is locked only for the rename."""
        new = self.spare_name(name)
        self.drop(new, schema)
        result = self._undone(lambda: fill(new), new, schema)
        self._undone(lambda: self._swap(new, name, schema), new, schema)
        return result

    def _swap(self, new: str, name: str, schema: str | None) -> None:
        self.drop(name, schema)
        self._rename(new, name, schema)

    def _undone(self, step: Callable[[], T], table: str, schema: str | None) -> T:
        """Run the step; if it fails and a rollback does not undo DDL, drop the table that it created."""
        try:
            return step()
        except BaseException:
            if not self.transactional_ddl:
                with contextlib.suppress(Exception):
                    self.drop(table, schema)
            raise

    def _append_query(self, select: str, name: str, schema: str | None) -> pa.Table:
        """Append through a temporary table: the SELECT runs once, and may read the table that it adds to."""
        result = self.spare_name(name, "_rows")
        temporary = self.temporary_name(result)
        self.drop_temporary(result)
        self.create_as(select, result, temporary=True)
        try:
            rows = self.rows(f"select * from {temporary}")
            listed = ", ".join(map(self.quote, self.matched(rows.column_names, name, schema)))
            self.execute(f"insert into {self.qualified(name, schema)} ({listed}) select * from {temporary}")
        finally:
            with contextlib.suppress(Exception):
                self.drop_temporary(result)
        return rows
