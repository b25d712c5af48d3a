"""Snowflake. Extra: `streamline[snowflake]`. Written from its client's documents; not tested against Snowflake."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from streamline.databases.base import TableExists
from streamline.errors import ConfigError
from streamline.io.base import ExportWritePolicy, check_policy, from_profile, profile_path, require_key, some
from streamline.io.frames import as_arrow, as_pandas, from_arrow
from streamline.io.sql import clean_query
from streamline.io.warehouse import StatementWarehouse, merge_statement, quoted, without_repeated_keys
from streamline.project.extras import need

__all__ = ["ExportWritePolicy", "Snowflake"]

_PROFILE = {
    "account": "SNOWFLAKE_ACCOUNT",
    "user": "SNOWFLAKE_USER",
    "password": "SNOWFLAKE_PASSWORD",
    "warehouse": "SNOWFLAKE_DEFAULT_WH",
    "database": "SNOWFLAKE_DEFAULT_DB",
    "schema": "SNOWFLAKE_DEFAULT_SCHEMA",
    "role": "SNOWFLAKE_ROLE",
    "network_timeout": "SNOWFLAKE_TIMEOUT",
}
_OF_EXECUTE = frozenset({"params", "parameters", "timeout", "num_statements"})


class Snowflake(StatementWarehouse):
    """A connection to Snowflake. Untested against the service.

    Args:
        settings: as `snowflake.connector.connect` takes them: `account`, `user`, `password`, or `private_key_file` with
            `private_key_file_pwd`, `warehouse`, `database`, `schema`, `role`, …. `login_timeout` is 20 s and
            `network_timeout` 300 s unless given.
    """

    title = "Snowflake"
    client_module = ("snowflake.connector.errors", "snowflake", "snowflake-connector-python")
    client_error = "Error"

    def __init__(self, verbose: bool = True, **settings: Any) -> None:
        super().__init__(verbose, **({"login_timeout": 20, "network_timeout": 300} | settings))

    @classmethod
    def with_config(
        cls, config: Mapping[str, Any], database: str | None = None, schema: str | None = None, **kwargs: Any
    ) -> Snowflake:
        """Connect by the keys `SNOWFLAKE_ACCOUNT`, `_USER`, `_PASSWORD` or `_PRIVATE_KEY_PATH`, `_DEFAULT_WH`, ….

        Args:
            config: a profile.
            database: another database than the profile's.
            schema: another schema than the profile's.
            kwargs: further arguments of the constructor; they win.

        Raises:
            ConfigError: the profile has no account or user.
        """
        for key in ("SNOWFLAKE_ACCOUNT", "SNOWFLAKE_USER"):
            require_key(config, key, cls.title)
        settings = from_profile(config, _PROFILE) | some({"database": database or None, "schema": schema or None})
        if not settings.get("password"):
            settings |= from_profile(config, {"private_key_file_pwd": "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE"})
            settings |= some({"private_key_file": profile_path(config, "SNOWFLAKE_PRIVATE_KEY_PATH")})
        return cls(**{**settings, **kwargs})

    def export(
        self,
        df: Any,
        table_name: str | None = None,
        database: str | None = None,
        schema: str | None = None,
        if_exists: str = ExportWritePolicy.APPEND,
        query_string: str | None = None,
        unique_conflict_method: str | None = None,
        unique_constraints: Sequence[str] | None = None,
        verbose: bool = True,
        **kwargs: Any,
    ) -> None:
        """Write a DataFrame into a table, made where there is none.

        Names are taken as they are: Snowflake's own tables are in capital letters. `quote_identifiers=False` lets
        Snowflake fold them.

        Args:
            df: a DataFrame as `BaseSQL.export` takes it.
            table_name: the table.
            database: its database; by default the connection's.
            schema: its schema, made where there is none; by default the connection's.
            if_exists: `append`, `replace`, `fail`.
            query_string: a SELECT that is written in place of `df`.
            verbose: accepted and not used.
            unique_conflict_method: `UPDATE` or `IGNORE`; rows are merged by `unique_constraints`.
            unique_constraints: columns that tell rows apart.
            kwargs: further arguments of `write_pandas`.

        Raises:
            ConfigError: no table, database or schema is named.
            TableExists: the table is there, and `if_exists` is `fail`.
            DatabaseError: Snowflake refuses.
        """
        policy = check_policy(if_exists)
        place = (database or self.default_database(), schema or self.default_schema(), table_name)
        for name, what in zip(place, ("database", "schema", "table_name"), strict=True):
            if not name:
                raise ConfigError(
                    f"export needs {what}", hint=f"pass {what}=…, or set it in the profile", code="export.no_table"
                )
        exact = bool(kwargs.get("quote_identifiers", True))
        parts = [str(name) if exact else str(name).upper() for name in place]
        with self._errors():
            exists = self._prepare(parts)
            if exists and policy == "fail":
                raise TableExists(f"the table {'.'.join(parts)} exists, and if_exists is 'fail'")
            if query_string is not None:
                self._write_query(clean_query(query_string), parts, policy if exists else "fail")
                return
            frame = as_pandas(df)
            if unique_constraints and unique_conflict_method:
                frame = without_repeated_keys(frame, unique_constraints, unique_conflict_method)
                if exists and policy == "append":
                    self._merge(frame, parts, list(unique_constraints), unique_conflict_method, kwargs)
                    return
            fresh = not exists or policy == "replace"
            self._write(frame, parts, auto_create_table=fresh, overwrite=exists and policy == "replace", **kwargs)

    def load(
        self,
        query_string: str,
        limit: int | None = None,
        display_query: str | None = None,
        verbose: bool = True,
        database: str | None = None,
        schema: str | None = None,
        table_name: str | None = None,
        full_table_name: str | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Load the rows of a query, as `Warehouse.load` does. The names of a table are accepted and not used."""
        return super().load(query_string, limit, display_query, verbose, **kwargs)

    def table_exists(self, schema_name: str | None, table_name: str, database: str | None = None) -> bool:
        """Return whether the table or view exists. Names are taken as they are."""
        parts = (str(database or self.default_database()), str(schema_name or self.default_schema()), table_name)
        with self._errors(), self.conn.cursor() as cursor:
            return self._is_there(cursor, parts)

    def _connect(self) -> Any:
        connector = need("snowflake.connector", "snowflake", "Snowflake", package="snowflake-connector-python")
        return connector.connect(**self.settings)

    def _fetch(self, query: str, options: Mapping[str, Any]) -> pd.DataFrame:
        return from_arrow(self._fetch_table(query, options))

    def _fetch_table(self, query: str, options: Mapping[str, Any]) -> pa.Table:
        # The client's own frames have floats for integers with NULLs, which rounds long ones.
        with self.conn.cursor() as cursor:
            cursor.execute(query, **_arguments(options))
            try:
                table: pa.Table = cursor.fetch_arrow_all(force_return_table=True)
            except self._client_errors.NotSupportedError:
                # Only SELECTs have results in Arrow; SHOW and DESCRIBE have rows.
                names = [column[0] for column in cursor.description]
                table = as_arrow(pd.DataFrame(cursor.fetchall(), columns=names))
        return table

    def _run(self, query: str, options: Mapping[str, Any]) -> Any:
        with self.conn.cursor() as cursor:
            return cursor.execute(query, **_arguments(options)).fetchall()

    def _prepare(self, parts: Sequence[str]) -> bool:
        """Make the schema where there is none; whether the table is there."""
        database, schema, _ = parts
        views = f"{quoted(database)}.information_schema"
        with self.conn.cursor() as cursor:
            schemas = cursor.execute(f"SELECT 1 FROM {views}.schemata WHERE schema_name = %s", (schema,)).fetchall()
            if not schemas:
                cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(database)}.{quoted(schema)}")
                return False
            return self._is_there(cursor, parts)

    def _is_there(self, cursor: Any, parts: Sequence[str]) -> bool:
        database, schema, table = parts
        views = f"{quoted(database)}.information_schema"
        query = f"SELECT 1 FROM {views}.tables WHERE table_schema = %s AND table_name = %s"
        return bool(cursor.execute(query, (schema, table)).fetchall())

    def _write(self, frame: pd.DataFrame, parts: Sequence[str], **options: Any) -> None:
        tools = need("snowflake.connector.pandas_tools", "snowflake", "Snowflake.export")
        database, schema, table = parts
        # Without logical types, Snowflake takes datetimes for numbers.
        options = {"use_logical_type": True} | options
        tools.write_pandas(self.conn, frame, table, database=database, schema=schema, **options)

    def _merge(self, frame: pd.DataFrame, parts: Sequence[str], key: list[str], method: str, options: Any) -> None:
        staged = [*parts[:2], f"STREAMLINE_{secrets.token_hex(6).upper()}"]
        exact = bool(options.get("quote_identifiers", True))
        self._write(frame, staged, auto_create_table=True, table_type="temp", **options)

        def column(name: str) -> str:
            return quoted(str(name) if exact else str(name).upper())

        columns, keys = [column(name) for name in frame.columns], [column(name) for name in key]
        with self.conn.cursor() as cursor:
            cursor.execute(merge_statement(quoted(*parts), quoted(*staged), columns, keys, method))
            cursor.execute(f"DROP TABLE IF EXISTS {quoted(*staged)}")

    def _write_query(self, select: str, parts: Sequence[str], policy: str) -> None:
        words = {
            "append": f"INSERT INTO {quoted(*parts)}",
            "replace": f"CREATE OR REPLACE TABLE {quoted(*parts)} AS",
            "fail": f"CREATE TABLE {quoted(*parts)} AS",
        }
        with self.conn.cursor() as cursor:
            cursor.execute(f"{words[policy]}\n{select}")


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the cursor as they are; any others are the values of named parameters."""
    if set(options) <= _OF_EXECUTE:
        arguments = dict(options)
        if "parameters" in arguments:
            arguments["params"] = arguments.pop("parameters")
        return arguments
    return {"params": dict(options)}
