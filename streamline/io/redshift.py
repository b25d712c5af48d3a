"""Redshift. Extra: `streamline[redshift]`. Written from its client's documents; not tested against Redshift."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import pandas as pd
import pyarrow as pa

from streamline.databases.arrow import batches_of, is_bytes, json_text
from streamline.databases.base import TableExists
from streamline.errors import ConfigError
from streamline.io.base import ExportWritePolicy, check_policy, from_profile, require_key, some, table_and_size
from streamline.io.frames import as_arrow
from streamline.io.sql import clean_query
from streamline.io.warehouse import Warehouse, quoted
from streamline.project.extras import need
from streamline.project.suggest import words

__all__ = ["ExportWritePolicy", "Redshift"]

_SETTINGS = words(
    "access_key_id cluster_identifier database db_user host iam is_serverless password port profile region "
    "secret_access_key serverless_acct_id serverless_work_group session_token ssl sslmode timeout user"
)
_PROFILE = {
    "database": "REDSHIFT_DBNAME",
    "schema": "REDSHIFT_SCHEMA",
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "region": "AWS_REGION",
}
_CLUSTER = {
    "cluster_identifier": "REDSHIFT_CLUSTER_ID",
    "db_user": "REDSHIFT_DBUSER",
    "profile": "REDSHIFT_IAM_PROFILE",
}
_HOST = {"host": "REDSHIFT_HOST", "user": "REDSHIFT_TEMP_CRED_USER", "password": "REDSHIFT_TEMP_CRED_PASSWORD"}
_MOST_PARAMETERS = 32_767
"""Of one statement, in the protocol that Redshift speaks."""


class Redshift(Warehouse):
    """A connection to a Redshift cluster. Untested against the service.

    As with the other databases, a `with` that is left without an exception commits.

    Args:
        verbose: accepted and not used.
        settings: as `redshift_connector.connect` takes them, and `schema`: where tables without one are made.
    """

    title = "Redshift"
    client_module = ("redshift_connector", "redshift", "redshift-connector")
    client_error = "Error"

    @classmethod
    def with_config(cls, config: Mapping[str, Any], database: str | None = None, **kwargs: Any) -> Redshift:
        """Connect by the profile's keys.

        `REDSHIFT_DBNAME`, and either `REDSHIFT_CLUSTER_ID`, `_DBUSER` and `_IAM_PROFILE`, or `_HOST`, `_PORT`,
        `_TEMP_CRED_USER` and `_TEMP_CRED_PASSWORD`; optional: `REDSHIFT_SCHEMA`, `AWS_ACCESS_KEY_ID` and its like.

        Args:
            config: a profile.
            database: another database than the profile's.
            kwargs: further arguments of the constructor; they win.

        Raises:
            ConfigError: the profile has neither of the two.
        """
        if not database:
            require_key(config, "REDSHIFT_DBNAME", cls.title)
        settings = from_profile(config, _PROFILE) | some({"database": database or None})
        cluster, host = from_profile(config, _CLUSTER), from_profile(config, _HOST)
        if len(cluster) == len(_CLUSTER) and all(cluster.values()):
            settings |= {**cluster, "iam": True}
        elif len(host) == len(_HOST) and all(host.values()):
            settings |= host | from_profile(config, {"port": "REDSHIFT_PORT"})
        else:
            raise ConfigError(
                "the profile does not say how to reach Redshift",
                hint="set REDSHIFT_HOST, REDSHIFT_TEMP_CRED_USER and REDSHIFT_TEMP_CRED_PASSWORD, "
                "or REDSHIFT_CLUSTER_ID, REDSHIFT_DBUSER and REDSHIFT_IAM_PROFILE",
                code="profile.setting_missing",
            )
        return cls(**{**settings, **kwargs})

    @classmethod
    def with_temporary_credentials(
        cls, database: str, host: str, user: str, password: str, port: int = 5439, **kwargs: Any
    ) -> Redshift:
        """Connect with a user's name and password."""
        return cls(database=database, host=host, user=user, password=password, port=port, **kwargs)

    @classmethod
    def with_iam(
        cls, cluster_identifier: str, database: str, db_user: str, profile: str = "default", **kwargs: Any
    ) -> Redshift:
        """Connect with a profile of `~/.aws`."""
        named = {"cluster_identifier": cluster_identifier, "db_user": db_user, "profile": profile, "iam": True}
        return cls(database=database, **{**named, **kwargs})

    def table_exists(self, schema_name: str | None, table_name: str) -> bool:
        """Return whether the table or view exists."""
        with self._errors():
            return bool(self._columns(schema_name, table_name))

    def sample(self, schema: str | None, table: str | int, size: int | str = 10_000_000, **kwargs: Any) -> pd.DataFrame:
        """Load some rows of a table, in no order. `table` and `size` may change places."""
        table, size = table_and_size(table, size)
        return self.load(f"SELECT * FROM {quoted(schema, table)}", limit=size, **kwargs)

    def export(
        self,
        df: Any,
        table_name: str | None = None,
        schema: str | None = None,
        schema_name: str | None = None,
        if_exists: str = ExportWritePolicy.APPEND,
        index: bool = False,
        verbose: bool = True,
        query_string: str | None = None,
        drop_table_on_replace: bool = False,
        cascade_on_drop: bool = False,
        create_schema: bool = False,
        overwrite_types: Mapping[str, str] | None = None,
    ) -> None:
        """Write a DataFrame into a table, made where there is none, in one transaction.

        Rows go in by INSERT statements of many rows; for millions of rows, put a file into S3 and use COPY.

        Args:
            df: a DataFrame as `BaseSQL.export` takes it.
            table_name: the table, or `schema.table`.
            schema: the same as `schema_name`.
            schema_name: the table's schema; by default the connection's.
            if_exists: `append`, `replace` (rows are replaced; a table of other columns is made anew), `fail`.
            index: the DataFrame's index becomes columns too.
            verbose: accepted and not used.
            query_string: a SELECT that is written in place of `df`.
            drop_table_on_replace: `replace` always makes the table anew.
            cascade_on_drop: what depends on a table that is dropped is dropped with it.
            create_schema: make the schema where there is none.
            overwrite_types: Redshift's types of columns of a table that is made, by their names.

        Raises:
            ConfigError: no table is named.
            TableExists: the table is there, and `if_exists` is `fail`.
            DatabaseError: Redshift refuses.
        """
        if not table_name:
            raise ConfigError("export needs table_name", hint="loader.export(df, table_name=…)", code="export.no_table")
        place, _, name = table_name.rpartition(".")
        data = None if query_string is not None else as_arrow(df, index=index)
        with self._errors():
            try:
                self.write(
                    data,
                    name,
                    schema_name or schema or place or self.default_schema(),
                    if_exists,
                    query_string=query_string,
                    drop=drop_table_on_replace,
                    cascade=cascade_on_drop,
                    create_schema=create_schema,
                    types=overwrite_types,
                )
                self.conn.commit()
            except BaseException:
                self.conn.rollback()
                raise

    def write(
        self,
        data: pa.Table | None,
        name: str,
        schema: str | None,
        if_exists: str,
        *,
        query_string: str | None = None,
        drop: bool = False,
        cascade: bool = False,
        create_schema: bool = False,
        types: Mapping[str, str] | None = None,
    ) -> None:
        """Write rows, or what a query gives, into a table, as part of the transaction that the caller ends.

        The arguments are those of `export`.
        """
        policy = check_policy(if_exists)
        place = schema or ""
        table = quoted(place, name)
        types = dict(types or {})
        with self._errors():
            there = self._columns(place, name)
            if there and policy == "fail":
                raise TableExists(f"the table {place}.{name} exists, and if_exists is 'fail'".replace(" .", " "))
            if create_schema and place:
                self._run(f"CREATE SCHEMA IF NOT EXISTS {quoted(place)}", {})
            if there and policy == "replace":
                same = data is not None and {column.lower() for column in data.column_names} == set(there)
                if drop or types or not same:
                    self._run(f"DROP TABLE {table}{' CASCADE' if cascade else ''}", {})
                    there = []
                else:
                    self._run(f"DELETE FROM {table}", {})
            if data is None:
                first = f"INSERT INTO {table}" if there else f"CREATE TABLE {table} AS"
                self._run(f"{first}\n{clean_query(query_string or '')}", {})
            else:
                if not there:
                    self._run(f"CREATE TABLE {table} ({_declarations(data.schema, types)})", {})
                self._insert(data, table)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._connection is not None:
                self._connection.commit()
        finally:
            self.close()

    def _connect(self) -> Any:
        connector = need("redshift_connector", "redshift", "Redshift")
        settings = {key: self.settings[key] for key in _SETTINGS if self.settings.get(key) is not None}
        if "port" in settings:
            settings["port"] = int(settings["port"])
        return connector.connect(**settings)

    def _fetch(self, query: str, options: Mapping[str, Any]) -> pd.DataFrame:
        with self.conn.cursor() as cursor:
            frame: pd.DataFrame = _execute(cursor, query, options).fetch_dataframe()
        return frame

    def _run(self, query: str, options: Mapping[str, Any]) -> Any:
        with self.conn.cursor() as cursor:
            return _execute(cursor, query, options).rowcount

    def _columns(self, schema: str | None, table: str) -> list[str]:
        """Return the table's columns in lower case, as Redshift keeps names; empty if it does not exist."""
        where = "table_name = %s AND table_schema = " + ("%s" if schema else "current_schema()")
        arguments = (table.lower(), schema.lower()) if schema else (table.lower(),)
        query = f"SELECT column_name FROM information_schema.columns WHERE {where} ORDER BY ordinal_position"
        with self.conn.cursor() as cursor:
            cursor.execute(query, arguments)
            return [str(row[0]).lower() for row in cursor.fetchall()]

    def _insert(self, data: pa.Table, table: str) -> None:
        columns = ", ".join(quoted(name) for name in data.column_names)
        one_row = f"({', '.join(['%s'] * data.num_columns)})"
        with self.conn.cursor() as cursor:
            for batch in batches_of(data, max(1, _MOST_PARAMETERS // max(1, data.num_columns))):
                values = zip(*(map(_value, column.to_pylist()) for column in batch.columns), strict=True)
                # In a statement with parameters, `%` in a name stands for itself if doubled.
                start = f"INSERT INTO {table} ({columns}) VALUES ".replace("%", "%%")
                cursor.execute(
                    start + ", ".join([one_row] * batch.num_rows), [value for row in values for value in row]
                )


def _execute(cursor: Any, query: str, options: Mapping[str, Any]) -> Any:
    """Run a statement: positional parameters as `args=` (or `params=`), any other arguments are named ones."""
    if not options:
        return cursor.execute(query)
    if len(options) == 1 and set(options) <= {"args", "params", "parameters"}:
        return cursor.execute(query, next(iter(options.values())))
    cursor.paramstyle = "pyformat"
    return cursor.execute(query, dict(options))


def _declarations(columns: pa.Schema, types: Mapping[str, str]) -> str:
    return ", ".join(f"{quoted(field.name)} {types.get(field.name) or declared(field.type)}" for field in columns)


def declared(kind: pa.DataType) -> str:
    """Return the Redshift type for values of an Arrow type."""
    if pa.types.is_decimal(kind):
        return f"NUMERIC({min(kind.precision, 38)},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMPTZ" if kind.tz else "TIMESTAMP"
    for name, fits in (
        ("BOOLEAN", pa.types.is_boolean),
        ("NUMERIC(20,0)", pa.types.is_uint64),
        ("BIGINT", pa.types.is_integer),
        ("DOUBLE PRECISION", pa.types.is_floating),
        ("DATE", pa.types.is_date),
        ("TIME", pa.types.is_time),
        ("BIGINT", pa.types.is_duration),
        ("VARBYTE(65535)", is_bytes),
    ):
        if fits(kind):
            return name
    return "VARCHAR(65535)"


def _value(value: Any) -> Any:
    """Return a value as the client takes it: nested ones as JSON, durations in microseconds."""
    if isinstance(value, dict | list):
        return json_text(value)
    if isinstance(value, datetime.timedelta):
        return value // datetime.timedelta(microseconds=1)
    return value
