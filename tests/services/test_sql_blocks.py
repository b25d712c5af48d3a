"""SQL blocks in PostgreSQL and MariaDB, and how they say that they cannot get in."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pytest

from streamline.blocks.sql import block as sql
from streamline.databases import postgres_copy
from streamline.databases.base import DatabaseError
from streamline.databases.registry import database
from tests.blocks.sql.provider_scenarios import ORDERS, Look, ProviderScenarios
from tests.blocks.sql.workshop import SqlProject
from tests.services.mariadb import MariaDBServer
from tests.services.postgres import PostgresServer


@pytest.fixture
def shop(tmp_path: Path) -> SqlProject:
    """A project with upstream data."""
    project = SqlProject(tmp_path / "shop")
    project.output("orders", ORDERS)
    return project


def postgres_profile(server: PostgresServer, database: str) -> dict[str, Any]:
    return {
        "POSTGRES_HOST": server.host,
        "POSTGRES_PORT": server.port,
        "POSTGRES_USER": server.user,
        "POSTGRES_PASSWORD": server.password,
        "POSTGRES_DB": database,
        "SQLALCHEMY_URL": server.url(database),
    }


def mariadb_profile(server: MariaDBServer, database: str) -> dict[str, Any]:
    return {
        "MYSQL_HOST": server.host,
        "MYSQL_PORT": server.port,
        "MYSQL_USER": server.user,
        "MYSQL_PASSWORD": server.password,
        "MYSQL_DATABASE": database,
        "SQLALCHEMY_URL": server.url(database),
    }


class TestPostgres(ProviderScenarios):
    """By our own connection, and by SQLAlchemy's."""

    @pytest.fixture(params=["postgres", "sqlalchemy"])
    def provider(
        self, request: pytest.FixtureRequest, shop: SqlProject, postgres_server: PostgresServer, postgres_database: str
    ) -> Iterator[str]:
        with postgres_server.database() as other:
            shop.profiles(
                default=postgres_profile(postgres_server, postgres_database),
                other=postgres_profile(postgres_server, other),
            )
            yield request.param

    @pytest.fixture
    def look(self, provider: str, postgres_server: PostgresServer, postgres_database: str) -> Look:
        def read(statement: str) -> list[Any]:
            with postgres_server.connect(postgres_database) as connection:
                cursor = connection.execute(statement)
                return cursor.fetchall() if cursor.description else []

        return Look(read, "select tablename from pg_tables where schemaname = 'public'")


class TestMariaDB(ProviderScenarios):
    """MySQL's protocol and rules: DDL that ends transactions."""

    @pytest.fixture
    def provider(self, shop: SqlProject, mariadb_server: MariaDBServer, mariadb_database: str) -> Iterator[str]:
        with mariadb_server.database() as other:
            shop.profiles(
                default=mariadb_profile(mariadb_server, mariadb_database), other=mariadb_profile(mariadb_server, other)
            )
            yield "mysql"

    @pytest.fixture
    def look(self, provider: str, mariadb_server: MariaDBServer, mariadb_database: str) -> Look:
        def read(statement: str) -> list[Any]:
            with mariadb_server.connect(mariadb_database) as connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())

        return Look(read, "select table_name from information_schema.tables where table_schema = database()")


@pytest.fixture
def postgres(shop: SqlProject, postgres_server: PostgresServer, postgres_database: str) -> PostgresServer:
    shop.profiles(default=postgres_profile(postgres_server, postgres_database))
    return postgres_server


@pytest.fixture
def mariadb(shop: SqlProject, mariadb_server: MariaDBServer, mariadb_database: str) -> MariaDBServer:
    shop.profiles(default=mariadb_profile(mariadb_server, mariadb_database))
    return mariadb_server


EVERY_TYPE = [
    {
        "yes": True,
        "small": np.uint8(255),
        "large": np.uint64(2**64 - 1),
        "price": Decimal("12.50"),
        "moment": pd.Timestamp("2024-01-02 03:04:05.123456+01:00"),
        "naive": pd.Timestamp("2024-01-02 03:04:05.123456"),
        "day": dt.date(2024, 1, 2),
        "data": b"\x00\xff",
        "id": uuid.UUID(int=5),
        "text": "a'b\"\\\t,é\n",
        "empty": "",
        "big": 2**53 + 1,
    },
    dict.fromkeys(("yes", "small", "large", "price", "moment", "naive", "day", "data", "id", "text", "empty", "big")),
]


