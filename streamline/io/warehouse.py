"""What the cloud warehouses have in common. None of them can be run here: their classes are untested against them."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa

from streamline.databases.base import DatabaseError
from streamline.errors import ConfigError
from streamline.io.base import QueryIO
from streamline.io.config import conceal
from streamline.io.frames import as_arrow, from_arrow
from streamline.io.sql import clean_query, limited
from streamline.io.table_export import one_row_per_key
from streamline.project.extras import need


class Warehouse(QueryIO):
    """A connection to a warehouse by its own client library, opened by `with`, by `open()`, or by the first use.

    Args:
        verbose: accepted and not used.
        settings: what the client takes.
    """

    title: ClassVar[str]
    client_module: ClassVar[tuple[str, str, str]]
    """The module that has the client's errors, the extra that brings it, and its package."""
    client_error: ClassVar[str]
    """The name of the base class of the client's errors."""

    def __init__(self, verbose: bool = True, **settings: Any) -> None:
        super().__init__(verbose)
        conceal(settings)
        self.settings = settings
        self._connection: Any = None

    @abstractmethod
    def _connect(self) -> Any:
        """Open the client's connection."""

    @abstractmethod
    def _fetch(self, query: str, options: Mapping[str, Any]) -> pd.DataFrame:
        """Return the rows of one statement."""

    def _fetch_table(self, query: str, options: Mapping[str, Any]) -> pa.Table:
        """Return the rows of one statement as an Arrow table, integers exact where the client can."""
        return as_arrow(self._fetch(query, options))

    @abstractmethod
    def _run(self, query: str, options: Mapping[str, Any]) -> Any:
        """Run one statement."""

    @abstractmethod
    def table_exists(self, schema_name: str | None, table_name: str) -> bool:
        """Return whether the table or view exists."""

    @property
    def _client_errors(self) -> Any:
        """Return the module with the client's errors."""
        module, extra, package = self.client_module
        return need(module, extra, self.title, package=package)

    def default_database(self) -> str | None:
        """Return the connection's database."""
        return self.settings.get("database")

    def default_schema(self) -> str | None:
        """Return the schema of tables without one; None: the database's own default."""
        return self.settings.get("schema")

    @property
    def conn(self) -> Any:
        """Return the client's own connection, opened if it is not."""
        self.open()
        return self._connection

    def open(self) -> None:
        """Connect. Nothing happens if the connection is open.

        Raises:
            ConfigError: the client is not installed.
            DatabaseError: the warehouse cannot be reached, or does not let us in.
        """
        if self._connection is None:
            try:
                self._connection = self._connect()
            except ConfigError:
                raise
            except getattr(self._client_errors, self.client_error) as error:
                raise DatabaseError(f"cannot connect to {self.title}: {error}", code="database.unreachable") from error

    def close(self) -> None:
        """Disconnect; what was not committed is undone."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def commit(self) -> None:
        """Commit the transaction."""
        self.conn.commit()

    def rollback(self) -> None:
        """Roll back to the last commit."""
        self.conn.rollback()

    def load(
        self,
        query_string: str,
        limit: int | None = None,
        display_query: str | None = None,
        verbose: bool = True,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Load the rows of a query.

        Args:
            query_string: one statement.
            limit: no more rows than these.
            display_query: accepted and not used.
            verbose: accepted and not used.
            kwargs: further arguments of the client's query.

        Raises:
            DatabaseError: the warehouse refuses.
        """
        query = clean_query(query_string)
        with self._errors():
            frame = self._fetch(limited(query, limit) or query, kwargs)
        return frame if limit is None else frame.head(limit)

    def table(self, query_string: str, **kwargs: Any) -> pa.Table:
        """Load the rows of a query, as `load` does, as an Arrow table."""
        with self._errors():
            return self._fetch_table(clean_query(query_string), kwargs)

    def execute(self, query_string: str, **query_vars: Any) -> Any:
        """Run one statement; what it returns is the client's affair.

        Args:
            query_string: the statement.
            query_vars: values for its parameters, as the client takes them.
        """
        with self._errors():
            return self._run(clean_query(query_string), query_vars)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate the client's errors into DatabaseError."""
        self.open()
        try:
            yield
        except getattr(self._client_errors, self.client_error) as error:
            raise DatabaseError(f"{self.title}: {' '.join(str(error).split())}") from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StatementWarehouse(Warehouse):
    """A warehouse where a statement is a transaction of its own."""

    def execute_queries(  # type: ignore[override]  # Mage has this order for these warehouses
        self,
        queries: Sequence[str],
        query_variables: Sequence[Mapping[str, Any]] | None = None,
        fetch_query_at_indexes: Sequence[bool] | None = None,
        commit: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Run several statements. Arguments and results are those of `QueryIO.execute_queries`, in Mage's order."""
        return super().execute_queries(queries, query_variables, commit, fetch_query_at_indexes)


def quoted(*names: str | None) -> str:
    """Return a name in double quotes, or the path of several; None and empty names are left out."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names if name)


def without_repeated_keys(frame: pd.DataFrame, key: Sequence[str], method: str) -> pd.DataFrame:
    """Keep one row per key, as a MERGE requires. `UPDATE` keeps the last, `IGNORE` the first.

    Raises:
        ConfigError: no such method, or no such column.
    """
    if method.upper() not in ("UPDATE", "IGNORE"):
        raise ConfigError(
            f"unknown unique_conflict_method {method!r}",
            hint="UPDATE or IGNORE",
            code="export.unknown_conflict_method",
        )
    for name in key:
        if name not in frame.columns:
            raise ConfigError(f"unique_constraints: there is no column '{name}'", code="export.unknown_column")
    table = as_arrow(frame)
    kept = one_row_per_key(table, list(key), keep_last=method.upper() == "UPDATE")
    return frame if kept is table else from_arrow(kept, coerce_float=False)


def merge_statement(table: str, staged: str, columns: Sequence[str], key: Sequence[str], method: str) -> str:
    """Return the statement that merges one table into another; a NULL in a key equals nothing.

    Args:
        table: the target; like all names here, quoted.
        staged: the table with the new rows.
        columns: all columns that are written.
        key: those that tell rows apart.
        method: `UPDATE` or `IGNORE`.
    """
    same = " AND ".join(f"a.{name} = b.{name}" for name in key)
    lines = [f"MERGE INTO {table} AS a", f"USING {staged} AS b", f"ON {same}"]
    changed = [name for name in columns if name not in key]
    if method.upper() == "UPDATE" and changed:
        lines.append(f"WHEN MATCHED THEN UPDATE SET {', '.join(f'{name} = b.{name}' for name in changed)}")
    values = ", ".join(f"b.{name}" for name in columns)
    lines.append(f"WHEN NOT MATCHED THEN INSERT ({', '.join(columns)}) VALUES ({values})")
    return "\n".join(lines)
