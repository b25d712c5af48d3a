"""SQL blocks on warehouses: which statements their clients are asked to run, by clients that only record them."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

from streamline.databases.base import DatabaseError
from streamline.errors import ConfigError
from streamline.io import bigquery, redshift, warehouse_database
from tests.blocks.sql.workshop import SqlProject
from tests.io.test_warehouses import ClientError, Connection, module, written

__all__ = ["written"]  # a fixture

PROFILE = {
    "SNOWFLAKE_ACCOUNT": "a",
    "SNOWFLAKE_USER": "u",
    "SNOWFLAKE_PASSWORD": "p",
    "SNOWFLAKE_DEFAULT_DB": "db",
    "SNOWFLAKE_DEFAULT_SCHEMA": "s",
    "REDSHIFT_DBNAME": "d",
    "REDSHIFT_HOST": "h",
    "REDSHIFT_TEMP_CRED_USER": "u",
    "REDSHIFT_TEMP_CRED_PASSWORD": "p",
    "REDSHIFT_SCHEMA": "s",
}


def plain(asked: list[str]) -> list[str]:
    """Statements on one line each, without the random part of names."""
    return [re.sub(r"_[0-9A-Fa-f]{8}(?=_(?:rows|ROWS))", "", " ".join(query.split())) for query in asked]


@pytest.fixture
def upstream(shop: SqlProject) -> SqlProject:
    shop.profiles(default=PROFILE)
    shop.output("up", pd.DataFrame({"id": [1, 2]}))
    return shop


def opened(connect: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> list[Connection]:
    connections: list[Connection] = []

    def connected(**settings: Any) -> Connection:
        connections.append(connect(**settings))
        return connections[-1]

    monkeypatch.setattr(f"{name}.connect", connected)
    return connections


def test_redshift(upstream: SqlProject, monkeypatch: pytest.MonkeyPatch) -> None:
    module("redshift_connector", monkeypatch, connect=Connection, Error=ClientError)
    connections = opened(Connection, monkeypatch, "redshift_connector")
    assert upstream.rows("x", "select id from {{ df_1 }}", "up", data_provider="redshift") == [{"N": 1}]
    assert plain(connections[0].asked) == [
        plain(connections[0].asked)[0],
        'CREATE TABLE "s"."_streamline_p_up_x" ("id" BIGINT)',
        'INSERT INTO "s"."_streamline_p_up_x" ("id") VALUES (%s), (%s)',
        "commit",
        plain(connections[0].asked)[4],
        'create table "s"."p_x_rows" as select id from "s"."_streamline_p_up_x"',
        'select * from "s"."p_x_rows"',
        plain(connections[0].asked)[7],
        'CREATE TABLE "s"."p_x" AS select * from "s"."p_x_rows"',
        'drop table if exists "s"."p_x_rows"',
        "commit",
        'drop table if exists "s"."_streamline_p_up_x"',
        "close",
    ]


def test_what_a_statement_before_the_select_did_is_undone_with_it(
    upstream: SqlProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    module("redshift_connector", monkeypatch, connect=Connection, Error=ClientError)
    connections = opened(Connection, monkeypatch, "redshift_connector")
    monkeypatch.setattr(redshift.Redshift, "write", _raise)
    with pytest.raises(DatabaseError):
        upstream.rows("x", "delete from old; select 1 as id", data_provider="redshift")
    asked = plain(connections[0].asked)
    assert asked[0] == "delete from old"
    assert asked[-2:] == ["rollback", "close"]
    assert "commit" not in asked


def _raise(*args: Any, **kwargs: Any) -> None:
    raise DatabaseError("no such thing")


@pytest.mark.parametrize("clean", [None, True])
def test_columns_of_upstream_data_in_projects_of_mage(
    upstream: SqlProject, written: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, clean: bool | None
) -> None:
    """Mage does not clean them on warehouses; Snowflake's stay in small letters."""
    (upstream.root / "streamline.yaml").write_text("name: shop\ncompat: mage\n")
    monkeypatch.setattr(warehouse_database, "in_mage_project", lambda: True)
    upstream.output("up", pd.DataFrame({"Boxes Shipped": [1], "name": ["a"]}))
    module("redshift_connector", monkeypatch, connect=Connection, Error=ClientError)
    connected = opened(Connection, monkeypatch, "redshift_connector")
    options = {} if clean is None else {"clean_columns": clean}
    upstream.rows("x", "select 1 as id from {{ df_1 }}", "up", data_provider="redshift", **options)
    declared = '"Boxes Shipped" BIGINT, "name"' if clean is None else '"boxes_shipped" BIGINT, "_name"'
    assert f'CREATE TABLE "s"."_streamline_p_up_x" ({declared} VARCHAR(65535))' in connected[0].asked
    opened(Connection, monkeypatch, "snowflake.connector")
    upstream.rows("x", "select 1 as id from {{ df_1 }}", "up", data_provider="snowflake", **options)
    columns = ["Boxes Shipped", "name"] if clean is None else ["boxes_shipped", "_name"]
    assert (written[0]["table"], written[0]["columns"]) == ("_STREAMLINE_P_UP_X", columns)