def every_type() -> pd.DataFrame:
    frame = pd.DataFrame(EVERY_TYPE)
    return frame.assign(
        yes=frame["yes"].astype("boolean"),
        small=frame["small"].astype("UInt8"),
        large=pd.array([2**64 - 1, None], dtype="UInt64"),
        big=pd.array([2**53 + 1, None], dtype="Int64"),
    )


def types_that_come_back(shop: SqlProject, provider: str) -> dict[str, Any]:
    """The full row of every type, read through a database."""
    shop.output("up", every_type())
    rows = shop.rows("x", "select * from {{ df_1 }}", "up", data_provider=provider)
    first = next(row for row in rows if row["big"] is not None)
    assert {value for row in rows if row is not first for value in row.values()} == {None}
    return first


READ_BACK = {
    "yes": True,
    "small": 255,
    "large": Decimal(2**64 - 1),
    "price": Decimal("12.50"),
    "moment": dt.datetime(2024, 1, 2, 2, 4, 5, 123456, tzinfo=dt.UTC),
    "naive": dt.datetime(2024, 1, 2, 3, 4, 5, 123456),
    "day": dt.date(2024, 1, 2),
    "data": b"\x00\xff",
    "id": str(uuid.UUID(int=5)),
    "text": "a'b\"\\\t,é\n",
    "empty": "",
    "big": 2**53 + 1,
}


def test_types_go_through_postgres(shop: SqlProject, postgres: PostgresServer) -> None:
    assert types_that_come_back(shop, "postgres") == READ_BACK


def test_types_go_through_mariadb(shop: SqlProject, mariadb: MariaDBServer) -> None:
    assert types_that_come_back(shop, "mysql") == {**READ_BACK, "yes": 1, "large": 2**64 - 1}


def test_postgres_types_of_its_own(shop: SqlProject, postgres: PostgresServer) -> None:
    text = """\
        select array[1, null, 3] as numbers, array['a,b', '"', null]::text[] as texts, '{"a": [1]}'::jsonb as doc,
            '10.0.0.1'::inet as address, interval '1 day 2 seconds' as gap, 'NaN'::float8 as nan, null::int as nothing,
            sum(x::bigint) as total, int4range(1, 3) as span, row(1, 'a') as pair, time '01:02:03' as clock
        from generate_series(1, 3) x
        """
    (row,) = shop.rows("x", text, data_provider="postgres", use_raw_sql=True)
    assert np.isnan(row.pop("nan"))
    assert row == {
        "numbers": [1, None, 3],
        "texts": ["a,b", '"', None],
        "doc": '{"a": [1]}',
        "address": "10.0.0.1",
        "gap": dt.timedelta(days=1, seconds=2),
        "nothing": None,
        "total": Decimal(6),
        "span": "[1,3)",
        "pair": "(1,a)",
        "clock": dt.time(1, 2, 3),
    }


def test_values_that_are_easily_mistaken(shop: SqlProject, postgres: PostgresServer) -> None:
    keys = {"data_provider": "postgres", "use_raw_sql": True}
    text = """select null::text as a union all select '' union all select '\\.' union all select E'a\\n"b,'"""
    assert shop.rows("x", text, **keys) == [{"a": None}, {"a": ""}, {"a": "\\."}, {"a": 'a\n"b,'}]
    text = "set timezone = 'Asia/Kolkata'; select '1850-01-01 00:00+00'::timestamptz as a, 'NaN'::numeric(5, 2) as b"
    for extra in ("", "; create table t{} as select 1".format):
        (row,) = shop.rows("x", text + (extra if isinstance(extra, str) else extra("x")), **keys)
        assert row["a"] == dt.datetime(1850, 1, 1, tzinfo=dt.UTC)
        assert np.isnan(row["b"])
    shop.add("x", "select 'infinity'::timestamp as a", **keys)
    with pytest.raises(DatabaseError, match="timestamp too large"):
        shop.run("x")


