"""SQL databases as block files use them: `load` a query, `export` a DataFrame, `execute` statements."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import pandas as pd

from streamline.databases.database import Database
from streamline.databases.registry import database
from streamline.errors import ConfigError
from streamline.io.base import ExportWritePolicy, QueryIO, plainly, table_and_size
from streamline.io.config import BaseConfigLoader, conceal
from streamline.io.frames import as_arrow, from_arrow
from streamline.io.table_export import Export, export_table
from streamline.project.current import in_mage_project

__all__ = ["BaseSQL", "ExportWritePolicy"]

_COMMENTS_BEFORE = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.DOTALL)
_SELECT = re.compile(r"(?:select|with)\b", re.IGNORECASE)
_WITH = re.compile(r"with\b", re.IGNORECASE)
_CHANGES = re.compile(r"\b(?:insert|update|delete|merge)\b", re.IGNORECASE)
_ENDING = re.compile(r"\b(?:limit|offset|fetch|for|into|procedure|lock|option)\b", re.IGNORECASE)


class BaseSQL(QueryIO):
    """A connection to one database, opened by `with`, by `open()`, or by the first use.

    What `execute` does belongs to a transaction that `commit` ends, and that `export` ends too. A `with` that is left
    without an exception commits, one that is left by an exception rolls back; `close()` alone undoes what was not
    committed.

    Args:
        config: the settings, under the names that io_config.yaml has for them.
        origin: where they come from; for errors.
        root: where relative paths among them start; by default the working directory.
        verbose: accepted and not used.
    """

    provider: ClassVar[str]

    def __init__(
        self,
        *,
        config: Mapping[str, Any],
        origin: str,
        root: Path | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(verbose)
        if not isinstance(config, BaseConfigLoader):
            conceal(config)
        self.settings = config
        self._origin = origin
        self._root = root
        self._database: Database | None = None

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> Self:
        """Connect by a profile's keys.

        Args:
            config: a `ConfigFileLoader`, or any mapping with the keys of io_config.yaml.
            kwargs: `verbose`, accepted and not used.
        """
        made = cls.__new__(cls)
        origin = getattr(config, "origin", None) or type(config).__name__
        BaseSQL.__init__(made, config=config, origin=origin, root=getattr(config, "root", None), **kwargs)
        return made

    # The connection

    @property
    def database(self) -> Database:
        """Return the connection, opened if it is not: SQL in, Arrow out."""
        if self._database is None:
            self.open()
        assert self._database is not None
        return self._database

    @property
    def conn(self) -> Any:
        """Return the driver's own connection, for all that is not offered here."""
        return getattr(self.database, "connection", self.database)

    @plainly
    def open(self) -> None:
        """Connect. Nothing happens if the connection is open.

        Raises:
            ConfigError: a setting is missing, or the driver is not installed.
            DatabaseError: the database cannot be reached, or does not let us in.
        """
        if self._database is None:
            self._database = database(self.provider, self.settings, origin=self._origin, root=self._root)

    def close(self) -> None:
        """Disconnect; what was not committed is undone. Nothing happens if the connection is closed."""
        if self._database is not None:
            self._database.close()
            self._database = None

    @plainly
    def commit(self) -> None:
        """Commit the transaction."""
        self.database.commit()

    def rollback(self) -> None:
        """Roll back to the last commit."""
        self.database.rollback()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._database is not None:
                self._database.commit()
        finally:
            self.close()

    # Queries

    @plainly
    def load(
        self,
        query_string: str,
        limit: int | None = None,
        display_query: str | None = None,
        verbose: bool = True,
        *,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        coerce_float: bool = True,
        index_col: str | list[str] | None = None,
        parse_dates: list[str] | Mapping[str, Any] | None = None,
        dtype: Any = None,
    ) -> pd.DataFrame:
        """Load the rows of a query.

        Args:
            query_string: one statement; a trailing semicolon is dropped.
            limit: no more rows than these, the first in the query's order. Without it, all rows.
            display_query: accepted and not used.
            verbose: accepted and not used.
            params: values for the query's parameters, in the driver's own spelling, as for `execute`.
            coerce_float: decimals become floats; False leaves them `decimal.Decimal`.
            index_col: columns that become the index.
            parse_dates: columns that become datetimes: names, or names with a format or arguments of `to_datetime`.
            dtype: the frame's types, as `DataFrame.astype` takes them.

        Returns:
            an integer column with NULLs is float, as pandas reads SQL, or Int64 where a float would round; JSON is
            dicts and lists.

        Raises:
            DatabaseError: the database refuses the query, or it is of a kind that gives no rows.
        """
        query = clean_query(query_string)
        # Not every database that SQLAlchemy reaches has LIMIT.
        shortened = limited(query, limit) if self.provider != "sqlalchemy" else None
        table = self.database.query(shortened or query, params)
        if table is None:
            raise ConfigError(
                "the statement returned no rows to load",
                hint="use execute() for statements without rows",
                code="database.no_rows",
            )
        frame = from_arrow(table if limit is None else table.slice(0, limit), coerce_float=coerce_float)
        return _finished(frame, index_col, parse_dates, dtype)

    def sample(self, schema: str | None, table: str | int, size: int | str = 10_000_000, **kwargs: Any) -> pd.DataFrame:
        """Load some rows of a table, in no order.

        Args:
            schema: the table's schema; None: the connection's.
            table: its name.
            size: how many rows at most.
            kwargs: as for `load`.

        `table` and `size` may change places, as they did in Mage.
        """
        table, size = table_and_size(table, size)
        return self.load(f"SELECT * FROM {self.database.qualified(table, schema)}", limit=size, **kwargs)

    @plainly
    def execute(self, query_string: str, **query_vars: Any) -> int:
        """Run one statement, as part of the transaction that `commit` ends.

        Args:
            query_string: the statement.
            query_vars: values for its named parameters, in the driver's own spelling (`%(name)s` for PostgreSQL and
                MySQL, `$name` for DuckDB, `:name` for SQLite and SQLAlchemy); or `params=` with all of them.

        Returns:
            how many rows it changed, -1 if that is not known.

        Raises:
            DatabaseError: the database refuses it.
        """
        self._begin()
        return self.database.execute(clean_query(query_string), _parameters(query_vars))

    def _begin(self) -> None:
        if not self.database.in_transaction:
            self.database.begin()

    def _fetched(self, query: str, variables: Mapping[str, Any]) -> pd.DataFrame:
        return self.load(query, params=_parameters(variables))

    # Tables

    def default_schema(self) -> str | None:
        """Return the schema of tables without one; None: the database's own default."""
        return self.database.default_schema

    @plainly
    def table_exists(self, schema_name: str | None, table_name: str) -> bool:
        """Return whether the table or view exists."""
        return self.database.exists(_bare(table_name), _bare(schema_name) if schema_name else None)

    @plainly
    def export(
        self,
        df: Any,
        schema_name: str | None = None,
        table_name: str | None = None,
        if_exists: str = ExportWritePolicy.REPLACE,
        index: bool = False,
        verbose: bool = True,
        allow_reserved_words: bool | None = None,
        auto_clean_name: bool = True,
        case_sensitive: bool = False,
        cascade_on_drop: bool = False,
        drop_table_on_replace: bool = False,
        overwrite_types: Mapping[str, str] | None = None,
        query_string: str | None = None,
        unique_conflict_method: str | None = None,
        unique_constraints: Sequence[str] | None = None,
        skip_semicolon_at_end: bool = False,
        fast_execute: bool = True,
    ) -> None:
        """Write a DataFrame into a table, all of it or nothing, and commit.

        Args:
            df: a pandas or Polars DataFrame, an Arrow table, a list of dicts, or a dict, which is one row.
            schema_name: the table's schema, made where there is none; None: the connection's.
            table_name: the table, made where there is none. A name as it is, without quotes.
            if_exists: `replace`: afterwards the table holds these rows only; where its columns are the same, it stays
                and its rows are replaced, so that indexes and rights last; else it is made anew. `append`, or `fail`.
            index: the DataFrame's index becomes columns too.
            verbose: accepted and not used.
            allow_reserved_words: False: columns named like SQL's reserved words get `_` before the name, as Mage
                does it. By default, except in projects of Mage, they keep their names (they are quoted), unless the
                table is there and has them with `_`.
            auto_clean_name: columns' names in small letters, `_` for all that is no letter, digit or `_`.
            case_sensitive: capital letters stay in cleaned names.
            cascade_on_drop: what depends on a table that is dropped is dropped with it (PostgreSQL, DuckDB).
            drop_table_on_replace: `replace` always makes the table anew.
            overwrite_types: SQL types of columns of a table that is made, by their names.
            query_string: a SELECT that is written in place of `df`, inside the database.
            unique_conflict_method: `UPDATE` or `IGNORE`: what becomes of rows whose `unique_constraints` are in the
                table already (or twice among the new ones: the last, the first is kept).
            unique_constraints: columns that tell rows apart; a table that is made gets a unique index on them.
            fast_execute: accepted and not used.
            skip_semicolon_at_end: accepted and not used.

        Raises:
            ConfigError: wrong arguments.
            TableExists: the table is there, and `if_exists` is `fail`.
            DatabaseError: the database refuses.
        """
        if not table_name:
            raise ConfigError(
                "export needs table_name", hint="loader.export(df, schema_name, table_name, …)", code="export.no_table"
            )
        options = Export(
            name=_bare(table_name),
            schema=_bare(schema_name) if schema_name else None,
            if_exists=if_exists,
            allow_reserved_words=allow_reserved_words,
            clean_names=auto_clean_name,
            case_sensitive=case_sensitive,
            cascade=cascade_on_drop,
            drop=drop_table_on_replace,
            types=dict(overwrite_types or {}),
            unique=list(unique_constraints or ()),
            on_conflict=unique_conflict_method,
            mage=in_mage_project(),
        )
        if query_string is not None:
            self.database.write_query(clean_query(query_string), options.name, options.schema, options.policy)
        else:
            export_table(self.database, as_arrow(df, index=index), options)
        self.commit()