def test_snowflake_folds_names(
    upstream: SqlProject, written: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = opened(Connection, monkeypatch, "snowflake.connector")
    text = "select id from {{ df_1 }}"
    configuration = {"data_provider": "snowflake", "export_write_policy": "replace"}
    assert upstream.rows("x", text, "up", **configuration) == [{"N": 1}]
    assert written[0] | {"table": "_STREAMLINE_P_UP_X", "schema": "S", "columns": ["ID"]} == written[0]
    asked = plain(connections[0].asked)
    assert 'create table "S"."P_X_ROWS" as select id from "S"."_STREAMLINE_P_UP_X"' in asked
    assert 'CREATE TABLE "DB"."S"."P_X" AS select * from "S"."P_X_ROWS"' in asked
    assert asked[-3:] == ["commit", 'drop table if exists "S"."_STREAMLINE_P_UP_X"', "close"]


def test_long_integers_beside_nulls(
    upstream: SqlProject, written: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(Connection, monkeypatch, "snowflake.connector")
    rows = upstream.rows("x", "select id from long", data_provider="snowflake", use_raw_sql=True)
    assert rows == [{"N": 2**53 + 1}, {"N": None}]


@pytest.mark.parametrize(
    ("policy", "statement"),
    [
        ("append", 'insert into "S"."P_X" ("N") select * from "S"."P_X_ROWS"'),
        ("replace", 'CREATE OR REPLACE TABLE "DB"."S"."P_X" AS select * from "S"."P_X_ROWS"'),
    ],
)
def test_a_table_that_exists(
    policy: str, statement: str, upstream: SqlProject, written: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = type("There", (Connection,), {"__init__": _with_table})
    connections = opened(there, monkeypatch, "snowflake.connector")
    upstream.rows("x", "select 1 as n", data_provider="snowflake", export_write_policy=policy)
    assert statement in plain(connections[0].asked)


def _with_table(self: Connection, **settings: Any) -> None:
    Connection.__init__(self, **settings)
    self.answers = {"schemata": [(1,)], ".tables": [(1,)]}


class Recorded(bigquery.BigQuery):
    """BigQuery's class without its client."""

    asked: list[Any]

    @classmethod
    def with_config(cls, config: Any, **kwargs: Any) -> Recorded:
        return cls()

    def _connect(self) -> Any:
        return self

    @property
    def _client_errors(self) -> Any:
        return type("Errors", (), {"GoogleAPIError": ClientError})

    def _fetch(self, query: str, options: Any) -> pd.DataFrame:
        self.asked.append(query)
        return pd.DataFrame({"n": [1]})

    def _run(self, query: str, options: Any) -> None:
        self.asked.append(query)

    def table_exists(self, schema_name: str | None, table_name: str, database: str | None = None) -> bool:
        return False

    def export(self, df: Any, table_id: Any = None, database: Any = None, if_exists: Any = "", **options: Any) -> None:
        self.asked.append(f"{options['query_string'] or len(df)} > {database}.{table_id} ({if_exists})")

    def close(self) -> None:
        self.asked.append("close")


def test_bigquery(upstream: SqlProject, monkeypatch: pytest.MonkeyPatch) -> None:
    Recorded.asked = []
    monkeypatch.setattr(bigquery, "BigQuery", Recorded)
    where = {"data_provider_database": "mine", "data_provider_schema": "shop", "data_provider_table": "t"}
    text = "select id, '\\';' as q from {{ df_1 }} # a comment; no statement"
    assert upstream.rows("x", text, "up", data_provider="bigquery", **where) == [{"n": 1}]
    assert plain(Recorded.asked) == [
        "create schema if not exists `mine`.`shop`",
        "2 > mine.shop._streamline_p_up_x (replace)",
        "create schema if not exists `mine`.`shop`",
        "create table `mine`.`shop`.`t_rows` as select id, '\\';' as q from `mine`.`shop`.`_streamline_p_up_x`",
        "select * from `mine`.`shop`.`t_rows`",
        "select * from `mine`.`shop`.`t_rows` > mine.shop.t (append)",
        "drop table if exists `mine`.`shop`.`t_rows`",
        "drop table if exists `mine`.`shop`.`_streamline_p_up_x`",
        "close",
    ]
    with pytest.raises(ConfigError) as caught:
        upstream.rows("y", "select * from {{ df_1 }}", "up", data_provider="bigquery")
    assert caught.value.code == "sql.setting_invalid"
