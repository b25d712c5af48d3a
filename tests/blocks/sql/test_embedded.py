"""SQL without a database: over the outputs of the upstream blocks, into a file."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamline.blocks.sql import block as sql
from streamline.errors import StreamlineError
from streamline.outputs.streams import StreamFiles, Streams
from tests.blocks.sql.workshop import SqlProject
from tests.support.failures import refuses

ORDERS = pd.DataFrame({"id": [1, 2, 3], "customer": ["ann", "bob", None], "total": [10.5, 2.0, 3.25]})


def test_the_example_of_the_documentation(shop: SqlProject) -> None:
    frame = pd.DataFrame(
        {"customer_id": [1, 1, 2], "amount": [5, 7, 9], "created_at": ["2024-02-01", "2023-01-01", "2024-03-01"]}
    )
    shop.output("orders", frame)
    rows = shop.rows(
        "by_customer",
        """\
        -- data_loader
        SELECT
            customer_id,
            SUM(amount) as total_spent,
            COUNT(*) as order_count
        FROM orders
        WHERE created_at >= '2024-01-01'
        GROUP BY customer_id
        ORDER BY customer_id
        """,
        "orders",
    )
    assert rows == [
        {"customer_id": 1, "total_spent": 5, "order_count": 1},
        {"customer_id": 2, "total_spent": 9, "order_count": 1},
    ]


@pytest.mark.parametrize("name", ["{{ df_1 }}", "{{df_1}}", "df_1", "orders", '"orders"', "{{ orders }}", "ORDERS"])
def test_an_upstream_is_a_table_by_each_of_its_names(shop: SqlProject, name: str) -> None:
    shop.output("orders", ORDERS)
    assert shop.rows("n", f"select count(*) as n from {name}", "orders") == [{"n": 3}]


def test_the_stream_of_a_source_block_is_a_table_several_are_none(shop: SqlProject, tmp_path: Path) -> None:
    def stream(name: str, number: int, *tables: pa.Table) -> StreamFiles:
        files = []
        for table in tables:
            files.append((tmp_path / f"{number}-{len(files)}.parquet", table.num_rows))
            pq.write_table(table, files[-1][0])
        return StreamFiles(stream={"stream": name}, columns=["id", "note"], files=files)

    same = pa.table({"id": [1], "note": ["a"]})
    shop.output("same", Streams(streams=[stream("orders", 0, same, same)]))
    assert shop.rows("a", "select count(*) as n, sum(id) as s from {{ df_1 }}", "same") == [{"n": 2, "s": 2}]
    shop.output("other", Streams(streams=[stream("orders", 1, same, pa.table({"id": [2]}))]))
    assert shop.rows("b", "select id, note from other order by id", "other") == [
        {"id": 1, "note": "a"},
        {"id": 2, "note": None},
    ]
    shop.output("both", Streams(streams=[stream("orders", 2, same), stream("people", 3)]))
    with refuses("output.not_a_table", "orders", "people"):
        shop.rows("c", "select * from {{ df_1 }}", "both")


def test_two_upstreams_join(shop: SqlProject) -> None:
    shop.output("orders", ORDERS)
    shop.output("regions", [{"customer": "ann", "region": "north"}])
    shop.add("j", "select o.id, r.region from {{ df_1 }} o join {{ df_2 }} r using (customer)", "orders", "regions")
    frame = shop.run("j")
    assert isinstance(frame, pd.DataFrame)
    assert frame.to_dict("records") == [{"id": 1, "region": "north"}]


@pytest.mark.parametrize(
    "value",
    [
        [{"a": 1}, {"a": 2}],
        {"a": [1, 2]},
        pl.DataFrame({"a": [1, 2]}),
        pa.table({"a": [1, 2]}),
        pd.DataFrame({"a": [1, 2]}, index=[7, 9]),
        pd.DataFrame({"a": [0, 1, 2]}).query("a > 0"),
    ],
    ids=["list of dicts", "dict of lists", "polars", "arrow", "index", "filtered"],
)
def test_whatever_is_a_table_is_one(shop: SqlProject, value: Any) -> None:
    shop.output("up", value)
    assert shop.rows("x", "select * from {{ df_1 }} order by a", "up") == [{"a": 1}, {"a": 2}]


def test_chunks_are_one_table(shop: SqlProject) -> None:
    shop.output("up", (pd.DataFrame({"a": [n]}) for n in range(3)))
    assert shop.rows("x", "select sum(a) as s, count(*) as n from up", "up") == [{"s": 3, "n": 3}]


def test_an_output_that_is_not_used_is_not_read(shop: SqlProject) -> None:
    shop.output("orders", ORDERS)
    shop.output("model", {"depth": 3})
    shop.add("n", "select count(*) as n from {{ df_1 }}", "orders", "model")
    call = shop.call("n")

    class Unreadable:
        uuid, type = "model", "data_loader"

    call.inputs = [call.inputs[0], Unreadable()]  # type: ignore[list-item]
    assert sql.run(call).rows == 1


def test_an_output_that_is_no_table_says_what_it_is(shop: SqlProject) -> None:
    shop.output("model", 42)
    shop.add("n", "select count(*) as n from {{ df_1 }}", "model")
    with refuses("output.not_a_table", "'model'") as caught:
        shop.run("n")
    assert caught.value.where == "transformers/n.sql"


def test_a_column_may_bear_the_name_of_an_upstream_that_is_no_table(shop: SqlProject) -> None:
    shop.output("total", 42)
    shop.output("orders", ORDERS)
    assert shop.rows("x", "select max(total) as m from {{ df_2 }}", "total", "orders") == [{"m": 10.5}]


def test_a_table_that_is_missing_because_its_output_is_none_says_so(shop: SqlProject) -> None:
    shop.output("total", 42)
    shop.add("x", "select * from total", "total")
    with pytest.raises(StreamlineError, match="the block cannot be one"):
        shop.run("x")


def test_several_statements(shop: SqlProject) -> None:
    shop.output("orders", ORDERS)
    rows = shop.rows(
        "x",
        """\
        create table big as select * from orders where total > 2.5;
        insert into big values (9, ';', 1); -- a comment; with a semicolon
        select count(*) as n from big;
        drop table big;
        """,
        "orders",
    )
    assert rows == [{"n": 3}]


def test_statements_without_rows_give_none(shop: SqlProject) -> None:
    shop.add("x", "create table t (a int); insert into t values (1)")
    assert shop.run("x") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from range(2) as t(n)", [{"n": 0}, {"n": 1}]),
        ("create table t as select 1 a, 2 b; pivot t on a using sum(b)", [{"1": 2}]),
        ("create table t (a int); insert into t values (4) returning a + 1 as b", [{"b": 5}]),
        ("create table t (a int); describe t", None),
        ("with x as (select 3 as a) select a from x", [{"a": 3}]),
        ("values (1)", [{"col0": 1}]),
        ("(select 1 as a)", [{"a": 1}]),
    ],
)
def test_the_last_statement_with_rows_is_the_output(shop: SqlProject, text: str, expected: Any) -> None:
    rows = shop.rows("x", text)
    assert rows == expected if expected is not None else rows[0]["column_name"] == "a"


def test_columns_of_one_name_are_numbered(shop: SqlProject) -> None:
    assert shop.rows("x", "select 1 as a, 2 as a, 3 as b") == [{"a": 1, "a_1": 2, "b": 3}]


def test_types_come_back(shop: SqlProject) -> None:
    rows = shop.rows(
        "x",
        """\
        select 255::utinyint as small, 18446744073709551615::ubigint as large, 12.50::decimal(10, 2) as price,
            timestamptz '2024-01-02 03:04:05+01' as moment, date '2024-01-02' as day, time '03:04:05' as clock,
            null::bigint as nothing, [1, null] as list, {'a': 1, 'b': 'x'} as record, '\\xAA\\x00'::blob as data,
            uuid '00000000-0000-0000-0000-000000000005' as id, '{"a": 1}'::json as doc, true as yes
        """,
    )
    assert rows == [
        {
            "small": 255,
            "large": 2**64 - 1,
            "price": Decimal("12.50"),
            "moment": dt.datetime(2024, 1, 2, 2, 4, 5, tzinfo=dt.UTC),
            "day": dt.date(2024, 1, 2),
            "clock": dt.time(3, 4, 5),
            "nothing": None,
            "list": [1, None],
            "record": {"a": 1, "b": "x"},
            "data": b"\xaa\x00",
            "id": uuid.UUID(int=5),
            "doc": '{"a": 1}',
            "yes": True,
        }
    ]


def test_integers_beside_nulls_are_not_rounded_in_pandas(shop: SqlProject) -> None:
    shop.add(
        "x", f"select {2**53 + 1} as a, 1 as b, {{'n': {2**53 + 1}}} as c union all select null, 2, null order by b"
    )
    frame = shop.run("x")
    assert frame.dtypes.astype(str).to_dict() == {"a": "Int64", "b": "int32", "c": "object"}
    assert frame["a"].tolist() == [2**53 + 1, pd.NA]
    assert frame["c"].tolist() == [{"n": 2**53 + 1}, None]


def test_sums_of_integers_are_integers(shop: SqlProject) -> None:
    shop.output("up", pd.DataFrame({"a": [2**60 + 1, 2**60 + 2]}))
    assert shop.rows("x", "select sum(a) as s, [sum(a)] as l from up", "up") == [{"s": 2**61 + 3, "l": [2**61 + 3]}]
    frame = shop.value("x")
    assert frame["s"].dtype == "int64"


def test_sums_beyond_64_bits_are_exact(shop: SqlProject) -> None:
    shop.output("up", pd.DataFrame({"a": [2**62, 2**62, 2**62]}))
    assert shop.rows("x", "select sum(a) as s from up", "up") == [{"s": Decimal(3 * 2**62)}]


def test_intervals_are_durations(shop: SqlProject) -> None:
    rows = shop.rows("x", "select timestamp '2024-01-02' - timestamp '2024-01-01' as gap, 1 as a, 2 as a")
    assert rows == [{"gap": dt.timedelta(days=1), "a": 1, "a_1": 2}]


def test_limit_of_an_editor_means_nothing_in_a_run(shop: SqlProject) -> None:
    shop.output("orders", ORDERS)
    assert len(shop.rows("a", "select * from orders", "orders", limit=1)) == 3
    assert len(shop.rows("b", "select * from orders", "orders", limit_in_pipeline_run=2)) == 2
    assert len(shop.rows("c", "show tables", "orders", limit_in_pipeline_run=0)) == 0


def test_nothing_is_left_in_the_project(shop: SqlProject) -> None:
    shop.output("orders", ORDERS)
    before = {path for path in shop.root.rglob("*") if ".streamline" not in path.parts}
    shop.add("x", "set memory_limit = '60MB'; select a.i from range(3000000) a(i) order by hash(i)", "orders")
    sql.run(shop.call("x"))
    after = {path for path in shop.root.rglob("*") if ".streamline" not in path.parts}
    assert {path.parts[len(shop.root.parts)] for path in after - before} <= {"scratch0", "transformers", "pipelines"}


@pytest.mark.parametrize("provider", [{}, {"data_provider": "duckdb"}])
def test_a_frame_without_columns_is_no_table(shop: SqlProject, provider: dict[str, str]) -> None:
    shop.profiles(default={"DUCKDB_DATABASE": "w.duckdb"})
    shop.output("up", pd.DataFrame())
    with refuses("database.no_columns", "'up'"):
        shop.rows("x", "select * from {{ df_1 }}", "up", **provider)