def clean_query(query: str) -> str:
    """Return a statement without surrounding white space and trailing semicolons."""
    return query.strip().rstrip(";").rstrip()


def limited(query: str, limit: int | None) -> str | None:
    """Return the query for the first `limit` rows of a SELECT; None where there is no limit, or it is no SELECT."""
    if limit is None:
        return None
    without_comments = _COMMENTS_BEFORE.sub("", query)
    if not _SELECT.match(without_comments) or (_WITH.match(without_comments) and _CHANGES.search(query)):
        return None
    if _ENDING.search(query):
        # It may have a limit, or an end that none can follow. Some databases forget the order of what stands inside.
        return f"SELECT * FROM (\n{query}\n) AS limited\nLIMIT {int(limit)}"
    return f"{query}\nLIMIT {int(limit)}"


def _parameters(variables: Mapping[str, Any]) -> Mapping[str, Any] | Sequence[Any] | None:
    """Return named parameters; or what `params=` (`parameters=`, as some drivers call it) holds."""
    for name in ("params", "parameters"):
        if set(variables) == {name}:
            held: Mapping[str, Any] | Sequence[Any] | None = variables[name]
            return held
    # No parameters is not the same as an empty set of them, with which `%` would have to be doubled.
    return variables or None


def _bare(name: str) -> str:
    """Return a table's name without the quotes that code for Mage may put around it."""
    if len(name) > 1 and name[0] == name[-1] and name[0] in '"`':
        return name[1:-1]
    return name


def _finished(frame: pd.DataFrame, index: Any, dates: Any, dtype: Any) -> pd.DataFrame:
    """Apply the index, dates and types as `pandas.read_sql` does."""
    if dates is not None:
        formats = dates if isinstance(dates, Mapping) else dict.fromkeys([dates] if isinstance(dates, str) else dates)
        for name, how in formats.items():
            options = how if isinstance(how, Mapping) else {"format": how} if how else {}
            frame[name] = pd.to_datetime(frame[name], **options)
    if dtype is not None:
        frame = frame.astype(dtype)
    return frame.set_index(index) if index is not None else frame
