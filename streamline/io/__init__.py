"""What block files and scripts import: connection profiles, files, databases, object stores.

Every class is imported when it is first named: `from streamline.io import ConfigFileLoader, Postgres`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamline.databases.registry import PROVIDERS
from streamline.extensions import load_object

if TYPE_CHECKING:
    from streamline.io.azure_blob_storage import AzureBlobStorage
    from streamline.io.bigquery import BigQuery
    from streamline.io.config import AWSSecretLoader, ConfigFileLoader, ConfigKey, EnvironmentVariableLoader
    from streamline.io.duckdb import DuckDB
    from streamline.io.file import FileIO
    from streamline.io.google_cloud_storage import GoogleCloudStorage
    from streamline.io.google_sheets import GoogleSheets
    from streamline.io.mongodb import MongoDB
    from streamline.io.mssql import MSSQL
    from streamline.io.mysql import MySQL
    from streamline.io.oracledb import OracleDB
    from streamline.io.postgres import Postgres
    from streamline.io.redshift import Redshift
    from streamline.io.s3 import S3
    from streamline.io.snowflake import Snowflake
    from streamline.io.sqlalchemy import SQLAlchemy
    from streamline.io.sqlite import SQLite

_CLASSES = {
    "AWSSecretLoader": "streamline.io.config:AWSSecretLoader",
    "AzureBlobStorage": "streamline.io.azure_blob_storage:AzureBlobStorage",
    "ConfigFileLoader": "streamline.io.config:ConfigFileLoader",
    "ConfigKey": "streamline.io.config:ConfigKey",
    "EnvironmentVariableLoader": "streamline.io.config:EnvironmentVariableLoader",
    "FileIO": "streamline.io.file:FileIO",
    "GoogleCloudStorage": "streamline.io.google_cloud_storage:GoogleCloudStorage",
    "GoogleSheets": "streamline.io.google_sheets:GoogleSheets",
    "MongoDB": "streamline.io.mongodb:MongoDB",
    "S3": "streamline.io.s3:S3",
    **{provider.io.partition(":")[2]: provider.io for provider in PROVIDERS.values() if provider.io is not None},
}

__all__ = [
    "MSSQL",
    "S3",
    "AWSSecretLoader",
    "AzureBlobStorage",
    "BigQuery",
    "ConfigFileLoader",
    "ConfigKey",
    "DuckDB",
    "EnvironmentVariableLoader",
    "FileIO",
    "GoogleCloudStorage",
    "GoogleSheets",
    "MongoDB",
    "MySQL",
    "OracleDB",
    "Postgres",
    "Redshift",
    "SQLAlchemy",
    "SQLite",
    "Snowflake",
]


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load_object(_CLASSES[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *_CLASSES})
