"""What block files and scripts import: connection profiles, files, databases, object stores.

Every class is imported when it is first named: `from streamline.io import ConfigFileLoader, Postgres`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamline.io.azure_blob_storage import AzureBlobStorage
    from streamline.io.bigquery import BigQuery
    from streamline.io.config import AWSSecretLoader, ConfigFileLoader, ConfigKey, EnvironmentVariableLoader
    from streamline.io.duckdb import DuckDB
    from streamline.io.file import FileIO
    from streamline.io.google_cloud_storage import GoogleCloudStorage
    from streamline.io.mysql import MySQL
    from streamline.io.postgres import Postgres
    from streamline.io.redshift import Redshift
    from streamline.io.s3 import S3
    from streamline.io.snowflake import Snowflake
    from streamline.io.sqlalchemy import SQLAlchemy
    from streamline.io.sqlite import SQLite

_MODULES = {
    "AWSSecretLoader": "config",
    "AzureBlobStorage": "azure_blob_storage",
    "BigQuery": "bigquery",
    "ConfigFileLoader": "config",
    "ConfigKey": "config",
    "DuckDB": "duckdb",
    "EnvironmentVariableLoader": "config",
    "FileIO": "file",
    "GoogleCloudStorage": "google_cloud_storage",
    "MySQL": "mysql",
    "Postgres": "postgres",
    "Redshift": "redshift",
    "S3": "s3",
    "SQLAlchemy": "sqlalchemy",
    "SQLite": "sqlite",
    "Snowflake": "snowflake",
}

__all__ = [
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
    "MySQL",
    "Postgres",
    "Redshift",
    "SQLAlchemy",
    "SQLite",
    "Snowflake",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
