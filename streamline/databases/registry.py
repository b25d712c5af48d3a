"""The data providers, one entry each: names, the keys of io_config.yaml, and the classes, which are imported on use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError
from streamline.extensions import load_object
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.databases.database import Database


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A database as `data_provider` names it. Classes are written `package.module:Class`.

    Args:
        name: as in `data_provider`.
        title: its name in messages.
        aliases: other names.
        dialect: the `Database`; None: SQL blocks reach it through SQLAlchemy.
        io: the class that block files import from streamline.io.
        prefix: how its keys in io_config.yaml start.
        database_keys: keys that name the database; the first one that is set counts.
        server_keys: keys that say where it is.
        schema_key: the key of the default schema.
        needs_schema: a table is named with its schema.
        is_file: the database is a file of the project.
        mage_cleans: in projects of Mage, columns of upstream data get cleaned names; Mage leaves those of warehouses
            as they are.
        driver: the package that must be installed.
        install: what pip installs to get the driver.
        url: the SQLAlchemy URL of a database that SQL blocks reach through SQLAlchemy only.
    """

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    dialect: str | None = None
    io: str | None = None
    prefix: str = ""
    database_keys: tuple[str, ...] = ()
    server_keys: tuple[str, ...] = ()
    schema_key: str | None = None
    needs_schema: bool = False
    is_file: bool = False
    mage_cleans: bool = True
    driver: str | None = None
    install: str | None = None
    url: str = ""


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            name="duckdb",
            title="DuckDB",
            dialect="streamline.databases.duckdb:DuckDB",
            io="streamline.io.duckdb:DuckDB",
            prefix="DUCKDB_",
            database_keys=("DUCKDB_DATABASE",),
            schema_key="DUCKDB_SCHEMA",
            is_file=True,
        ),
        Provider(
            name="postgres",
            title="PostgreSQL",
            aliases=("postgresql",),
            dialect="streamline.databases.postgres:Postgres",
            io="streamline.io.postgres:Postgres",
            prefix="POSTGRES_",
            database_keys=("POSTGRES_DBNAME", "POSTGRES_DB"),
            server_keys=("POSTGRES_HOST", "POSTGRES_PORT"),
            schema_key="POSTGRES_SCHEMA",
            driver="psycopg",
            install="'psycopg[binary]'",
        ),
        Provider(
            name="mysql",
            title="MySQL",
            aliases=("mariadb",),
            dialect="streamline.databases.mysql:MySQL",
            io="streamline.io.mysql:MySQL",
            prefix="MYSQL_",
            database_keys=("MYSQL_DATABASE",),
            server_keys=("MYSQL_HOST", "MYSQL_PORT"),
            driver="pymysql",
            install="'streamline[mysql]'",
        ),
        Provider(
            name="sqlite",
            title="SQLite",
            dialect="streamline.databases.sqlite:SQLite",
            io="streamline.io.sqlite:SQLite",
            prefix="SQLITE_",
            database_keys=("SQLITE_DATABASE",),
            is_file=True,
        ),
        Provider(
            name="sqlalchemy",
            title="SQLAlchemy",
            dialect="streamline.databases.alchemy:Alchemy",
            io="streamline.io.sqlalchemy:SQLAlchemy",
            prefix="SQLALCHEMY_",
            database_keys=("SQLALCHEMY_URL",),
            driver="sqlalchemy",
            install="'streamline[sqlalchemy]'",
        ),
        Provider(
            name="bigquery",
            title="BigQuery",
            dialect="streamline.io.warehouse_database:BigQuery",
            io="streamline.io.bigquery:BigQuery",
            prefix="GOOGLE_",
            server_keys=("GOOGLE_SERVICE_ACC_KEY_FILEPATH", "GOOGLE_SERVICE_ACC_KEY"),
            needs_schema=True,
            mage_cleans=False,
            driver="google.cloud.bigquery",
            install="'streamline[bigquery]'",
        ),
        Provider(
            name="clickhouse",
            title="ClickHouse",
            install="clickhouse-sqlalchemy",
            url="clickhouse+native://USER:PASSWORD@HOST:9000/DATABASE",
        ),
        Provider(
            name="druid",
            title="Druid",
            install="'pydruid[sqlalchemy]'",
            url="druid://USER:PASSWORD@HOST:8082/druid/v2/sql",
        ),
        Provider(
            name="mssql",
            title="SQL Server",
            io="streamline.io.mssql:MSSQL",
            install="'streamline[mssql]'",
            url="mssql+pyodbc://USER:PASSWORD@HOST:1433/DATABASE?driver=ODBC+Driver+18+for+SQL+Server",
        ),
        Provider(
            name="oracledb",
            title="Oracle Database",
            io="streamline.io.oracledb:OracleDB",
            install="'streamline[oracledb]'",
            url="oracle+oracledb://USER:PASSWORD@HOST:1521?service_name=SERVICE",
        ),
        Provider(
            name="redshift",
            title="Redshift",
            dialect="streamline.io.warehouse_database:Redshift",
            io="streamline.io.redshift:Redshift",
            prefix="REDSHIFT_",
            database_keys=("REDSHIFT_DBNAME",),
            server_keys=("REDSHIFT_HOST", "REDSHIFT_PORT", "REDSHIFT_CLUSTER_ID"),
            schema_key="REDSHIFT_SCHEMA",
            mage_cleans=False,
            driver="redshift_connector",
            install="'streamline[redshift]'",
        ),
        Provider(
            name="snowflake",
            title="Snowflake",
            dialect="streamline.io.warehouse_database:Snowflake",
            io="streamline.io.snowflake:Snowflake",
            prefix="SNOWFLAKE_",
            database_keys=("SNOWFLAKE_DEFAULT_DB",),
            server_keys=("SNOWFLAKE_ACCOUNT",),
            schema_key="SNOWFLAKE_DEFAULT_SCHEMA",
            needs_schema=True,
            mage_cleans=False,
            driver="snowflake.connector",
            install="'streamline[snowflake]'",
        ),
        Provider(name="spark", title="Spark", install="'pyhive[hive]'", url="hive://USER@HOST:10000/DATABASE"),
        Provider(name="trino", title="Trino", install="'trino[sqlalchemy]'", url="trino://USER@HOST:8080/CATALOG"),
    )
}
_BY_NAME = {name: provider for provider in PROVIDERS.values() for name in (provider.name, *provider.aliases)}


