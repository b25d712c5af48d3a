"""Which names of `mage_ai` are served, and by what.

The list began with the imports that Mage's templates and documents use, counted.
"""

from __future__ import annotations

from streamline.decorators import NAMES as DECORATORS
from streamline.project.suggest import words


def _all(home: str, names: str) -> dict[str, str]:
    return {name: f"{home}:{name}" for name in names.split()}


_ACTIONS = "streamline.compat.actions"
_CONSTANTS = "streamline.compat.constants"
_REPO = "streamline.compat.repo"
_SHARED = "streamline.compat.shared"
_STREAMING = "streamline.compat.streaming"
_VARIABLES = "streamline.compat.variables"
_VAULTS = "streamline.compat.vaults"

SERVED: dict[str, dict[str, str]] = {
    "mage_ai": {"run": "streamline.api:run"},
    # What block files import.
    "mage_ai.data_preparation.decorators": {
        **_all("streamline.decorators", " ".join((*DECORATORS, "on_success on_failure preprocesser"))),
        **_all(
            "streamline.compat.decorators",
            "extension data_source preprocesser_functions x y xy columns configuration render collect_decorated_objs",
        ),
    },
    "mage_ai.settings.repo": _all(
        _REPO, "get_repo_path set_repo_path get_repo_name get_data_dir get_variables_dir get_metadata_path"
    ),
    "mage_ai.data_preparation.repo_manager": _all(
        _REPO,
        "get_repo_path set_repo_path get_repo_name get_data_dir get_variables_dir get_project_uuid get_repo_config "
        "RepoConfig",
    ),
    "mage_ai.data_preparation.shared.secrets": _all(_REPO, "get_secret_value"),
    "mage_ai.data_preparation.variable_manager": _all(
        _VARIABLES,
        "get_variable get_global_variable get_global_variables set_global_variable delete_global_variable",
    ),
    "mage_ai.services.aws.secrets_manager.secrets_manager": {"get_secret": f"{_VAULTS}:aws_secret"},
    "mage_ai.services.azure.key_vault.key_vault": {"get_secret": f"{_VAULTS}:azure_secret"},
    "mage_ai.services.gcp.secret_manager.secret_manager": {"get_secret": f"{_VAULTS}:gcp_secret"},
    # Pipelines and their runs.
    "mage_ai.data_preparation.models.pipeline": _all("streamline.api", "Pipeline PipelineType"),
    "mage_ai.data_preparation.models.block": {"Block": "streamline.api:PipelineBlock"},
    "mage_ai.data_preparation.models.constants": {
        "PipelineType": "streamline.api:PipelineType",
        **_all(
            _CONSTANTS,
            "BlockLanguage BlockStatus BlockType CallbackStatus ExecutorType "
            "BLOCK_LANGUAGE_TO_FILE_EXTENSION FILE_EXTENSION_TO_BLOCK_LANGUAGE CALLBACK_STATUSES PIPELINES_FOLDER "
            "PIPELINE_CONFIG_FILE REPO_CONFIG_FILE",
        ),
    },
    "mage_ai.data_preparation.models.triggers": _all(_CONSTANTS, "ScheduleStatus ScheduleType ScheduleInterval"),
    "mage_ai.orchestration.triggers.api": _all("streamline.compat.runs", "trigger_pipeline"),
    "mage_ai.orchestration.run_status_checker": _all("streamline.compat.runs", "check_status"),
    # Input and output. The classes are those of streamline/io; these are beside them.
    "mage_ai.io.base": _all(_CONSTANTS, "DataSource ExportWritePolicy QUERY_ROW_LIMIT"),
    "mage_ai.io.constants": _all(_CONSTANTS, "UNIQUE_CONFLICT_METHOD_IGNORE UNIQUE_CONFLICT_METHOD_UPDATE"),
    # Streaming blocks.
    "mage_ai.streaming.sources.base": _all(_STREAMING, "BaseSource SourceConsumeMethod"),
    "mage_ai.streaming.sources.base_python": _all(_STREAMING, "BasePythonSource"),
    "mage_ai.streaming.sinks.base": _all(_STREAMING, "BaseSink"),
    "mage_ai.streaming.sinks.base_python": _all(_STREAMING, "BasePythonSink"),
    # Transformer actions.
    "mage_ai.data_cleaner.column_types.constants": _all(
        _ACTIONS + ".constants", "ColumnType CATEGORICAL_TYPES NUMBER_TYPES STRING_TYPES"
    ),
    "mage_ai.data_cleaner.column_types.column_type_detector": _all(
        _ACTIONS + ".column_types", "infer_column_types find_syntax_errors"
    ),
    "mage_ai.data_cleaner.transformer_actions.base": _all(_ACTIONS + ".action", "BaseAction"),
    "mage_ai.data_cleaner.transformer_actions.constants": _all(
        _ACTIONS + ".constants", "ActionType Axis ImputationStrategy Operator VariableType"
    ),
    "mage_ai.data_cleaner.transformer_actions.utils": {
        **_all(_ACTIONS + ".action", "build_action_variables build_transformer_action"),
        **_all(_ACTIONS + ".columns", "clean_column_name"),
    },
    # Helpers that block files borrow.
    "mage_ai.shared.array": _all(_SHARED, "batch difference find find_index flatten unique_by"),
    "mage_ai.shared.enum": _all("enum", "Enum IntEnum StrEnum"),
    "mage_ai.shared.environments": _all(_SHARED, "get_env is_debug is_dev is_prod is_test"),
    "mage_ai.shared.hash": _all(
        _SHARED,
        "dig extract flatten_dict get_json_value group_by ignore_keys ignore_keys_with_blank_values index_by "
        "merge_dict",
    ),
    "mage_ai.shared.parsers": _all(_SHARED, "convert_matrix_to_dataframe"),
    "mage_ai.shared.strings": _all(_SHARED, "camel_to_snake_case is_number"),
    "mage_ai.shared.utils": _all(_SHARED, "clean_name"),
}
"""What each module serves: name → `module:name`."""

