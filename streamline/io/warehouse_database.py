"""Warehouses as SQL blocks use them, by the classes of `streamline.io`. None of them is tested against its service."""

from __future__ import annotations

import contextlib
import secrets
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from streamline.databases.base import IfExists, Parameters
from streamline.databases.database import Database
from streamline.errors import ConfigError, StreamlineError
from streamline.io import bigquery, redshift, snowflake
from streamline.io.warehouse import Warehouse
from streamline.project.current import in_mage_project


class WarehouseDatabase(Database):
    """A connection to a warehouse.

    Args:
        config: a profile's keys.
        root: accepted, as the other databases take it.
        name: another database than the profile's.
        schema: another schema than the profile's.
    """

    transactional_ddl = False
    good_temporary = False
    longest_name = 127
    warehouse: Warehouse

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
        self.name = name
        try:
            self.warehouse = self._create(config, name)
            self.connection = self.warehouse.conn
        except StreamlineError as error:
            error.where = error.where or origin
            raise
        self.title = self.warehouse.title
        self.default_schema = schema or self.warehouse.default_schema()

    @abstractmethod
    def _create(self, config: Mapping[str, Any], name: str | None) -> Warehouse:
        """Create the client of streamline.io."""

    @abstractmethod
    def _export(
        self, data: pa.Table | None, name: str, schema: str | None, if_exists: IfExists, query: str | None
    ) -> None:
        """Write rows, or what a query gives, into a table."""

    def query(self, sql: str, parameters: Parameters = None) -> pa.Table | None:
        arguments: dict[str, Any] = {"params": parameters} if parameters else {}
        table = self.warehouse.table(sql, **arguments)
        return table if table.num_columns else None

    def execute(self, sql: str, parameters: Parameters = None) -> int:
        arguments: dict[str, Any] = {"params": parameters} if parameters else {}
        result = self.warehouse.execute(sql, **arguments)
        return result if isinstance(result, int) else -1

    def exists(self, name: str, schema: str | None = None) -> bool:
        return self.warehouse.table_exists(schema or self.default_schema, name)

    def columns(self, name: str, schema: str | None = None) -> list[str]:
        return [str(column) for column in self.warehouse.load(f"select * from {self.qualified(name, schema)} limit 0")]

    def insert(self, data: pa.Table | pa.RecordBatchReader, name: str, schema: str | None = None) -> int:
        return self.write(data, name, schema)

    def write(
        self,
        data: pa.Table | pa.RecordBatchReader,
        name: str,
        schema: str | None = None,
        if_exists: IfExists = "append",
        *,
        temporary: bool = False,
    ) -> int:
        table = data.read_all() if isinstance(data, pa.RecordBatchReader) else data
        with self.transaction():
            self.ensure_schema(schema)
            self._export(table, name, schema, if_exists, None)
        return int(table.num_rows)

    def write_query(
        self, select: str, name: str, schema: str | None = None, if_exists: IfExists = "append"
    ) -> pa.Table:
        """Write the rows of a SELECT, which may read the table that it fills, through a table that is dropped."""
        self._check_policy(if_exists)
        staged = self.spare_name(f"{name}_{secrets.token_hex(4)}", "_rows")
        source = f"select * from {self.qualified(staged, schema)}"
        with self.transaction():
            exists = self._exists_for(if_exists, name, schema)
            self.ensure_schema(schema)
            self.create_as(select, staged, schema)
            try:
                rows = self.rows(source)
                if exists and if_exists == "append":
                    listed = ", ".join(map(self.quote, self.matched(rows.column_names, name, schema)))
                    self.execute(f"insert into {self.qualified(name, schema)} ({listed}) {source}")
                else:
                    self._export(None, name, schema, if_exists, source)
            finally:
                with contextlib.suppress(StreamlineError):
                    self.drop(staged, schema)
        return rows

    def ensure_schema(self, schema: str | None) -> None:
        if schema:
            self.execute(f"create schema if not exists {self.quote(schema)}")

    def close(self) -> None:
        self.rollback()
        with contextlib.suppress(Exception):
            self.warehouse.close()

    def _begin(self) -> None:
        """Do nothing: every statement stands for itself."""

    def _end(self, how: str) -> None:
        """Do nothing: every statement stands for itself."""

    def _translated(self, error: Exception, sql: str = "") -> Exception:
        return error