def test_types_last_from_one_sql_block_to_another(shop: SqlProject, postgres: PostgresServer) -> None:
    text = """\
        select gen_random_uuid() as id, '{"a": 1}'::json as doc, now() as moment, 1.50::numeric(10, 2) as price,
            interval '1 day' as gap, '{1}'::int[] as list, 'x'::bytea as data, true as yes, 1::smallint as small
        """
    names = ["id", "doc", "moment", "price", "gap", "list", "data", "yes", "small"]
    shop.rows("first", text, data_provider="postgres", use_raw_sql=True)
    typed = f"select {', '.join(f'pg_typeof({name})::text as {name}' for name in names)} from {{{{ df_1 }}}}"
    assert shop.rows("second", typed, "first", data_provider="postgres") == [
        {
            "id": "uuid",
            "doc": "json",
            "moment": "timestamp with time zone",
            "price": "numeric",
            "gap": "interval",
            "list": "integer[]",
            "data": "bytea",
            "yes": "boolean",
            "small": "smallint",
        }
    ]
    assert shop.rows("third", "select typeof(id) as id, typeof(doc) as doc from {{ df_1 }}", "first") == [
        {"id": "UUID", "doc": "JSON"}
    ]


def test_nested_values_become_jsonb_and_arrays(shop: SqlProject, postgres: PostgresServer) -> None:
    shop.output("up", [{"tags": ["a", 'b"{}'], "doc": {"n": 1, "x": [1.5]}}, {"tags": [], "doc": None}])
    rows = shop.rows(
        "x",
        "select tags[1] as first, cardinality(tags) as n, doc->>'n' as inside from {{ df_1 }} order by 2 desc",
        "up",
        data_provider="postgres",
    )
    assert rows == [{"first": "a", "n": 2, "inside": "1"}, {"first": None, "n": 0, "inside": None}]


@pytest.mark.parametrize("provider", ["mysql", "sqlalchemy"])
def test_what_is_no_number_is_null_in_mariadb(
    shop: SqlProject, provider: str, mariadb_server: MariaDBServer, mariadb_database: str
) -> None:
    shop.profiles(default=mariadb_profile(mariadb_server, mariadb_database))
    shop.output("up", pa.table({"n": pa.array([1.5, float("nan"), float("inf"), None])}))
    rows = shop.rows("x", "select n from {{ df_1 }} order by n is null", "up", data_provider=provider)
    assert [row["n"] for row in rows] == [1.5, None, None, None]


def test_a_schema_is_made_and_found(shop: SqlProject, postgres: PostgresServer, postgres_database: str) -> None:
    keys = {"data_provider": "postgres", "data_provider_schema": "mart"}
    shop.rows("first", "select 1 as a", **keys)
    assert shop.rows("second", "select a from {{ df_1 }} union all select a + 1 from p_first", "first", **keys) == [
        {"a": 1},
        {"a": 2},
    ]
    with postgres.connect(postgres_database) as connection:
        assert connection.execute("select count(*) from mart.p_second").fetchone() == (2,)


def test_readers_see_the_old_table_until_the_new_one_is_whole(
    shop: SqlProject, postgres: PostgresServer, postgres_database: str
) -> None:
    keys = {"data_provider": "postgres", "data_provider_table": "t", "export_write_policy": "replace"}
    shop.rows("x", "select 1 as a", **keys)
    shop.add("x", "select count(*) as a from t, (select pg_sleep(0.1)) s", **keys)
    with postgres.connect(postgres_database) as connection:
        connection.autocommit = False
        connection.execute("select 1")
        shop.run("x")
        assert connection.execute("select a from t").fetchone() == (1,)
        assert connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (1,)


def test_a_reader_that_has_to_wait_finds_the_new_rows(
    shop: SqlProject, postgres: PostgresServer, postgres_database: str
) -> None:
    profile = postgres_profile(postgres, postgres_database)
    with (
        postgres.connect(postgres_database) as writer,
        postgres.connect(postgres_database) as watcher,
        database("postgres", profile) as reader,
        ThreadPoolExecutor(1) as pool,
    ):
        writer.execute("create table t as select 1 as a")
        writer.execute("begin; create table n as select 2 as a; drop table t; alter table n rename to t")
        rows = pool.submit(reader.query, "select a from t")
        while watcher.execute("select count(*) from pg_locks where not granted").fetchone() == (0,):
            time.sleep(0.01)  # it would stop this thread, too, if it blocked the interpreter
        writer.execute("commit")
        found = rows.result()
        assert found is not None
        assert found.to_pylist() == [{"a": 2}]


