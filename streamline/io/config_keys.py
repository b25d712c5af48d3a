"""The names that settings go by in io_config.yaml, and where the older, nested form of a profile keeps them.

The names are Mage's, so that its files work; `POSTGRES_DB`, `SQLITE_DATABASE` and `SQLALCHEMY_URL` are additions.
"""

from __future__ import annotations

from enum import StrEnum

# Settings of Mage that nothing here reads, for block files that name them: what each name begins with, and the rest.
_FOR_BLOCK_FILES = """
    ALGOLIA: API_KEY APP_ID INDEX_NAME
    B2: APPLICATION_KEY APPLICATION_KEY_ID ENDPOINT_URL
    CHROMA: COLLECTION PATH
    CLICKHOUSE: DATABASE HOST INTERFACE PASSWORD PORT USERNAME
    DRUID: HOST PASSWORD PATH PORT SCHEME USER
    MONGODB: COLLECTION CONNECTION_STRING DATABASE HOST PASSWORD PORT USER
    MSSQL: AUTHENTICATION DATABASE DRIVER HOST PASSWORD PORT SCHEMA USER
    MYSQL: ALLOW_LOCAL_INFILE CONNECTION_METHOD
    ORACLEDB: HOST MODE PASSWORD PORT SERVICE USER
    PINOT: HOST PASSWORD PATH PORT SCHEME USER
    POSTGRES: SSH_HOST SSH_PASSWORD SSH_PKEY SSH_PORT SSH_USERNAME
    QDRANT: COLLECTION PATH
    SPARK: CLUSTER DRIVER ENDPOINT HOST METHOD ORGANIZATION PORT SCHEMA SERVER_SIDE_PARAMETERS TOKEN USER
    TRINO: CATALOG HOST PASSWORD PORT SCHEMA USER
    WEAVIATE: COLLECTION ENDPOINT INFERENCE_API_KEY INSTANCE_API_KEY
"""


def _named(text: str) -> list[str]:
    lines = [line.strip().partition(": ") for line in text.strip().splitlines()]
    return [f"{start}_{rest}" for start, _, rests in lines for rest in rests.split()]


class ConfigKey(StrEnum):
    """Settings of a profile, by system."""

    _ignore_ = "key"

    AIRTABLE_ACCESS_TOKEN = "AIRTABLE_ACCESS_TOKEN"
    AWS_ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID"
    AWS_ENDPOINT = "AWS_ENDPOINT"
    AWS_REGION = "AWS_REGION"
    AWS_SECRET_ACCESS_KEY = "AWS_SECRET_ACCESS_KEY"
    AWS_SESSION_TOKEN = "AWS_SESSION_TOKEN"
    AZURE_CLIENT_ID = "AZURE_CLIENT_ID"
    AZURE_CLIENT_SECRET = "AZURE_CLIENT_SECRET"
    AZURE_STORAGE_ACCOUNT_NAME = "AZURE_STORAGE_ACCOUNT_NAME"
    AZURE_TENANT_ID = "AZURE_TENANT_ID"
    DUCKDB_DATABASE = "DUCKDB_DATABASE"
    DUCKDB_SCHEMA = "DUCKDB_SCHEMA"
    GOOGLE_LOCATION = "GOOGLE_LOCATION"
    GOOGLE_SERVICE_ACC_KEY = "GOOGLE_SERVICE_ACC_KEY"
    GOOGLE_SERVICE_ACC_KEY_FILEPATH = "GOOGLE_SERVICE_ACC_KEY_FILEPATH"
    MOTHERDUCK_TOKEN = "MOTHERDUCK_TOKEN"
    MYSQL_DATABASE = "MYSQL_DATABASE"
    MYSQL_HOST = "MYSQL_HOST"
    MYSQL_PASSWORD = "MYSQL_PASSWORD"
    MYSQL_PORT = "MYSQL_PORT"
    MYSQL_USER = "MYSQL_USER"
    POSTGRES_CONNECTION_METHOD = "POSTGRES_CONNECTION_METHOD"
    POSTGRES_CONNECT_TIMEOUT = "POSTGRES_CONNECT_TIMEOUT"
    POSTGRES_DB = "POSTGRES_DB"
    POSTGRES_DBNAME = "POSTGRES_DBNAME"
    POSTGRES_HOST = "POSTGRES_HOST"
    POSTGRES_PASSWORD = "POSTGRES_PASSWORD"
    POSTGRES_PORT = "POSTGRES_PORT"
    POSTGRES_SCHEMA = "POSTGRES_SCHEMA"
    POSTGRES_USER = "POSTGRES_USER"
    REDSHIFT_CLUSTER_ID = "REDSHIFT_CLUSTER_ID"
    REDSHIFT_DBNAME = "REDSHIFT_DBNAME"
    REDSHIFT_DBUSER = "REDSHIFT_DBUSER"
    REDSHIFT_HOST = "REDSHIFT_HOST"
    REDSHIFT_IAM_PROFILE = "REDSHIFT_IAM_PROFILE"
    REDSHIFT_PORT = "REDSHIFT_PORT"
    REDSHIFT_SCHEMA = "REDSHIFT_SCHEMA"
    REDSHIFT_TEMP_CRED_PASSWORD = "REDSHIFT_TEMP_CRED_PASSWORD"
    REDSHIFT_TEMP_CRED_USER = "REDSHIFT_TEMP_CRED_USER"
    SNOWFLAKE_ACCOUNT = "SNOWFLAKE_ACCOUNT"
    SNOWFLAKE_DEFAULT_DB = "SNOWFLAKE_DEFAULT_DB"
    SNOWFLAKE_DEFAULT_SCHEMA = "SNOWFLAKE_DEFAULT_SCHEMA"
    SNOWFLAKE_DEFAULT_WH = "SNOWFLAKE_DEFAULT_WH"
    SNOWFLAKE_PASSWORD = "SNOWFLAKE_PASSWORD"
    SNOWFLAKE_PRIVATE_KEY_PASSPHRASE = "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE"
    SNOWFLAKE_PRIVATE_KEY_PATH = "SNOWFLAKE_PRIVATE_KEY_PATH"
    SNOWFLAKE_ROLE = "SNOWFLAKE_ROLE"
    SNOWFLAKE_TIMEOUT = "SNOWFLAKE_TIMEOUT"
    SNOWFLAKE_USER = "SNOWFLAKE_USER"
    SQLALCHEMY_URL = "SQLALCHEMY_URL"
    SQLITE_DATABASE = "SQLITE_DATABASE"

    for key in _named(_FOR_BLOCK_FILES):
        vars()[key] = key


