"""The names that settings go by in io_config.yaml, and where the older, nested form of a profile keeps them.

The names are Mage's, so that its files work; `POSTGRES_DB`, `SQLITE_DATABASE` and `SQLALCHEMY_URL` are additions.
"""

from __future__ import annotations

from enum import EnumType, StrEnum
from typing import TYPE_CHECKING

# What the names begin with, and the rest of each. Block files of Mage name some that nothing here reads.
_KEYS = """
    AIRTABLE: ACCESS_TOKEN
    ALGOLIA: API_KEY APP_ID INDEX_NAME
    AWS: ACCESS_KEY_ID ENDPOINT REGION SECRET_ACCESS_KEY SESSION_TOKEN
    AZURE: CLIENT_ID CLIENT_SECRET STORAGE_ACCOUNT_NAME TENANT_ID
    B2: APPLICATION_KEY APPLICATION_KEY_ID ENDPOINT_URL
    CHROMA: COLLECTION PATH
    CLICKHOUSE: DATABASE HOST INTERFACE PASSWORD PORT USERNAME
    DRUID: HOST PASSWORD PATH PORT SCHEME USER
    DUCKDB: DATABASE SCHEMA
    GOOGLE: LOCATION SERVICE_ACC_KEY SERVICE_ACC_KEY_FILEPATH
    MONGODB: COLLECTION CONNECTION_STRING DATABASE HOST PASSWORD PORT USER
    MOTHERDUCK: TOKEN
    MSSQL: AUTHENTICATION DATABASE DRIVER HOST PASSWORD PORT SCHEMA USER
    MYSQL: ALLOW_LOCAL_INFILE CONNECTION_METHOD DATABASE HOST PASSWORD PORT USER
    ORACLEDB: HOST MODE PASSWORD PORT SERVICE USER
    PINOT: HOST PASSWORD PATH PORT SCHEME USER
    POSTGRES: CONNECTION_METHOD CONNECT_TIMEOUT DB DBNAME HOST PASSWORD PORT SCHEMA SSH_HOST SSH_PASSWORD SSH_PKEY
        SSH_PORT SSH_USERNAME USER
    QDRANT: COLLECTION PATH
    REDSHIFT: CLUSTER_ID DBNAME DBUSER HOST IAM_PROFILE PORT SCHEMA TEMP_CRED_PASSWORD TEMP_CRED_USER
    SNOWFLAKE: ACCOUNT DEFAULT_DB DEFAULT_SCHEMA DEFAULT_WH PASSWORD PRIVATE_KEY_PASSPHRASE PRIVATE_KEY_PATH ROLE
        TIMEOUT USER
    SPARK: CLUSTER DRIVER ENDPOINT HOST METHOD ORGANIZATION PORT SCHEMA SERVER_SIDE_PARAMETERS TOKEN USER
    SQLALCHEMY: URL
    SQLITE: DATABASE
    TRINO: CATALOG HOST PASSWORD PORT SCHEMA USER
    WEAVIATE: COLLECTION ENDPOINT INFERENCE_API_KEY INSTANCE_API_KEY
"""


def _named(text: str) -> list[str]:
    names: list[str] = []
    start = ""
    for word in text.split():
        if word.endswith(":"):
            start = word.removesuffix(":")
        else:
            names.append(f"{start}_{word}")
    return names


class _Keys(EnumType):
    if TYPE_CHECKING:  # type checkers do not see the members

        def __getattr__(cls, name: str) -> ConfigKey: ...


class ConfigKey(StrEnum, metaclass=_Keys):
    """Settings of a profile. The value of a member is its name."""

    _ignore_ = "key"

    for key in _named(_KEYS):
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
    """Return what the settings under a heading are called in the flat form; None if the heading is unknown."""
    if heading not in _NESTED:
        return None
    prefix, other = _NESTED[heading]
    start = f"{prefix}_"
    names = {key.removeprefix(start).lower(): key for key in map(str, ConfigKey) if key.startswith(start)}
    names |= {setting: f"{start}{rest}" for setting, rest in other.items()}
    if prefix == "DUCKDB":
        names["motherduck_token"] = "MOTHERDUCK_TOKEN"
    return names