def test_a_table_is_not_replaced_between_its_description_and_its_rows(
    shop: SqlProject, postgres: PostgresServer, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        postgres.connect(postgres_database) as writer,
        database("postgres", postgres_profile(postgres, postgres_database)) as reader,
    ):
        writer.execute("create table t as select 1 as a; set lock_timeout = 50")

        def then_dropped(*args: Any) -> Any:
            found = postgres_copy.described(*args)
            with pytest.raises(psycopg.errors.LockNotAvailable):
                writer.execute("drop table t")
            return found

        monkeypatch.setattr("streamline.databases.postgres.described", then_dropped)
        found = reader.query("select a from t")
        assert found is not None
        assert found.to_pylist() == [{"a": 1}]
        assert not reader.in_transaction
        writer.execute("drop table t")


def test_a_table_that_a_view_needs_stays_and_gets_the_new_rows(
    shop: SqlProject, postgres: PostgresServer, postgres_database: str
) -> None:
    keys = {"data_provider": "postgres", "data_provider_table": "t", "export_write_policy": "replace"}
    shop.rows("x", "select 1 as a, 'one' as b", **keys)
    with postgres.connect(postgres_database) as connection:
        connection.execute("create view v as select b, a from t")
    assert shop.rows("x", "select 'two' as b, 2 as a", **keys) == [{"b": "two", "a": 2}]
    with postgres.connect(postgres_database) as connection:
        assert connection.execute("select a, b from v").fetchall() == [(2, "two")]
        assert connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall() == [("t",)]
    with pytest.raises(DatabaseError, match="cannot drop table t because other objects depend on it") as caught:
        shop.rows("x", "select 2.5 as a, 'b' as b", **keys)
    assert "its columns change" in str(caught.value.hint)
    with postgres.connect(postgres_database) as connection:
        assert connection.execute("select a from v").fetchall() == [(2,)]


def test_a_view_in_mariadb_is_not_replaced(shop: SqlProject, mariadb: MariaDBServer, mariadb_database: str) -> None:
    keys = {"data_provider": "mysql", "export_write_policy": "replace"}
    with mariadb.connect(mariadb_database) as connection, connection.cursor() as cursor:
        cursor.execute("create view v as select 1 as a")
    with pytest.raises(DatabaseError, match="v is a view, and cannot be replaced by a table"):
        shop.rows("x", "select 2 as a", data_provider_table="v", **keys)
    with mariadb.connect(mariadb_database) as connection, connection.cursor() as cursor:
        cursor.execute("show full tables")
        assert list(cursor.fetchall()) == [("v", "VIEW")]


@pytest.mark.parametrize("url", ["postgres", "mariadb"])
def test_a_per_cent_sign_in_a_name_by_sqlalchemy(
    shop: SqlProject,
    url: str,
    postgres_server: PostgresServer,
    postgres_database: str,
    mariadb_server: MariaDBServer,
    mariadb_database: str,
) -> None:
    both = {"postgres": postgres_server.url(postgres_database), "mariadb": mariadb_server.url(mariadb_database)}
    shop.profiles(default={"SQLALCHEMY_URL": both[url]})
    keys = {"data_provider": "sqlalchemy", "data_provider_table": "20%"}
    shop.output("up", [{"a%": 1}])
    for _ in range(2):
        shop.rows("x", "select * from {{ df_1 }}", "up", **keys)
    assert shop.rows("y", "select * from {{ df_1 }}", "x", data_provider="sqlalchemy") == [{"a%": 1}, {"a%": 1}]


def test_statements_that_stand_alone(shop: SqlProject, postgres: PostgresServer, postgres_database: str) -> None:
    keys = {"data_provider": "postgres", "use_raw_sql": True}
    shop.rows(
        "x", "create table t (a int); insert into t values (1); vacuum t; create index concurrently i on t (a)", **keys
    )
    text = """\
        create function twice(n int) returns int language plpgsql as $$
        begin
            return 2 * n;
        end;
        $$;
        create procedure add_two() language sql begin atomic insert into t values (2); insert into t values (3); end;
        call add_two();
        select sum(twice(a)) as s from t
        """
    assert shop.rows("y", text, **keys) == [{"s": 12}]