IO = words(
    "azure_blob_storage base bigquery config duckdb file google_cloud_storage google_sheets mongodb mssql mysql "
    "oracledb postgres redshift s3 snowflake sqlite"
)
"""Modules of `mage_ai.io` whose classes are those of the module of that name in streamline/io, if there is one."""

_BY_URL = "streamline.io.SQLAlchemy reaches it by its SQLAlchemy URL"
_BY_CLIENT = "call the system's own client library"

REPLACEMENTS = {
    "mage_ai.services.hashicorp": "read Vault with its own client (hvac), or put secrets where `secret` finds them",
    "mage_ai.services": "Streamline has no clients of other services; call the service's own client library",
    "mage_ai.orchestration.db": (
        "runs are recorded in the project's state store; `check_status`, `streamline runs list --json` and "
        "`streamline runs show --json` look at them"
    ),
    "mage_ai.orchestration.airflow": "run `streamline run PIPELINE` from a BashOperator, or call mage_ai.run",
    "mage_ai.orchestration.pipeline_scheduler": "call `trigger_pipeline`, or run `streamline run PIPELINE` from cron",
    "mage_ai.data_preparation.variable_manager.VariableManager": "call `get_variable`, which reads stored outputs",
    "mage_ai.data_preparation.shared.secrets": (
        "only `get_secret_value` is; secrets are set as STREAMLINE_SECRET_<NAME> in the environment or in "
        ".streamline/secrets.yaml"
    ),
    "mage_ai.streaming.sources": (
        "only `base` and `base_python` are; name other sources in the block's YAML, or write a class under "
        "@streaming_source"
    ),
    "mage_ai.streaming.sinks": (
        "only `base` and `base_python` are; name other sinks in the block's YAML, or write a class under "
        "@streaming_sink"
    ),
    "mage_ai.data_integrations": "Singer taps and targets take their place: `streamline add source NAME`",
    "mage_ai.server": "Streamline has no server yet",
    "mage_ai.api": "Streamline has no server yet",
    "mage_ai.deployments": "call git itself",
    "mage_ai.data": "use pandas, Polars or pyarrow",
    "mage_ai.data_cleaner.transformer_actions.spark": "Streamline runs no Spark; pandas, Polars and DuckDB are there",
    **dict.fromkeys(
        (
            f"mage_ai.io.{name}"
            for name in words("clickhouse databricks_sql druid microsoft_fabric_warehouse pinot trino")
        ),
        _BY_URL,
    ),
    **dict.fromkeys(
        (f"mage_ai.io.{name}" for name in words("airtable algolia chroma power_bi qdrant weaviate")),
        _BY_CLIENT,
    ),
    "mage_ai.io.azure_data_lake_storage": "read and write abfs:// paths with pandas or pyarrow, by the package adlfs",
    "mage_ai.io.backblaze_b2": "streamline.io.S3 reaches it: set AWS_ENDPOINT to the bucket's S3 endpoint",
    "mage_ai.io.iceberg_s3": "call pyiceberg, or DuckDB's extension iceberg",
    "mage_ai.io.spark": "Streamline runs no Spark; pandas, Polars and DuckDB are there",
}
"""What to do instead, by the beginning of the name."""
