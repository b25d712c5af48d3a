"""What is said of SQL blocks before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.errors import ConfigError
from tests.blocks.sql.workshop import SqlProject
from tests.support.failures import refuses

PROFILES: dict[str, dict[str, Any]] = {
    "default": {
        "POSTGRES_DB": "shop",
        "POSTGRES_PASSWORD": '{{ env_var("NOT_SET_ANYWHERE") }}',
        "DUCKDB_DATABASE": "w.db",
    },
    "plain": {"POSTGRES_DBNAME": "shop", "SQLITE_DATABASE": "s.db", "SQLALCHEMY_URL": "sqlite://"},
    "empty": {"X": 1},
}


@pytest.mark.parametrize(
    ("text", "configuration", "code", "names"),
    [
        ("select 1", {"data_provider": "postgress"}, "database.unknown_provider", ("'postgress'", "'postgres'")),
        ("select 1", {"data_provider": "trino"}, "database.needs_sqlalchemy", ("'trino'", "SQLALCHEMY_URL")),
        ("select 1", {"data_provider": "snowflake"}, "profile.setting_missing", ("SNOWFLAKE_DEFAULT_DB",)),
        ("select 1", {"data_provider": "bigquery"}, "sql.setting_invalid", ("BigQuery", "data_provider_schema")),
        ("select 1", {"export_write_policy": "relpace"}, "export.unknown_write_policy", ("'relpace'", "'replace'")),
        (
            "select 1",
            {"export_write_polcy": "replace"},
            "sql.setting_invalid",
            ("'export_write_polcy'", "'export_write_policy'"),
        ),
        (
            "select 1",
            {"data_provider": "sqlite", "data_provider_profile": "pain"},
            "profile.not_found",
            ("'pain'", "'plain'"),
        ),
        ("select 1", {"data_provider": "sqlite"}, "profile.setting_missing", ("'default'", "SQLITE_DATABASE")),
        ("select 1", {"data_provider": "postgres"}, "environment_variable.not_set", ("NOT_SET_ANYWHERE",)),
        ("select 1", {"use_raw_sql": "maybe"}, "sql.setting_invalid", ("use_raw_sql", "'maybe'")),
        ("select 1", {"limit_in_pipeline_run": "many"}, "sql.setting_invalid", ("limit_in_pipeline_run", "'many'")),
        ("select * from {{ df_2 }}", {}, "block.not_upstream", ("df_2", "df_1 is up")),
        ("select {{ x", {}, "template.syntax", ()),
        (" -- nothing\n;", {}, "sql.empty", ()),
    ],
)
def test_what_cannot_be(
    shop: SqlProject, text: str, configuration: dict[str, Any], code: str, names: tuple[str, ...]
) -> None:
    shop.profiles(**PROFILES)
    shop.output("up", 1)
    shop.add("x", text, "up", **configuration)
    with refuses(code, *names) as caught:
        shop.check("x")
    assert caught.value.where is not None


def test_the_line_of_a_frame_that_is_not_there(shop: SqlProject) -> None:
    shop.add("x", "select 1\nfrom {{ df_1 }}")
    with pytest.raises(ConfigError) as caught:
        shop.check("x")
    assert caught.value.where == "transformers/x.sql:2"


@pytest.mark.parametrize(
    "configuration",
    [
        {},
        {"data_provider": "postgres", "data_provider_profile": "plain"},
        {"data_provider": "POSTGRES", "data_provider_profile": "{{ env_var('PROFILE', 'plain') }}"},
        {"data_provider": "postgres", "data_provider_profile": "{{ block_output('up', parse='lambda d: d') }}"},
        {"data_provider": "sqlalchemy", "data_provider_profile": "plain"},
        {"data_provider": "sqlite+pysqlite:///x.db", "data_provider_profile": "empty"},
        {"data_provider": "duckdb", "export_write_policy": "replace"},
        {"data_provider_profile": "default", "export_write_policy": "append", "use_raw_sql": False, "limit": 1000},
        {"data_provider": None, "data_provider_schema": "", "disable_query_preprocessing": False},
    ],
)
def test_what_can_be(shop: SqlProject, configuration: dict[str, Any]) -> None:
    shop.profiles(**PROFILES)
    shop.output("up", "plain")
    shop.add("x", "select {{ block_output('up', parse=lambda d, v: 1) }} from {{ df_1 }}", "up", **configuration)
    shop.check("x")


def test_an_exporter_to_a_duckdb_that_no_profile_names(shop: SqlProject) -> None:
    shop.profiles(**PROFILES)
    keys = {"data_provider": "duckdb", "data_provider_profile": "empty"}
    shop.add("x", "select 1 as a", type="data_exporter", **keys)
    with pytest.raises(ConfigError, match="the profile 'empty' has no DUCKDB_DATABASE"):
        shop.check("x")
    shop.add("y", "select 1 as a", **keys)
    shop.check("y")


def test_the_profile_may_come_from_an_upstream_block(shop: SqlProject) -> None:
    shop.profiles(default={"SQLITE_DATABASE": "a.db"}, night={"SQLITE_DATABASE": "b.db"})
    shop.add("x", "select 1 as a", data_provider="sqlite", data_provider_profile="{{ env_var('P', 'night') }}")
    shop.run("x")
    assert (shop.root / "b.db").exists()
    assert not (shop.root / "a.db").exists()


def test_the_older_nested_form_of_profiles(shop: SqlProject) -> None:
    shop.profiles(default={"PostgreSQL": {"database": "shop", "host": "h"}})
    shop.add("x", "select 1 as a", data_provider="postgres")
    shop.check("x")