def test_a_transaction_that_is_never_committed(shop: SqlProject, postgres: PostgresServer) -> None:
    keys = {"data_provider": "postgres", "use_raw_sql": True}
    shop.rows("x", "create table t (a int)", **keys)
    shop.rows("x", "begin; insert into t values (1)", **keys)
    assert ["never committed" in text for text in shop.warned] == [True]
    assert shop.rows("y", "select * from t", **keys) == []


@pytest.mark.parametrize("provider", ["postgres", "mysql"])
@pytest.mark.parametrize("policy", ["append", "replace"])
def test_many_write_one_table_at_once(
    shop: SqlProject,
    provider: str,
    policy: str,
    postgres_server: PostgresServer,
    postgres_database: str,
    mariadb_server: MariaDBServer,
    mariadb_database: str,
) -> None:
    both = postgres_profile(postgres_server, postgres_database) | mariadb_profile(mariadb_server, mariadb_database)
    shop.profiles(default=both)
    shop.add("x", "select {{ n }} as a", data_provider=provider, export_write_policy=policy)
    calls = [shop.call("x", n=number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sql.run, calls))
    rows = shop.rows("y", "select a from p_x order by a", data_provider=provider, use_raw_sql=True)
    assert len(rows) == (8 if policy == "append" else 1)
    assert policy == "replace" or rows == [{"a": number} for number in range(8)]


def test_mariadb_procedures(shop: SqlProject, mariadb: MariaDBServer) -> None:
    text = """\
        create table t (a int);
        create procedure fill(n int) begin
            declare i int default 0;
            while i < n do insert into t values (i); set i = i + 1; end while;
        end;
        call fill(3); # three rows; no more
        select count(*) as n from t
        """
    assert shop.rows("x", text, data_provider="mariadb", use_raw_sql=True) == [{"n": 3}]


def test_a_wrong_password_names_the_profile(
    shop: SqlProject, postgres: PostgresServer, postgres_database: str, mariadb_server: MariaDBServer
) -> None:
    night = postgres_profile(postgres, postgres_database) | {"POSTGRES_PASSWORD": "wrong-one"}
    night |= mariadb_profile(mariadb_server, "mysql") | {"MYSQL_PASSWORD": "wrong-one"}
    night["SQLALCHEMY_URL"] = postgres.url(postgres_database).replace(postgres.password, "wrong-one")
    shop.profiles(night=night)
    for provider in ("postgres", "mysql", "sqlalchemy"):
        shop.add("x", "select 1 as a", data_provider=provider, data_provider_profile="night")
        with pytest.raises(DatabaseError, match=r"password authentication failed|Access denied") as caught:
            shop.run("x")
        assert caught.value.where == "io_config.yaml, profile 'night'"
        assert "wrong-one" not in str(caught.value)


def test_errors_of_postgres_name_the_line(shop: SqlProject, postgres: PostgresServer) -> None:
    for text in ("select 1 as a,\n  nope\nfrom {{ df_1 }}", "select 1;\nselect 'x'::int"):
        for raw in (False, True):
            shop.add("x", text, "orders", data_provider="postgres", use_raw_sql=raw)
            with pytest.raises(DatabaseError, match=r"PostgreSQL: (column|invalid)") as caught:
                shop.run("x")
            assert caught.value.where == "transformers/x.sql:2"


def test_writers_that_all_need_the_same_new_schema(postgres_server: PostgresServer, postgres_database: str) -> None:
    profile = postgres_profile(postgres_server, postgres_database)
    connections = [database("postgres", profile, origin="io_config.yaml", root=Path()) for _ in range(4)]
    together = Barrier(len(connections))

    def write(number: int, schema: str) -> None:
        together.wait(30)
        connections[number].write(pa.table({"id": [number]}), f"table_{number}", schema)

    with ThreadPoolExecutor(len(connections)) as pool:
        for round_ in range(10):
            list(pool.map(write, range(len(connections)), [f"schema_{round_}"] * len(connections)))
    for connection in connections:
        connection.close()
