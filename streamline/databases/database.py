"""The interface of a database connection: SQL in, Arrow out; a table is written completely or not at all.

Each system has its own file in `databases/`; `connect.py` opens them.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from streamline.errors import ConfigError, StreamlineError

if TYPE_CHECKING:
    import pyarrow as pa

IfExists = Literal["append", "replace", "fail"]
WRITE_POLICIES: tuple[IfExists, ...] = ("append", "replace", "fail")
Parameters = Mapping[str, Any] | Sequence[Any] | None


class DatabaseError(StreamlineError):
    """A database refused a statement, or could not be reached.

    Args:
        line: the line of the statement (from 1) that the database points at, where it does.
    """

    code = "database.failed"

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        line: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint, code=code)
        self.line = line


class TableExists(DatabaseError):
    """The table is there already, and must not be."""

    code = "database.table_exists"


class Database(ABC):
    """An open connection.

    Outside `begin` … `commit` every statement stands for itself. `write` and `write_query` are one transaction of
    their own, or part of the one that is open. Everything here raises DatabaseError.

    Args:
        origin: where its settings come from, such as `io_config.yaml, profile 'default'`; for errors.
    """

    provider: ClassVar[str]
    """The name in `registry.PROVIDERS`."""
    title: str
    """The name for people."""
    transactional_ddl: bool = True
    """Whether `create table` and `drop table` are undone by a rollback."""
    paramstyle: ClassVar[str]
    """How parameters are written in SQL: `pyformat`: `%(name)s`, `%s`; `named`: `:name`, `?`; `dollar`: `$name`."""

    default_schema: str | None = None
    """Where tables without a schema are made; None: wherever the database's own default is."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    # What runs

    @abstractmethod
    def query(self, sql: str, parameters: Parameters = None) -> pa.Table | None:
        """Run one statement; its rows, or None if it is of a kind that has none."""

    @abstractmethod
    def execute(self, sql: str, parameters: Parameters = None) -> int:
        """Run one statement and forget its rows; how many rows it changed, -1 if that is not known."""

    @abstractmethod
    def begin(self) -> None:
        """Start a transaction."""

    @abstractmethod
    def commit(self) -> None:
        """End it; nothing happens if there is none."""

    @abstractmethod
    def rollback(self) -> None:
        """Undo it; nothing happens if there is none. Raises nothing."""

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    @abstractmethod
    def close(self) -> None:
        """End the connection; what was not committed is undone. Raises nothing, may be called again."""

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

    # Tables

    @abstractmethod
    def exists(self, name: str, schema: str | None = None) -> bool:
        """Whether there is such a table or view."""

    @abstractmethod
    def columns(self, name: str, schema: str | None = None) -> list[str]:
        """A table's columns, in its order; empty if there is no such table."""

    @abstractmethod
    def create_table(self, name: str, schema: str | None, columns: pa.Schema, *, temporary: bool = False) -> None:
        """Make an empty table whose columns can hold these types. A temporary one ends with the connection."""

    @abstractmethod
    def insert(self, data: pa.Table | pa.RecordBatchReader, name: str, schema: str | None = None) -> int:
        """Append rows to a table that exists, by the columns' names; how many."""

    @abstractmethod
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

    @abstractmethod
    def write_query(
        self, select: str, name: str, schema: str | None = None, if_exists: IfExists = "append"
    ) -> pa.Table:
        """Write what a SELECT gives into a table, inside the database, and return those rows.

        The SELECT runs once, and may read the table that is replaced.
        """

    @abstractmethod
    def drop(self, name: str, schema: str | None = None) -> None:
        """Remove a table, if there is one."""

    # Names

    def quote(self, identifier: str) -> str:
        """An identifier in the database's quotes."""
        return '"' + identifier.replace('"', '""') + '"'

    def qualified(self, name: str, schema: str | None = None) -> str:
        """A table's quoted name, with its schema."""
        schema = schema or self.default_schema
        return f"{self.quote(schema)}.{self.quote(name)}" if schema else self.quote(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def setting(config: Mapping[str, Any], *keys: str, origin: str, default: Any = None, required: bool = False) -> Any:
    """The first of `keys` that the profile has and that is not empty.

    Raises:
        ConfigError: none is there, and one is required.
    """
    for key in keys:
        if key in config:
            value = config[key]
            if value is not None and value != "":
                return value
    if required:
        raise ConfigError(
            f"the profile has no {keys[0]}",
            where=origin,
            hint=f"set {' or '.join(keys)} in it",
            code="profile.setting_missing",
        )
    return default


def no_tunnel(config: Mapping[str, Any], prefix: str, *, origin: str) -> None:
    """Check that the profile does not ask for an SSH tunnel, which Mage opens itself.

    Raises:
        ConfigError: it does.
    """
    method = setting(config, f"{prefix}_CONNECTION_METHOD", origin=origin, default="direct")
    if method != "direct":
        raise ConfigError(
            f"{prefix}_CONNECTION_METHOD: {method} is not supported",
            where=origin,
            hint=f"open the tunnel with ssh -L, and set {prefix}_HOST and {prefix}_PORT to its end",
        )
