"""Enumerations of the reference product, whose members are compared with plain text."""

from __future__ import annotations

from enum import StrEnum

PIPELINES_FOLDER = "pipelines"
PIPELINE_CONFIG_FILE = REPO_CONFIG_FILE = "metadata.yaml"
QUERY_ROW_LIMIT = 10_000_000
UNIQUE_CONFLICT_METHOD_IGNORE = "IGNORE"
UNIQUE_CONFLICT_METHOD_UPDATE = "UPDATE"


class BlockLanguage(StrEnum):
    """Languages of blocks."""

    MARKDOWN = "markdown"
    PYTHON = "python"
    R = "r"
    SQL = "sql"
    YAML = "yaml"


class BlockStatus(StrEnum):
    """What the reference product notes in a block's entry."""

    EXECUTED = "executed"
    FAILED = "failed"
    NOT_EXECUTED = "not_executed"
    UPDATED = "updated"


class BlockType(StrEnum):
    """Types of blocks; Streamline runs those that `streamline.pipeline.model.FOLDERS` lists."""

    CALLBACK = "callback"
    CONDITIONAL = "conditional"
    CHART = "chart"
    CUSTOM = "custom"
    DATA_EXPORTER = "data_exporter"
    DATA_LOADER = "data_loader"
    DBT = "dbt"
    DYNAMIC_CHILD = "dynamic_child"
    EXTENSION = "extension"
    GLOBAL_DATA_PRODUCT = "global_data_product"
    HOOK = "hook"
    MARKDOWN = "markdown"
    SCRATCHPAD = "scratchpad"
    SENSOR = "sensor"
    TRANSFORMER = "transformer"
    GROUP = "group"
    PIPELINE = "pipeline"


class CallbackStatus(StrEnum):
    """What a callback can be for."""

    CANCELLED = "cancelled"
    FAILURE = "failure"
    SUCCESS = "success"


class ExecutorType(StrEnum):
    """Where the reference product runs blocks."""

    AZURE_CONTAINER_INSTANCE = "azure_container_instance"
    ECS = "ecs"
    GCP_CLOUD_RUN = "gcp_cloud_run"
    K8S = "k8s"
    LOCAL_PYTHON = "local_python"
    LOCAL_PYTHON_FORCE = "local_python_force"
    PYSPARK = "pyspark"


class ScheduleStatus(StrEnum):
    """Whether a trigger is on."""

    ACTIVE = "active"
    INACTIVE = "inactive"


class ScheduleType(StrEnum):
    """What a trigger waits for."""

    API = "api"
    EVENT = "event"
    TIME = "time"


class DataSource(StrEnum):
    """Systems that `mage_ai.io` has classes for."""

    AIRTABLE = "airtable"
    ALGOLIA = "algolia"
    API = "api"
    BIGQUERY = "bigquery"
    CHROMA = "chroma"
    CLICKHOUSE = "clickhouse"
    DRUID = "druid"
    DUCKDB = "duckdb"
    FILE = "file"
    GOOGLE_CLOUD_STORAGE = "google_cloud_storage"
    GOOGLE_SHEETS = "google_sheets"
    KAFKA = "kafka"
    MYSQL = "mysql"
    MSSQL = "sqlserver"
    OPENSEARCH = "opensearch"
    PINOT = "pinot"
    POSTGRES = "postgres"
    QDRANT = "qdrant"
    REDSHIFT = "redshift"
    S3 = "s3"
    SNOWFLAKE = "snowflake"
    SPARK = "spark"
    TRINO = "trino"
    WEAVIATE = "weaviate"


class ExportWritePolicy(StrEnum):
    """What an export does with a table that exists."""

    APPEND = "append"
    FAIL = "fail"
    REPLACE = "replace"


class ScheduleInterval(StrEnum):
    """How often a trigger fires, apart from cron expressions."""

    ONCE = "@once"
    HOURLY = "@hourly"
    DAILY = "@daily"
    WEEKLY = "@weekly"
    MONTHLY = "@monthly"
    ALWAYS_ON = "@always_on"


BLOCK_LANGUAGE_TO_FILE_EXTENSION = {
    BlockLanguage.MARKDOWN: "md",
    BlockLanguage.PYTHON: "py",
    BlockLanguage.R: "r",
    BlockLanguage.SQL: "sql",
    BlockLanguage.YAML: "yaml",
}
FILE_EXTENSION_TO_BLOCK_LANGUAGE = {suffix: language for language, suffix in BLOCK_LANGUAGE_TO_FILE_EXTENSION.items()}
CALLBACK_STATUSES = list(CallbackStatus)