def find_provider(name: str, *, where: str | None = None) -> Provider:
    """Return the provider of this name. A URL (`mssql+pyodbc://…`) means SQLAlchemy.

    Raises:
        ConfigError: no provider has this name, or SQL blocks reach it only through SQLAlchemy.
    """
    folded = name.strip().casefold()
    if "://" in folded:
        return PROVIDERS["sqlalchemy"]
    provider = _BY_NAME.get(folded)
    if provider is None:
        direct = [known for known, each in _BY_NAME.items() if each.dialect is not None]
        raise ConfigError(
            f"unknown data provider '{name}'",
            where=where,
            hint=suggestion(name, direct, what="data providers"),
            code="database.unknown_provider",
        )
    if provider.dialect is None:
        raise ConfigError(
            f"the data provider '{name}' is reached through SQLAlchemy",
            where=where,
            hint=f"pip install {provider.install} 'streamline[sqlalchemy]', write data_provider: sqlalchemy, and set "
            f"SQLALCHEMY_URL: {provider.url} in the profile",
            code="database.needs_sqlalchemy",
        )
    return provider


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
        provider: a name or alias in `PROVIDERS`, or an SQLAlchemy URL.
        config: a profile's keys: `POSTGRES_HOST`, `DUCKDB_DATABASE`, ….
        origin: names the profile in errors.
        root: where relative paths start; by default the current folder.
        name: another database (for DuckDB and SQLite: file) than the profile's.
        schema: another schema than the profile's.

    Raises:
        ConfigError: unknown provider, a key is missing or wrong, the driver is not installed.
        DatabaseError: the connection is refused.
    """
    entry = find_provider(provider)
    assert entry.dialect is not None
    if "://" in provider:
        config = {"SQLALCHEMY_URL": provider}
    opened: Database = load_object(entry.dialect)(
        config, origin=origin, root=root or Path.cwd(), name=name, schema=schema
    )
    return opened