class VerboseConfigKey(StrEnum):
    """The headings of the nested form: `PostgreSQL: {host: …}` for `POSTGRES_HOST: …`."""

    AIRTABLE = "Airtable"
    ALGOLIA = "Algolia"
    AWS = "AWS"
    BACKBLAZE_B2 = "Backblaze B2"
    BIGQUERY = "BigQuery"
    CHROMA = "Chroma"
    CLICKHOUSE = "ClickHouse"
    DRUID = "Druid"
    DUCKDB = "Duck DB"
    PINOT = "Pinot"
    POSTGRES = "PostgreSQL"
    QDRANT = "Qdrant"
    REDSHIFT = "Redshift"
    SNOWFLAKE = "Snowflake"
    SPARK = "Spark"
    WEAVIATE = "Weaviate"


# Headings, how the flat names begin, and settings that are called something else under the heading.
_NESTED: dict[str, tuple[str, dict[str, str]]] = {
    **{heading: (heading.upper(), {}) for heading in ("Airtable", "Algolia", "AWS", "Chroma", "ClickHouse", "Druid")},
    **{heading: (heading.upper(), {}) for heading in ("MySQL", "Pinot", "Qdrant", "Spark", "Weaviate")},
    "Backblaze B2": ("B2", {}),
    "BigQuery": (
        "GOOGLE",
        {"credentials_mapping": "SERVICE_ACC_KEY", "path_to_credentials": "SERVICE_ACC_KEY_FILEPATH"},
    ),
    "Duck DB": ("DUCKDB", {}),
    "DuckDB": ("DUCKDB", {}),
    "PostgreSQL": ("POSTGRES", {"database": "DBNAME"}),
    "Redshift": (
        "REDSHIFT",
        {
            "cluster_identifier": "CLUSTER_ID",
            "database": "DBNAME",
            "db_user": "DBUSER",
            "password": "TEMP_CRED_PASSWORD",
            "profile": "IAM_PROFILE",
            "user": "TEMP_CRED_USER",
        },
    ),
    "Snowflake": (
        "SNOWFLAKE",
        {"database": "DEFAULT_DB", "schema": "DEFAULT_SCHEMA", "warehouse": "DEFAULT_WH"},
    ),
}


def nested_settings(heading: str) -> dict[str, str] | None:
    """What the settings under a heading are called in the flat form; None if the heading is unknown."""
    if heading not in _NESTED:
        return None
    prefix, other = _NESTED[heading]
    start = f"{prefix}_"
    names = {key.removeprefix(start).lower(): key for key in map(str, ConfigKey) if key.startswith(start)}
    names |= {setting: f"{start}{rest}" for setting, rest in other.items()}
    if prefix == "DUCKDB":
        names["motherduck_token"] = str(ConfigKey.MOTHERDUCK_TOKEN)
    return names
