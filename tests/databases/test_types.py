"""Tables written and read: what comes back is what went in, in DuckDB and SQLite."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.databases.base import DatabaseError
from streamline.databases.database import Database
from streamline.databases.registry import database

EVERYTHING = pa.table(
    {
        "int": pa.array([2**53 + 1, None, -(2**63)], pa.int64()),
        "tiny": pa.array([255, None, 0], pa.uint8()),
        "huge": pa.array([2**64 - 1, None, 0], pa.uint64()),
        "price": pa.array([Decimal("1.10"), None, Decimal("-99999.99")], pa.decimal128(18, 2)),
        "exact": pa.array([Decimal("12345678901234567890.123456"), None, Decimal(0)], pa.decimal128(38, 6)),
        "float": pa.array([1.5, None, float("inf")]),
        "text": pa.array(["a'b\"\\\n", "", None]),
        "bytes": pa.array([b"\x00\xff", None, b""]),
        "bool": pa.array([True, None, False]),
        "date": pa.array([dt.date(2024, 1, 2), None, dt.date(1, 1, 1)]),
        "naive": pa.array([dt.datetime(2024, 1, 2, 3, 4, 5, 6), None, dt.datetime(1969, 1, 1)], pa.timestamp("us")),
        "aware": pa.array([dt.datetime(2024, 1, 2, tzinfo=dt.UTC), None, None], pa.timestamp("us", "Europe/Berlin")),
        "time": pa.array([dt.time(1, 2, 3, 4), None, dt.time(0)], pa.time64("us")),
        "gap": pa.array([dt.timedelta(days=3, microseconds=5), None, dt.timedelta(0)], pa.duration("us")),
        "uuid": pa.array([uuid.UUID(int=5).bytes, None, None], pa.binary(16)).cast(pa.uuid()),
        "json": pa.array(['{"a": [1, 2]}', None, "1"]).cast(pa.json_()),
        "category": pa.array(["x", "y", None]).dictionary_encode(),
        "nothing": pa.nulls(3),
    }
)
NESTED = pa.table(
    {
        "list": pa.array([[1, None], None, []], pa.list_(pa.int32())),
        "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": None}]),
    }
)


@pytest.fixture(params=["duckdb", "sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    config = {"DUCKDB_DATABASE": "d.duckdb", "SQLITE_DATABASE": "s.sqlite"}
    with database(request.param, config, root=tmp_path) as one:
        yield one


def read(one: Database, name: str) -> pa.Table:
    rows = one.query(f"select * from {one.qualified(name)}")
    assert rows is not None
    return rows


@pytest.mark.parametrize("column", EVERYTHING.column_names)
def test_every_type_comes_back(opened: Database, column: str) -> None:
    table = EVERYTHING.select([column])
    assert opened.write(table, "t", if_exists="replace") == 3
    assert read(opened, "t").to_pydict() == table.to_pydict()


def test_types_of_empty_tables_come_back(opened: Database) -> None:
    table = EVERYTHING.drop_columns(["category", "nothing", "tiny", "aware"]).slice(0, 0)
    opened.write(table, "t")
    assert [field.type for field in read(opened, "t").schema] == [field.type for field in table.schema]


def test_duckdb_keeps_nested_values(tmp_path: Path) -> None:
    with database("duckdb", {"DUCKDB_DATABASE": ":memory:"}) as one:
        one.write(NESTED, "t")
        assert read(one, "t").to_pydict() == NESTED.to_pydict()


def test_sqlite_keeps_nested_values_as_json(tmp_path: Path) -> None:
    with database("sqlite", {"SQLITE_DATABASE": ":memory:"}) as one:
        one.write(NESTED, "t")
        assert read(one, "t").to_pydict() == {
            "list": ["[1, null]", None, "[]"],
            "struct": ['{"a": 1, "b": "x"}', None, '{"a": null, "b": null}'],
        }


def test_batches_are_written_one_by_one(opened: Database) -> None:
    table = EVERYTHING.select(["int", "text"])
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=1))
    assert opened.write(reader, "t") == 3
    assert read(opened, "t").to_pydict() == table.to_pydict()


def test_a_write_that_fails_changes_nothing(opened: Database) -> None:
    opened.write(pa.table({"a": [1]}), "t")

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"a": [2]})
        raise RuntimeError("the source broke")

    for policy in ("append", "replace"):
        reader = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), batches())
        with pytest.raises((RuntimeError, DatabaseError, pa.ArrowException)):
            opened.write(reader, "t", if_exists=policy)
        assert read(opened, "t").to_pydict() == {"a": [1]}
    assert opened.query("select 1 as a") is not None


def test_sqlite_views_and_triggers_on_a_replaced_table_stay(tmp_path: Path) -> None:
    with database("sqlite", {"SQLITE_DATABASE": ":memory:"}) as one:
        one.write(pa.table({"a": [1]}), "t")
        one.execute("create view v as select a from t")
        one.write(pa.table({"a": [2]}), "t", if_exists="replace")
        one.write_query("select a + 1 as a from t", "t", if_exists="replace")
        assert one.query("select * from v").to_pydict() == {"a": [3]}  # type: ignore[union-attr]


def test_values_of_sqlite_that_are_not_what_their_column_says() -> None:
    with database("sqlite", {"SQLITE_DATABASE": ":memory:"}) as one:
        one.execute("create table t (d date, b boolean, n integer, m)")
        one.execute("insert into t values ('2024-01-02', 1, 1, 1), ('soon', 7, 'x', null), (null, null, null, 2.5)")
        rows = one.query("select * from t")
        assert rows is not None
        assert rows.to_pydict() == {
            "d": ["2024-01-02", "soon", None],
            "b": [1, 7, None],
            "n": ["1", "x", None],
            "m": [1.0, None, 2.5],
        }


SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)).map(lambda values: pa.array(values, pa.int64())),
    st.lists(st.none() | st.floats(allow_nan=False)).map(lambda values: pa.array(values, pa.float64())),
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))).map(
        lambda values: pa.array(values, pa.string())
    ),
    st.lists(st.none() | st.binary()).map(lambda values: pa.array(values, pa.binary())),
    st.lists(st.none() | st.decimals(-(10**10), 10**10, places=3)).map(lambda v: pa.array(v, pa.decimal128(20, 3))),
    st.lists(st.none() | st.datetimes()).map(lambda values: pa.array(values, pa.timestamp("us"))),
    st.lists(st.none() | st.dates()).map(lambda values: pa.array(values, pa.date32())),
)


@given(SCALARS)
def test_any_column_comes_back(column: pa.Array) -> None:
    table = pa.table({"c": column})
    for provider in ("duckdb", "sqlite"):
        with database(provider, {"DUCKDB_DATABASE": ":memory:", "SQLITE_DATABASE": ":memory:"}) as one:
            one.write(table, "t")
            rows = read(one, "t")
            assert rows.to_pydict() == table.to_pydict()
            assert rows.schema.field("c").type == column.type


def test_a_table_without_columns_is_refused_in_words(opened: Database) -> None:
    with pytest.raises(DatabaseError, match="there are no columns to write"):
        opened.write(pa.table({}), "t")
    assert not opened.exists("t")


def test_intervals_by_sqlalchemy_keep_their_microseconds(tmp_path: Path) -> None:
    gaps = [dt.timedelta(days=40, microseconds=1), None, dt.timedelta(days=-1)]
    with database("sqlalchemy", {"SQLALCHEMY_URL": "sqlite:///s.db"}, root=tmp_path) as one:
        one.write(pa.table({"gap": pa.array(gaps, pa.duration("us"))}), "t")
        assert read(one, "t").column("gap").to_pylist() == [40 * 86_400_000_000 + 1, None, -86_400_000_000]
