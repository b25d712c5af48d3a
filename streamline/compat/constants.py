"""Enumerations of Mage, whose members are compared with plain text."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from streamline.io.base import ExportWritePolicy

__all__ = ["ExportWritePolicy"]

PIPELINES_FOLDER = "pipelines"
PIPELINE_CONFIG_FILE = REPO_CONFIG_FILE = "metadata.yaml"
QUERY_ROW_LIMIT = 10_000_000
UNIQUE_CONFLICT_METHOD_IGNORE = "IGNORE"
UNIQUE_CONFLICT_METHOD_UPDATE = "UPDATE"


def _enumeration(name: str, values: str, **others: str) -> Any:
    """An enumeration of these words, its members in capital letters, and of others whose names say less."""
    make: Any = StrEnum
    return make(name, {value.upper(): value for value in values.split()} | others, module=__name__)


BlockLanguage = _enumeration("BlockLanguage", "markdown python r sql yaml")
BlockStatus = _enumeration("BlockStatus", "executed failed not_executed updated")
BlockType = _enumeration(
    "BlockType",
    "callback conditional chart custom data_exporter data_loader dbt dynamic_child extension global_data_product hook "
    "markdown scratchpad sensor transformer group pipeline",
)
CallbackStatus = _enumeration("CallbackStatus", "cancelled failure success")
DataSource = _enumeration(
    "DataSource",
    "airtable algolia api bigquery chroma clickhouse druid duckdb file google_cloud_storage google_sheets kafka mysql "
    "opensearch pinot postgres qdrant redshift s3 snowflake spark trino weaviate",
    MSSQL="sqlserver",
)
ExecutorType = _enumeration(
    "ExecutorType", "azure_container_instance ecs gcp_cloud_run k8s local_python local_python_force pyspark"
)
ScheduleStatus = _enumeration("ScheduleStatus", "active inactive")
ScheduleType = _enumeration("ScheduleType", "api event time")
ScheduleInterval = _enumeration(
    "ScheduleInterval",
    "",
    ONCE="@once",
    HOURLY="@hourly",
    DAILY="@daily",
    WEEKLY="@weekly",
    MONTHLY="@monthly",
    ALWAYS_ON="@always_on",
)

BLOCK_LANGUAGE_TO_FILE_EXTENSION = {
    language: {"markdown": "md", "python": "py"}.get(language, str(language)) for language in BlockLanguage
}
FILE_EXTENSION_TO_BLOCK_LANGUAGE = {suffix: language for language, suffix in BLOCK_LANGUAGE_TO_FILE_EXTENSION.items()}
CALLBACK_STATUSES = list(CallbackStatus)
