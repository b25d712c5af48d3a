"""`database(provider, config)` opens a connection by the keys of an io_config.yaml profile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.errors import ConfigError
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.databases.database import Database

PROVIDERS = {
    "duckdb": "duckdb",
    "postgres": "postgres",
    "postgresql": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
    "sqlalchemy": "sqlalchemy",
}
"""Names that a provider goes by, and the one that it has here."""

ELSEWHERE = frozenset(
    {"bigquery", "clickhouse", "druid", "mssql", "oracledb", "redshift", "snowflake", "spark", "trino"}
)
"""Providers of Mage that are reached through their SQLAlchemy dialects."""


def provider_of(name: str, *, where: str | None = None) -> str:
    """The provider that `name` means: a value of `PROVIDERS`. A URL (`mssql+pyodbc://…`) means SQLAlchemy.

    Raises:
        ConfigError: nobody goes by that name.
    """
    folded = name.strip().casefold()
    if "://" in folded:
        return "sqlalchemy"
    if folded in PROVIDERS:
        return PROVIDERS[folded]
    if folded in ELSEWHERE:
        raise ConfigError(
            f"the data provider '{name}' is reached through SQLAlchemy",
            where=where,
            hint=f"use data_provider: sqlalchemy, and set SQLALCHEMY_URL: {folded}://… in the profile",
        )
    raise ConfigError(
        f"there is no data provider '{name}'", where=where, hint=suggestion(name, PROVIDERS, what="data providers")
    )


def database(
    provider: str,
    config: Mapping[str, Any],
    *,
    origin: str = "io_config.yaml",
    root: Path | None = None,
    name: str | None = None,
    schema: str | None = None,
) -> Database:
    """Open a connection.

    Args:
        provider: a key of `PROVIDERS`, or an SQLAlchemy URL.
        config: a profile's keys: `POSTGRES_HOST`, `DUCKDB_DATABASE`, ….
        origin: names the profile in errors.
        root: where relative paths start; by default the current folder.
        name: another database (for DuckDB and SQLite: file) than the profile's.
        schema: another schema than the profile's.

    Raises:
        ConfigError: unknown provider, a key is missing or wrong, the driver is not installed.
        DatabaseError: it cannot be reached, or does not let us in.
    """
    kind = provider_of(provider)
    folder = root or Path.cwd()
    if kind == "duckdb":
        from streamline.databases.duckdb import DuckDB

        return DuckDB(config, origin=origin, root=folder, name=name, schema=schema)
    if kind == "sqlite":
        from streamline.databases.sqlite import SQLite

        return SQLite(config, origin=origin, root=folder, name=name)
    if kind == "postgres":
        from streamline.databases.postgres import Postgres

        return Postgres(config, origin=origin, name=name, schema=schema)
    if kind == "mysql":
        from streamline.databases.mysql import MySQL

        return MySQL(config, origin=origin, name=name or schema)
    from streamline.databases.alchemy import Alchemy

    return Alchemy(
        config, origin=origin, root=folder, url=provider if "://" in provider else None, name=name, schema=schema
    )
