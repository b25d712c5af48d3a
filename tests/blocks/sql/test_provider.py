"""SQL in DuckDB and SQLite files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import duckdb
import pandas as pd
import pytest

from streamline.errors import ConfigError, StreamlineError
from streamline.io.connect import DatabaseError, TableExists
from tests.blocks.sql.workshop import SqlProject

Look = Callable[[str], list[Any]]
PROVIDERS = ["duckdb", "sqlite", "sqlalchemy"]


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest, shop: SqlProject) -> str:
    shop.profiles(
        default={
            "DUCKDB_DATABASE": "shop.duckdb",
            "SQLITE_DATABASE": "shop.sqlite",
            "SQLALCHEMY_URL": "sqlite:///shop.sqlite",
        },
        other={
            "DUCKDB_DATABASE": "other.duckdb",
            "SQLITE_DATABASE": "other.sqlite",
            "SQLALCHEMY_URL": "sqlite:///o.db",
        },
    )
    shop.output("orders", pd.DataFrame({"id": [1, 2, 3], "total": [10, 20, None]}))
    name: str = request.param
    return name


@pytest.fixture
def look(provider: str, shop: SqlProject) -> Look:
    """Reads the database as somebody else would."""

    def read(query: str) -> list[Any]:
        if provider == "duckdb":
            with duckdb.connect(str(shop.root / "shop.duckdb")) as connection:
                return connection.execute(query).fetchall()
        connection = sqlite3.connect(shop.root / "shop.sqlite")
        try:
            found = connection.execute(query).fetchall()
            connection.commit()
            return found
        finally:
            connection.close()

    return read


def test_the_last_select_is_written_and_is_the_output(shop: SqlProject, provider: str, look: Look) -> None:
    text = "select id, total * 2 as twice from {{ df_1 }} where total is not null order by id"
    rows = shop.rows("double", text, "orders", data_provider=provider)
    assert rows == [{"id": 1, "twice": 20}, {"id": 2, "twice": 40}]
    assert look("select * from p_double order by id") == [(1, 20), (2, 40)]
    assert shop.logged == ["2 rows written to p_double (append)"] or provider == "duckdb"


def test_policies(shop: SqlProject, provider: str, look: Look) -> None:
    keys = {"data_provider": provider, "data_provider_table": "t"}
    shop.rows("x", "select 1 as a", **keys)
    assert shop.rows("x", "select 2 as a", **keys) == [{"a": 2}]  # append: the output is what the SELECT gave
    assert look("select a from t order by a") == [(1,), (2,)]
    shop.rows("x", "select sum(a) as a, 'x' as b from t", **keys, export_write_policy="replace")
    assert look("select * from t") == [(3, "x")]
    with pytest.raises(TableExists, match="the table t exists, and the write policy is 'fail'"):
        shop.rows("x", "select 1 as a", **keys, export_write_policy="fail")
    assert look("select * from t") == [(3, "x")]
    shop.rows("x", "select 1 as a", **keys | {"data_provider_table": "fresh"}, export_write_policy="fail")
    assert look("select * from fresh") == [(1,)]


def test_a_failed_replace_leaves_the_old_table(shop: SqlProject, provider: str, look: Look) -> None:
    keys = {"data_provider": provider, "data_provider_table": "t", "export_write_policy": "replace"}
    shop.rows("x", "select 1 as a", **keys)
    with pytest.raises(StreamlineError):
        shop.rows("x", "select 2 as a; select nope from t; ", **keys)
    with pytest.raises(StreamlineError):
        shop.rows("x", "select 2 as a; nonsense", **keys)
    assert look("select * from t") == [(1,)]
    tables = (
        "select count(*) from information_schema.tables"
        if provider == "duckdb"
        else "select count(*) from sqlite_master"
    )
    assert look(tables) == [(1,)]


def test_statements_around_the_select_share_its_transaction(shop: SqlProject, provider: str, look: Look) -> None:
    keys = {"data_provider": provider, "data_provider_table": "t"}
    shop.rows("x", "create table log (a int)", **keys, use_raw_sql=True)
    shop.rows("x", "insert into log values (1); select 5 as a; insert into log values (2)", **keys)
    assert look("select a from log order by a") == [(1,), (2,)]
    with pytest.raises(DatabaseError):
        shop.rows("x", "insert into log values (3); select 6 as a; insert into nowhere values (2)", **keys)
    assert look("select count(*) from log") == [(2,)]
    assert look("select a from t") == [(5,)]


def test_columns_are_matched_by_name(shop: SqlProject, provider: str, look: Look) -> None:
    keys = {"data_provider": provider, "data_provider_table": "t"}
    shop.rows("x", "select 1 as a, 'x' as b", **keys)
    shop.rows("x", "select 'y' as b, 2 as a", **keys)
    assert look("select a, b from t order by a") == [(1, "x"), (2, "y")]
    with pytest.raises(DatabaseError, match="the table t has no column 'c'") as caught:
        shop.rows("x", "\nselect 1 as c", **keys)
    assert caught.value.where == "transformers/x.sql:2"


def test_raw_statements_run_as_they_are(shop: SqlProject, provider: str, look: Look) -> None:
    text = """\
        create table t (a int);
        insert into t select id from {{ df_1 }};
        select count(*) as n from t;
        update t set a = a + 1;
        """
    assert shop.rows("x", text, "orders", data_provider=provider, use_raw_sql=True) == [{"n": 3}]
    assert look("select a from t order by a") == [(2,), (3,), (4,)]


def test_raw_statements_are_one_transaction(shop: SqlProject, provider: str, look: Look) -> None:
    keys = {"data_provider": provider, "use_raw_sql": True}
    shop.rows("x", "create table t (a int); insert into t values (1)", **keys)
    with pytest.raises(DatabaseError):
        shop.rows("x", "delete from t; insert into nowhere values (1)", **keys)
    assert look("select a from t") == [(1,)]


def test_a_transaction_of_the_users_own(shop: SqlProject, provider: str, look: Look) -> None:
    keys = {"data_provider": provider, "use_raw_sql": True}
    shop.rows("x", "create table t (a int)", **keys)
    shop.rows(
        "x", "begin; insert into t values (1); commit; begin; insert into t values (2); rollback; select 1", **keys
    )
    assert look("select a from t") == [(1,)]


def test_upstream_sql_in_the_same_database_is_its_table(shop: SqlProject, provider: str, look: Look) -> None:
    keys = {"data_provider": provider}
    shop.rows("first", "select 1 as a", **keys)
    look("insert into p_first values (41)")
    assert shop.rows("second", "select sum(a) as s from {{ df_1 }}", "first", **keys) == [{"s": 42}]


def test_upstream_sql_in_another_database_is_its_output(shop: SqlProject, provider: str, look: Look) -> None:
    shop.rows("first", "select 7 as a", data_provider=provider, data_provider_profile="other")
    assert shop.rows("second", "select a from {{ df_1 }}", "first", data_provider=provider) == [{"a": 7}]
    shop.rows("raw", "select 8 as a", data_provider=provider, use_raw_sql=True)
    assert shop.rows("third", "select a from {{ df_1 }}", "raw", data_provider=provider) == [{"a": 8}]


def test_nothing_of_upstream_data_is_left(shop: SqlProject, provider: str, look: Look) -> None:
    shop.rows("x", "select a.id from {{ df_1 }} a join {{ df_1 }} b using (id)", "orders", data_provider=provider)
    tables = (
        "select table_name from information_schema.tables" if provider == "duckdb" else "select name from sqlite_master"
    )
    assert look(tables) == [("p_x",)]


def test_upstream_data_in_a_table_with_a_name(shop: SqlProject, provider: str, look: Look) -> None:
    shop.rows(
        "x",
        "select count(*) as n from {{ df_1 }}",
        "orders",
        data_provider=provider,
        upstream_block_configuration={"orders": {"table_name": "raw_orders"}},
    )
    assert look("select count(*) from raw_orders") == [(3,)]


def test_an_upstream_that_is_not_used_is_not_read(shop: SqlProject, provider: str, look: Look) -> None:
    shop.output("model", 42)
    assert shop.rows("x", "select count(*) as n from {{ df_1 }}", "orders", "model", data_provider=provider) == [
        {"n": 3}
    ]


def test_limits_count_for_the_output_alone(shop: SqlProject, provider: str, look: Look) -> None:
    keys = {"data_provider": provider, "limit_in_pipeline_run": 1, "limit": 2}
    assert shop.rows("x", "select id from {{ df_1 }} order by id", "orders", **keys) == [{"id": 1}]
    assert look("select count(*) from p_x") == [(3,)]


def test_errors_name_file_and_line(shop: SqlProject, provider: str) -> None:
    shop.add("x", "select 1 as a,\n  nope\nfrom {{ df_1 }}", "orders", data_provider=provider)
    with pytest.raises(DatabaseError, match="nope") as caught:
        shop.run("x")
    assert caught.value.where == "transformers/x.sql:2"


def test_percent_and_colon_signs_are_nothing_special(shop: SqlProject, provider: str) -> None:
    text = "select '5% %s :a' as a where 'abc' like 'a%'"
    assert shop.rows("x", text, data_provider=provider) == [{"a": "5% %s :a"}]


def test_an_exporter_writes_into_the_profiles_duckdb_file(shop: SqlProject) -> None:
    shop.profiles(default={"DUCKDB_DATABASE": "warehouse.duckdb"})
    shop.output("orders", pd.DataFrame({"id": [1, 2]}))
    shop.add("out", "select * from orders", "orders", type="data_exporter", data_provider="duckdb")
    shop.run("out")
    with duckdb.connect(str(shop.root / "warehouse.duckdb")) as connection:
        assert connection.execute("select * from p_out").fetchall() == [(1,), (2,)]


def test_a_table_of_the_database_is_meant_before_an_upstream_of_its_name(shop: SqlProject) -> None:
    shop.profiles(default={"DUCKDB_DATABASE": "warehouse.duckdb"})
    with duckdb.connect(str(shop.root / "warehouse.duckdb")) as connection:
        connection.execute("create table orders as select 99 as id")
    shop.output("orders", pd.DataFrame({"id": [1]}))
    rows = shop.rows(
        "x",
        "select o.id as a, u.id as b from orders o, {{ df_1 }} u",
        "orders",
        data_provider="duckdb",
        use_raw_sql=True,
    )
    assert rows == [{"a": 99, "b": 1}]


def test_a_schema_is_made(shop: SqlProject) -> None:
    shop.profiles(default={"DUCKDB_DATABASE": "w.duckdb"})
    shop.rows("x", "select 1 as a", data_provider="duckdb", data_provider_schema="mart", data_provider_table="t")
    shop.rows("x", "select 2 as a", data_provider="duckdb", data_provider_table="mart.t")
    with duckdb.connect(str(shop.root / "w.duckdb")) as connection:
        assert connection.execute("select a from mart.t order by a").fetchall() == [(1,), (2,)]


def test_exact_decimals_in_sqlite(shop: SqlProject) -> None:
    shop.profiles(default={"SQLITE_DATABASE": "s.db"})
    from decimal import Decimal

    shop.output("up", [{"d": Decimal("12345678901234567890.12"), "e": Decimal("1.10")}])
    rows = shop.rows("x", "select d, e, e > 1 as more from {{ df_1 }}", "up", data_provider="sqlite", use_raw_sql=True)
    assert rows == [{"d": Decimal("12345678901234567890.12"), "e": Decimal("1.10"), "more": 1}]


def test_unreachable_places(shop: SqlProject) -> None:
    shop.profiles(default={"SQLITE_DATABASE": "no/such/folder/s.db"})
    shop.add("x", "select 1 as a", data_provider="sqlite")
    with pytest.raises(StreamlineError, match=r"cannot open .*no/such/folder"):
        shop.run("x")


def test_a_file_that_another_process_writes_is_waited_for(shop: SqlProject, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    from streamline.io.databases import duckdb as ours

    shop.profiles(default={"DUCKDB_DATABASE": "w.duckdb"})
    shop.add("x", "select 1 as a", data_provider="duckdb")
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(shop.root / "w.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"open\n"
        monkeypatch.setattr(ours, "LOCK_SECONDS", 0.1)
        with pytest.raises(DatabaseError, match=r"another process has .*w\.duckdb open"):
            shop.run("x")
        monkeypatch.setattr(ours, "LOCK_SECONDS", 60)
        monkeypatch.setattr(ours.time, "sleep", lambda _: (other.stdin.close(), other.wait()))
        assert shop.run("x")["a"].tolist() == [1]


def test_without_io_config_duckdb_is_the_embedded_one(shop: SqlProject) -> None:
    assert shop.rows("x", "select 1 as a", data_provider="duckdb") == [{"a": 1}]
    with pytest.raises(ConfigError, match=r"there is no io_config.yaml, which says how to reach sqlite"):
        shop.rows("x", "select 1 as a", data_provider="sqlite")
