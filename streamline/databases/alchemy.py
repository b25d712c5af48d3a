"""Every other database, by its SQLAlchemy URL and dialect."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamline.databases.arrow import batches_of, first_fit, in_python, is_bytes, is_uuid, table_of_rows
from streamline.databases.base import DatabaseError, IfExists, Parameters, line_of_word, setting, split_message
from streamline.databases.database import Database
from streamline.errors import ConfigError
from streamline.project.extras import need

# The drivers that come along or as extras; SQLAlchemy would look for others.
_DRIVERS = {"postgresql": "psycopg", "postgres": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
_IN_FILES = ("sqlite", "duckdb")
_TRANSACTIONAL = ("postgresql", "mssql", "sqlite")
_AT_LINE = re.compile(r"\bat line (\d+)\b")
_WORD = re.compile(r"""(?:near "|no such \w+: (?:\w+\.)?|Invalid (?:column|object) name '|Unknown column ')(\w+)""")


class Alchemy(Database):
    """A connection by SQLAlchemy.

    Args:
        config: `SQLALCHEMY_URL`.
        root: where a relative path in the URL of a file starts.
        name: another database than the URL's.
        schema: another schema than the connection's.
    """

    provider = "sqlalchemy"
    title = "the database"
    good_temporary = False

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
        self._sa = need("sqlalchemy", "sqlalchemy", "an SQLAlchemy URL")
        self.url = self._url(str(setting(config, "SQLALCHEMY_URL", origin=origin, required=True)), root, name)
        self.default_schema = schema
        try:
            engine = self._sa.create_engine(self.url, poolclass=self._sa.pool.NullPool)
        except self._sa.exc.NoSuchModuleError as error:
            raise ConfigError(
                f"SQLAlchemy has no dialect '{self.url.drivername}'",
                where=origin,
                hint="install the package that has it",
                code="package.missing",
            ) from error
        except ImportError as error:
            raise ConfigError(
                f"'{self.url.drivername}' needs the package {error.name}",
                where=origin,
                hint=f"pip install {error.name}",
                code="package.missing",
            ) from error
        self.title = engine.dialect.name
        self.longest_name = engine.dialect.max_identifier_length
        self.transactional_ddl = engine.dialect.name in _TRANSACTIONAL
        try:
            self.connection = engine.connect()
            try:
                self._commits_itself = "AUTOCOMMIT" in engine.dialect.get_isolation_level_values(None)
            except NotImplementedError:
                self._commits_itself = False
            self._autocommit(True)
        except (self._sa.exc.SQLAlchemyError, OSError) as error:
            address = self.url.render_as_string(hide_password=True)
            hint = "check SQLALCHEMY_URL, and that the server runs"
            raise self._unreachable(address, _reason(error), hint) from error

    def _url(self, text: str, root: Path, name: str | None) -> Any:
        try:
            url = self._sa.make_url(text)
        except self._sa.exc.ArgumentError as error:
            raise ConfigError(
                "SQLALCHEMY_URL is not a URL",
                where=self.origin,
                hint="write dialect+driver://user:password@host:port/database",
                code="profile.setting_invalid",
            ) from error
        if url.drivername in _DRIVERS:
            system = "postgresql" if url.drivername == "postgres" else url.drivername
            url = url.set(drivername=f"{system}+{_DRIVERS[url.drivername]}")
        url = url.set(database=name) if name else url
        in_file = url.get_backend_name() in _IN_FILES
        if in_file and url.database and url.database != ":memory:" and not url.database.startswith("file:"):
            url = url.set(database=str(root / Path(url.database).expanduser()))
        return url

    def query(self, sql: str, parameters: Parameters = None) -> pa.Table | None:
        with self._errors(sql), self._saved():
            result = self._run(sql, parameters)
            if not result.returns_rows:
                return None
            return table_of_rows(list(result.keys()), result)

    def execute(self, sql: str, parameters: Parameters = None) -> int:
        with self._errors(sql), self._saved():
            return int(self._run(sql, parameters).rowcount)

    def _run(self, sql: str, parameters: Parameters) -> Any:
        if isinstance(parameters, Mapping) and parameters:
            return self.connection.execute(self._sa.text(sql), dict(parameters))
        if parameters:
            return self.connection.exec_driver_sql(sql, tuple(parameters))
        # Without parameters a `%` is a `%`.
        return self.connection.exec_driver_sql(sql, execution_options={"no_parameters": True})

    @contextlib.contextmanager
    def _saved(self) -> Iterator[None]:
        """Outside a transaction of ours, what a statement did stays; where the driver sees to it, so can the user."""
        ours = not self._transaction and not self._commits_itself
        try:
            yield
        except BaseException:
            if ours:
                self.connection.rollback()
            raise
        if ours:
            self.connection.commit()

    def _autocommit(self, on: bool) -> None:
        if self._commits_itself:
            if on:
                self.connection.execution_options(isolation_level="AUTOCOMMIT")
            else:
                self.connection.execution_options(isolation_level=self.connection.default_isolation_level)

    def _begin(self) -> None:
        self.connection.commit()  # SQLAlchemy's own, which every statement begins
        if self._begins_itself:
            self.connection.exec_driver_sql("begin immediate")
        else:
            self._autocommit(False)
            self.connection.begin()

    def _end(self, how: str) -> None:
        if self._begins_itself:
            self.connection.exec_driver_sql(how)
            return
        getattr(self.connection, how)()
        self._autocommit(True)

    @property
    def _begins_itself(self) -> bool:
        """Python's SQLite driver would end a transaction before DDL."""
        return self.url.get_backend_name() == "sqlite" and self._commits_itself

    def exists(self, name: str, schema: str | None = None) -> bool:
        with self._errors(), self._saved():
            inspector = self._sa.inspect(self.connection)
            place = schema or self.default_schema
            return bool(inspector.has_table(name, place)) or name in inspector.get_view_names(place)

    def columns(self, name: str, schema: str | None = None) -> list[str]:
        with self._errors(), self._saved():
            try:
                columns = self._sa.inspect(self.connection).get_columns(name, schema or self.default_schema)
            except self._sa.exc.NoSuchTableError:
                return []
        return [column["name"] for column in columns]

    def quote(self, identifier: str) -> str:
        preparer = self.connection.dialect.identifier_preparer
        # SQLAlchemy doubles `%` for drivers that would take it for a parameter; ours are sent without parameters.
        plain = identifier.replace("%", "\ue000")
        return str(preparer.quote_identifier(plain)).replace("\ue000", "%")

    def create_table(self, name: str, schema: str | None, columns: pa.Schema, *, temporary: bool = False) -> None:
        table = self._table(name, schema, columns, temporary=temporary)
        with self._errors(), self._saved():
            self.connection.execute(self._sa.schema.CreateTable(table))

    def insert(self, data: pa.Table | pa.RecordBatchReader, name: str, schema: str | None = None) -> int:
        names = self.matched(data.schema.names, name, schema)
        table = self._table(name, schema, data.schema, names=names)
        count = 0
        with self._errors(), self.transaction():
            for batch in batches_of(data, 5_000):
                values = [self._sent(column) for column in batch.columns]
                rows = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
                if rows:
                    self.connection.execute(self._sa.insert(table), rows)
                count += batch.num_rows
        return count

    def write_query(
        self, select: str, name: str, schema: str | None = None, if_exists: IfExists = "append"
    ) -> pa.Table:
        if self.title != "mssql":
            return super().write_query(select, name, schema, if_exists)
        rows = self.rows(select)  # there is no `create table … as`
        self.write(rows, name, schema, if_exists)
        return rows

    def _append_query(self, select: str, name: str, schema: str | None) -> pa.Table:
        """Append the rows of a SELECT through Python: temporary tables differ from dialect to dialect."""
        rows = self.rows(select)
        self.insert(rows, name, schema)
        return rows

    def _table(
        self, name: str, schema: str | None, columns: pa.Schema, *, names: Any = None, temporary: bool = False
    ) -> Any:
        types = [self._type(field.type) for field in columns]
        listed = [self._sa.Column(column, kind) for column, kind in zip(names or columns.names, types, strict=True)]
        return self._sa.Table(
            name,
            self._sa.MetaData(),
            *listed,
            schema=schema or self.default_schema,
            prefixes=["TEMPORARY"] if temporary else [],
            quote=True,
        )

    def _type(self, kind: pa.DataType) -> Any:
        sa = self._sa
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_decimal(kind):
            return sa.Numeric(kind.precision, kind.scale)
        if pa.types.is_timestamp(kind):
            return self._precise(sa.DateTime(timezone=bool(kind.tz)), "DATETIME")
        if pa.types.is_uint64(kind):
            return sa.Numeric(20, 0)
        choices = (
            (sa.Boolean(), pa.types.is_boolean),
            (sa.BigInteger(), lambda kind: pa.types.is_int64(kind) or pa.types.is_uint32(kind)),
            (sa.Integer(), pa.types.is_integer),
            (sa.Double(), pa.types.is_floating),
            (sa.Date(), pa.types.is_date),
            (self._precise(sa.Time(), "TIME"), pa.types.is_time),
            (sa.Interval() if self._has_intervals else sa.BigInteger(), pa.types.is_duration),
            (sa.String(36), is_uuid),
            (sa.LargeBinary(), is_bytes),
        )
        return first_fit(kind, choices, sa.Text())

    @property
    def _has_intervals(self) -> bool:
        """Return whether intervals are exact. Elsewhere SQLAlchemy stores them as dates, which lose microseconds."""
        return self.title in ("postgresql", "oracle")

    def _sent(self, column: pa.Array) -> list[Any]:
        if pa.types.is_duration(column.type) and not self._has_intervals:
            return list(column.cast(pa.duration("us"), safe=False).cast(pa.int64()).to_pylist())
        values = in_python(column)
        if pa.types.is_floating(column.type) and self.title in ("mysql", "mariadb"):
            return [None if value is None or not math.isfinite(value) else value for value in values]
        return values

    def _precise(self, kind: Any, name: str) -> Any:
        """Return the type with microseconds, which MySQL keeps only if told to."""
        from sqlalchemy.dialects import mysql

        return kind.with_variant(getattr(mysql, name)(fsp=6), "mysql", "mariadb")

    def _rename(self, old: str, new: str, schema: str | None) -> None:
        if self.title == "mssql":
            self.execute(f"exec sp_rename '{self.qualified(old, schema)}', '{new}'")
        else:
            super()._rename(old, new, schema)

    def _translated(self, error: Exception, sql: str = "") -> Exception:
        if not isinstance(error, self._sa.exc.SQLAlchemyError):
            return error
        message, hint, line = split_message(_reason(error))
        if line is None:
            match = _AT_LINE.search(message)
            line = int(match[1]) if match else line_of_word(sql, _WORD.search(message))
        return DatabaseError(f"{self.title}: {message}", hint=hint, line=line)


def _reason(error: Exception) -> str:
    """Return the driver's message, without SQLAlchemy's explanation and without the parameters."""
    original = getattr(error, "orig", None)
    if original is not None:
        if len(original.args) == 2 and isinstance(original.args[0], int):
            return str(original.args[1])
        return str(original)
    return str(error).partition("\n")[0]
