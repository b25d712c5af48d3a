"""SQL in DuckDB and SQLite files."""

from __future__ import annotations

import sqlite3
from typing import Any

import duckdb
import pandas as pd
import pytest

from streamline.databases.base import DatabaseError
from streamline.errors import ConfigError, StreamlineError
from tests.blocks.sql.provider_scenarios import ORDERS, Look, ProviderScenarios
from tests.blocks.sql.workshop import SqlProject

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
    shop.output("orders", ORDERS)
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
            rows = connection.execute(query).fetchall()
            connection.commit()
            return rows
        finally:
            connection.close()

    duck = provider == "duckdb"
    return Look(read, "select table_name from information_schema.tables" if duck else "select name from sqlite_master")


class TestFiles(ProviderScenarios):
    """DuckDB, SQLite, and SQLite by SQLAlchemy."""


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

    from streamline.databases import duckdb_lock as waiting

    shop.profiles(default={"DUCKDB_DATABASE": "w.duckdb"})
    shop.add("x", "select 1 as a", data_provider="duckdb")
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(shop.root / "w.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"open\n"
        monkeypatch.setattr(waiting, "SECONDS", 0.1)
        with pytest.raises(DatabaseError, match=r"another process \(PID \d+\) has .*w\.duckdb open"):
            shop.run("x")
        monkeypatch.setattr(waiting, "SECONDS", 60)
        monkeypatch.setattr("time.sleep", lambda _: (other.stdin.close(), other.wait()))
        assert shop.run("x")["a"].tolist() == [1]


def test_without_io_config_duckdb_is_the_embedded_one(shop: SqlProject) -> None:
    assert shop.rows("x", "select 1 as a", data_provider="duckdb") == [{"a": 1}]
    with pytest.raises(ConfigError, match=r"there is no io_config.yaml with the connection settings of sqlite"):
        shop.rows("x", "select 1 as a", data_provider="sqlite")
