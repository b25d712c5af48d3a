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
MAGE = {
    "postgres:Postgres": {**_SQL, "__init__": "dbname user password host port schema connection_method"},
    "mysql:MySQL": {**_SQL, "__init__": "database host password user port allow_local_infile verbose"},
    "duckdb:DuckDB": {**_SQL, "__init__": "database motherduck_token schema verbose"},
    "bigquery:BigQuery": {
        "execute_queries": "queries query_variables fetch_query_at_indexes",
        "load": "query_string limit display_query verbose",
        "export": "df table_id database if_exists overwrite_types query_string verbose unique_conflict_method "
        "unique_constraints",
        "sample": "schema table size",
    },
    "snowflake:Snowflake": {
        "execute_queries": "queries query_variables fetch_query_at_indexes",
        "load": "query_string limit display_query verbose",
        "export": "df table_name database schema if_exists query_string unique_conflict_method unique_constraints "
        "verbose",
    },
    "redshift:Redshift": {
        "export": "df table_name schema",
        "with_temporary_credentials": "database host user password port",
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
    module, _, name = home.partition(":")
    served = getattr(importlib.import_module(f"mage_ai.io.{module}"), name)
    for method, names in MAGE[home].items():
        parameters = [each for each in inspect.signature(getattr(served, method)).parameters if each != "self"]
        assert parameters[: len(names.split())] == names.split(), method
