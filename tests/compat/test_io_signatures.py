"""The arguments of the classes of `mage_ai.io`, in Mage's order: block files may give them by position."""

from __future__ import annotations

import importlib
import inspect

import pytest

_SQL = {
    "load": "query_string limit display_query verbose",
    "export": "df schema_name table_name if_exists index verbose allow_reserved_words auto_clean_name case_sensitive "
    "cascade_on_drop drop_table_on_replace overwrite_types query_string unique_conflict_method unique_constraints "
    "skip_semicolon_at_end",
    "execute": "query_string",
    "execute_queries": "queries query_variables commit fetch_query_at_indexes",
    "table_exists": "schema_name table_name",
    "sample": "schema table size",
}
_WORKSHEET = "sheet_url=None sheet_id=None sheet_name=None worksheet_name=None worksheet_position=0"
MAGE = {
    "postgres:Postgres": {**_SQL, "__init__": "dbname user password host port schema connection_method"},
    "mysql:MySQL": {**_SQL, "__init__": "database host password user port allow_local_infile verbose"},
    "duckdb:DuckDB": {**_SQL, "__init__": "database motherduck_token schema verbose"},
    "mssql:MSSQL": {**_SQL, "__init__": "database host password user authentication=None schema=None port=1433"},
    "oracledb:OracleDB": {
        **_SQL,
        "__init__": "user password host port service_name verbose=False mode=thin",
        "export": "df table_name if_exists=replace",
    },
    "mongodb:MongoDB": {
        "__init__": "connection_string=None host=None port=27017 user=None password=None database=None collection=None",
        "load": "collection=None query=None",
        "export": "data collection=None",
    },
    "google_sheets:GoogleSheets": {
        "fetch_sheet": "sheet_url=None sheet_id=None sheet_name=None",
        "fetch_worksheet": _WORKSHEET,
        "load": f"{_WORKSHEET} header_rows=1",
        "export": f"df {_WORKSHEET}",
        "exists": _WORKSHEET,
    },
    "bigquery:BigQuery": {
        "execute_queries": "queries query_variables fetch_query_at_indexes",
        "load": "query_string limit display_query verbose",
        "export": "df table_id=None database=None if_exists=replace overwrite_types=None query_string=None "
        "verbose=True unique_conflict_method=None unique_constraints=None write_disposition=None create_dataset=True",
        "execute": "query_string",
        "execute_query_raw": "query configuration=None",
        "with_config": "config",
        "with_credentials_file": "path_to_credentials",
        "with_credentials_object": "credentials",
        "sample": "schema table size",
    },
    "snowflake:Snowflake": {
        "execute_queries": "queries query_variables fetch_query_at_indexes",
        "load": "query_string limit display_query=None verbose=True database=None schema=None table_name=None "
        "full_table_name=None",
        "export": "df table_name=None database=None schema=None if_exists=append query_string=None "
        "unique_conflict_method=None unique_constraints=None verbose=True",
        "execute": "query_string",
        "with_config": "config database=None schema=None",
    },
    "redshift:Redshift": {
        "load": "query_string limit display_query=None verbose=True",
        "export": "df table_name=None schema=None schema_name=None if_exists=append index=False verbose=True "
        "query_string=None drop_table_on_replace=False cascade_on_drop=False create_schema=False overwrite_types=None",
        "execute": "query_string",
        "table_exists": "schema_name table_name",
        "with_config": "config database=None",
        "with_temporary_credentials": "database host user password port=5439",
        "with_iam": "cluster_identifier database db_user profile=default",
        "sample": "schema table size",
    },
    "file:FileIO": {"load": "filepath format file_directories", "export": "df filepath format"},
    "s3:S3": {"load": "bucket_name object_key format limit", "export": "data bucket_name object_key format"},
    "google_cloud_storage:GoogleCloudStorage": {
        "load": "bucket_name object_key",
        "export": "data bucket_name object_key",
    },
}


@pytest.mark.parametrize("home", MAGE)
def test_arguments_stand_in_mages_order(home: str) -> None:
    """Defaults are compared where the table has one."""
    module, _, name = home.partition(":")
    served = getattr(importlib.import_module(f"mage_ai.io.{module}"), name)
    for method, wanted in MAGE[home].items():
        parameters = inspect.signature(getattr(served, method)).parameters.values()
        shown = [f"{each.name}={each.default!s}" for each in parameters if each.name != "self"]
        words = wanted.split()
        pairs = zip(words, shown, strict=False)
        assert [given if "=" in word else given.partition("=")[0] for word, given in pairs] == words, method