class BigQuery(WarehouseDatabase):
    """BigQuery. A schema is a dataset, a database is a project."""

    provider = "bigquery"
    warehouse: bigquery.BigQuery

    def quote(self, identifier: str) -> str:
        return f"`{identifier}`"

    def qualified(self, name: str, schema: str | None = None) -> str:
        schema = schema or self.default_schema
        if not schema:
            raise ConfigError(
                "BigQuery needs a dataset for the table",
                where=self.origin,
                hint="set data_provider_schema in the block's configuration",
                code="sql.setting_invalid",
            )
        return ".".join(self.quote(part) for part in (self.name, schema, name) if part)

    def ensure_schema(self, schema: str | None) -> None:
        if schema:
            self.execute(f"create schema if not exists {'.'.join(map(self.quote, filter(None, (self.name, schema))))}")

    def exists(self, name: str, schema: str | None = None) -> bool:
        return self.warehouse.table_exists(schema or self.default_schema, name, self.name)

    def _create(self, config: Mapping[str, Any], name: str | None) -> Warehouse:
        return bigquery.BigQuery.with_config(config)

    def _export(
        self, data: pa.Table | None, name: str, schema: str | None, if_exists: IfExists, query: str | None
    ) -> None:
        frame = _frame(data)
        table = f"{schema or self.default_schema}.{name}"
        self.warehouse.export(frame, table, self.name, if_exists, query_string=query, create_dataset=False)


class Snowflake(WarehouseDatabase):
    """Snowflake. Names of tables are in capital letters, as in Mage: SQL without quotes finds them.

    So are names of columns, but not in projects of Mage, where SQL quotes them as upstream data has them.
    """

    provider = "snowflake"
    warehouse: snowflake.Snowflake

    def qualified(self, name: str, schema: str | None = None) -> str:
        schema = schema or self.default_schema
        return super().qualified(name.upper(), schema.upper() if schema else None)

    def ensure_schema(self, schema: str | None) -> None:
        super().ensure_schema(schema.upper() if schema else None)

    def exists(self, name: str, schema: str | None = None) -> bool:
        place = (schema or self.default_schema or "").upper()
        database = (self.warehouse.default_database() or "").upper()
        return self.warehouse.table_exists(place or None, name.upper(), database or None)

    def _create(self, config: Mapping[str, Any], name: str | None) -> Warehouse:
        return snowflake.Snowflake.with_config(config, database=name)

    def _export(
        self, data: pa.Table | None, name: str, schema: str | None, if_exists: IfExists, query: str | None
    ) -> None:
        if data is not None and not in_mage_project():
            data = data.rename_columns([column.upper() for column in data.column_names])
        database, place = self.warehouse.default_database() or "", schema or self.default_schema or ""
        self.warehouse.export(
            _frame(data), name.upper(), database.upper(), place.upper(), if_exists, query_string=query
        )

    def _begin(self) -> None:
        self.execute("begin")

    def _end(self, how: str) -> None:
        getattr(self.warehouse, how)()


class Redshift(WarehouseDatabase):
    """Redshift."""

    provider = "redshift"
    warehouse: redshift.Redshift

    def _create(self, config: Mapping[str, Any], name: str | None) -> Warehouse:
        warehouse = redshift.Redshift.with_config(config, database=name)
        warehouse.conn.autocommit = True
        return warehouse

    def _export(
        self, data: pa.Table | None, name: str, schema: str | None, if_exists: IfExists, query: str | None
    ) -> None:
        self.warehouse.write(data, name, schema or self.default_schema, if_exists, query_string=query)

    def _begin(self) -> None:
        self.connection.autocommit = False

    def _end(self, how: str) -> None:
        try:
            getattr(self.warehouse, how)()
        finally:
            self.connection.autocommit = True


def _frame(data: pa.Table | None) -> pd.DataFrame | None:
    """Return a DataFrame whose integers stay integers where some are null."""
    integers = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}
    return None if data is None else data.to_pandas(types_mapper=integers.get)
