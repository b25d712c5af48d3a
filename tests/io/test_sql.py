"""Databases as block files use them, on the two that need no server."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from streamline.databases.base import DatabaseError, TableExists
from streamline.errors import ConfigError
from streamline.io import ConfigFileLoader, DuckDB, SQLite
from streamline.io.sql import BaseSQL, limited
from streamline.io.table_export import clean_column, index_name, one_row_per_key

Open = Callable[[], BaseSQL]


@pytest.fixture(params=["duckdb", "sqlite"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    path = tmp_path / "io_config.yaml"
    path.write_text(f"default: {{DUCKDB_DATABASE: {tmp_path}/a.duckdb, SQLITE_DATABASE: {tmp_path}/a.db}}\n")
    kind = {"duckdb": DuckDB, "sqlite": SQLite}[request.param]
    return lambda: kind.with_config(ConfigFileLoader(path, "default"))


FRAME = pd.DataFrame({"id": [1, 2, 3], "name": ["Ann", "Bö", None], "total": [1.5, None, -2.0]})


def rows(connect: Open, query: str) -> list[dict[str, Any]]:
    with connect() as loader:
        records = loader.load(query).to_dict("records")
    return [{str(key): None if value != value else value for key, value in one.items()} for one in records]


def test_round_trip(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME, None, "orders", index=False, if_exists="replace")
        assert_frame_equal(loader.load("select * from orders order by id;"), FRAME, check_dtype=False)
        assert loader.load("select id, name from orders order by id desc", limit=1)["id"].to_list() == [3]
        assert len(loader.sample(None, "orders", 2)) == 2
        assert loader.table_exists(None, "orders")
        assert not loader.table_exists(None, "others")


def test_types_come_back(connect: Open) -> None:
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None], "Int64"),
            "big": pd.array([2**62 + 1, None], "Int64"),
            "flag": [True, False],
            "at": pd.to_datetime(["2024-02-29 12:30:01.000002", None]),
            "day": [datetime.date(2024, 2, 29), None],
            "price": [decimal.Decimal("12.34"), None],
            "kind": pd.Categorical(["a", None]),
            "tree": [{"a": [1, {"b": None}]}, None],
            "several": [[1, 2], None],
        }
    )
    with connect() as loader:
        loader.export(frame, table_name="t", if_exists="replace")
        got = loader.load("select * from t")
        assert got["whole"].to_list()[0] == 1
        assert got["whole"].dtype == float
        assert got["big"].to_list()[0] == 2**62 + 1
        assert got["flag"].to_list() == [True, False]
        assert got["at"][0] == pd.Timestamp("2024-02-29 12:30:01.000002")
        assert str(got["day"][0])[:10] == "2024-02-29"
        assert got["price"][0] == pytest.approx(12.34)
        assert got["kind"][0] == "a"
        assert got["tree"][0] == {"a": [1, {"b": None}]}
        assert got["several"][0] == [1, 2]
        assert loader.load("select price from t", coerce_float=False)["price"][0] == decimal.Decimal("12.34")


def test_policies(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME, None, "t", if_exists="append")
        loader.export(FRAME, None, "t", if_exists="append")
        assert len(loader.load("select * from t")) == 6
        loader.export(FRAME[:1], None, "t")
        assert len(loader.load("select * from t")) == 1
        with pytest.raises(TableExists, match="exists"):
            loader.export(FRAME, None, "t", if_exists="fail")
        with pytest.raises(ConfigError, match="if_exists='upsert'") as caught:
            loader.export(FRAME, None, "t", if_exists="upsert")
        assert caught.value.code == "export.unknown_write_policy"
        assert len(loader.load("select * from t")) == 1


def test_replace_keeps_a_table_of_the_same_columns_and_makes_another_anew(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME, None, "t", unique_constraints=["id"])
        loader.export(FRAME[:2], None, "t")
        with pytest.raises(DatabaseError):  # the index is still there
            loader.export(FRAME[:1], None, "t", if_exists="append")
        assert len(loader.load("select * from t")) == 2
        loader.export(pd.DataFrame({"id": ["x"], "other": [1]}), None, "t")
        assert loader.load("select * from t").to_dict("records") == [{"id": "x", "other": 1}]


def test_replace_by_other_types_under_the_same_names(connect: Open) -> None:
    with connect() as loader:
        loader.export(pd.DataFrame({"v": [1]}), None, "t")
        loader.export(pd.DataFrame({"v": ["text"]}), None, "t")
        assert loader.load("select * from t")["v"].to_list() == ["text"]


def test_a_failed_export_changes_nothing(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME, None, "t", unique_constraints=["id"])
        with pytest.raises(DatabaseError):
            loader.export(
                pd.DataFrame({"id": [9, 1], "name": ["new", "old"], "total": [0.0, 0.0]}), None, "t", "append"
            )
        assert loader.load("select * from t order by id")["id"].to_list() == [1, 2, 3]


def test_more_rows_than_a_row_group_holds(connect: Open) -> None:
    frame = pd.DataFrame({"id": range(60_000)})
    with connect() as loader:
        for _ in range(2):
            loader.export(frame, None, "t", unique_constraints=["id"], drop_table_on_replace=True)
            assert len(loader.load("select * from t")) == 60_000
        loader.export(frame, None, "t")
        assert len(loader.load("select * from t")) == 60_000
        loader.export(frame, None, "t", "append", unique_constraints=["id"], unique_conflict_method="UPDATE")
        assert len(loader.load("select * from t")) == 60_000


def test_rows_in_conflict_are_updated_or_ignored(connect: Open) -> None:
    new = pd.DataFrame({"id": [2, 4, 4], "name": ["Bea", "Cy", "Di"], "total": [7.0, 8.0, 9.0]})
    with connect() as loader:
        loader.export(FRAME, None, "t", unique_constraints=["id"], unique_conflict_method="UPDATE")
        loader.export(new, None, "t", "append", unique_constraints=["id"], unique_conflict_method="IGNORE")
        assert loader.load("select name from t order by id")["name"].fillna("-").to_list() == ["Ann", "Bö", "-", "Cy"]
        loader.export(new, None, "t", "append", unique_constraints=["id"], unique_conflict_method="update")
        assert loader.load("select name from t order by id")["name"].fillna("-").to_list() == ["Ann", "Bea", "-", "Di"]
        loader.export(
            new[["id", "total"]], None, "t", "append", unique_constraints=["id"], unique_conflict_method="UPDATE"
        )
        assert loader.load("select total from t where id = 4")["total"].to_list() == [9.0]
        assert loader.load("select name from t where id = 4")["name"].to_list() == ["Di"]


def test_a_key_of_several_columns_with_nulls(connect: Open) -> None:
    key = ["shop", "id"]
    first = pd.DataFrame({"shop": ["a", None], "id": [1, 1], "n": [1, 1]})
    again = pd.DataFrame({"shop": ["a", None, None], "id": [1, 1, 1], "n": [2, 2, 3]})
    with connect() as loader:
        for frame in (first, again):
            loader.export(frame, None, "t", "append", unique_constraints=key, unique_conflict_method="UPDATE")
        assert loader.load("select n from t order by n")["n"].to_list() == [1, 2, 2, 3]


def test_conflicts_need_a_unique_index(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME, None, "t")
        with pytest.raises(ConfigError, match=r"no unique index on \(id\)"):
            loader.export(FRAME, None, "t", "append", unique_constraints=["id"], unique_conflict_method="UPDATE")
        with pytest.raises(ConfigError, match="needs unique_constraints"):
            loader.export(FRAME, None, "t", "append", unique_conflict_method="UPDATE")
        with pytest.raises(ConfigError, match="no column 'key'"):
            loader.export(FRAME, None, "t", unique_constraints=["key"])
        with pytest.raises(ConfigError, match="'MERGE'") as caught:
            loader.export(FRAME, None, "t", unique_constraints=["id"], unique_conflict_method="MERGE")
        assert caught.value.code == "export.unknown_conflict_method"


def test_names_of_columns(connect: Open) -> None:
    frame = pd.DataFrame({"Order ID": [1], "date": [2], "2nd": [3]})
    with connect() as loader:
        loader.export(frame, None, "clean")
        assert list(loader.load("select * from clean")) == ["order_id", "date", "letter_2nd"]
        loader.export(frame, None, "reserved", allow_reserved_words=False)
        assert list(loader.load("select * from reserved")) == ["order_id", "_date", "letter_2nd"]
        loader.export(frame, None, "reserved", "append")  # a table that has `_date` gets `date` there
        assert loader.load("select * from reserved")["_date"].to_list() == [2, 2]
        loader.export(frame, None, "same", auto_clean_name=False)
        assert list(loader.load("select * from same")) == ["Order ID", "date", "2nd"]
        loader.export(frame, None, "cased", case_sensitive=True)
        assert "Order_ID" in loader.load("select * from cased")
        with pytest.raises(ConfigError, match="would both be 'a_b'"):
            loader.export(pd.DataFrame({"a b": [1], "A_B": [2]}), None, "t")


def test_types_can_be_given(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME, None, "t", overwrite_types={"id": "VARCHAR(20)"}, unique_constraints=["id"])
        assert loader.load("select id from t order by id")["id"].to_list() == ["1", "2", "3"]
        with pytest.raises(ConfigError, match="overwrite_types: there is no column 'nothing'"):
            loader.export(FRAME, None, "t", overwrite_types={"nothing": "INT"})


def test_an_index_becomes_columns(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME.set_index("id"), None, "t", index=True)
        assert list(loader.load("select * from t")) == ["id", "name", "total"]


@pytest.mark.parametrize(
    "data",
    [[{"n": 1}, {"n": 2}], pl.DataFrame({"n": [1, 2]}), pa.table({"n": [1, 2]}), pd.Series([1, 2], name="n")],
    ids=["records", "polars", "arrow", "series"],
)
def test_other_tables(connect: Open, data: Any) -> None:
    with connect() as loader:
        loader.export(data, None, "t")
        assert loader.load("select n from t order by n")["n"].to_list() == [1, 2]
        loader.export({"n": 5}, None, "t")
        assert loader.load("select n from t")["n"].to_list() == [5]
        with pytest.raises(ConfigError, match="not str"):
            loader.export("text", None, "t")


def test_columns_of_mixed_types_become_text(connect: Open) -> None:
    with connect() as loader:
        loader.export(pd.DataFrame({"v": [1, "a", None, {"b": 1}]}), None, "t")
        assert [one for one in loader.load("select * from t")["v"] if one == one][:2] == ["1", "a"]


def test_an_empty_frame_makes_the_table(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME[:0], None, "t")
        assert list(loader.load("select * from t")) == ["id", "name", "total"]


def test_what_a_query_gives_can_be_exported(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME, None, "t")
        loader.export(None, None, "u", query_string="select id from t where id > 1;")
        loader.export(None, None, "u", "append", query_string="select id from t")
        assert sorted(loader.load("select id from u")["id"]) == [1, 2, 2, 3, 3]


def test_statements_belong_to_a_transaction(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME, None, "t")
        assert loader.execute("delete from t where id = 1") in (1, -1)
        loader.rollback()
        assert len(loader.load("select * from t")) == 3
        loader.execute("delete from t where id = 1")
        loader.commit()
        loader.execute("delete from t where id = 2")
        loader.close()
    assert [one["id"] for one in rows(connect, "select id from t order by id")] == [2, 3]
    with connect() as loader:
        loader.execute("delete from t where id = 2;")  # a block that is left in order commits
    assert [one["id"] for one in rows(connect, "select id from t")] == [3]
    with pytest.raises(ZeroDivisionError), connect() as loader:
        loader.execute("delete from t")
        raise ZeroDivisionError
    assert [one["id"] for one in rows(connect, "select id from t")] == [3]


def test_parameters(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME, None, "t")
        mark = "$least" if loader.provider == "duckdb" else ":least"
        assert len(loader.load(f"select * from t where id >= {mark}", params={"least": 2})) == 2
        loader.execute(f"delete from t where id >= {mark}", least=3)
        loader.execute("delete from t where id >= ?", params=[2])
        assert loader.load("select id from t")["id"].to_list() == [1]
        results = loader.execute_queries(
            ["insert into t (id) values (7)", "select max(id) as most from t"],
            fetch_query_at_indexes=[False, True],
            commit=True,
        )
        assert results[1]["most"].to_list() == [7]
        loader.execute_query_raw("insert into t (id) values (8)")
    assert len(rows(connect, "select * from t")) == 3


def test_reading_as_pandas_reads(connect: Open) -> None:
    with connect() as loader:
        loader.export(pd.DataFrame({"id": [1], "at": ["2024-01-02"]}), None, "t")
        got = loader.load("select * from t", index_col="id", parse_dates=["at"])
        assert got.loc[1, "at"] == pd.Timestamp("2024-01-02")
        assert loader.load("select id from t", dtype={"id": "string"})["id"].to_list() == ["1"]


def test_errors_say_what_the_database_said(connect: Open) -> None:
    with connect() as loader:
        with pytest.raises(DatabaseError, match="nowhere") as caught:
            loader.load("select * from nowhere")
        assert caught.value.__cause__ is None  # the driver's own error would only hide the line that asked
        with pytest.raises(ConfigError, match="returned no rows"):
            loader.load("create table made (n int)")
        with pytest.raises(ConfigError, match="export needs table_name"):
            loader.export(FRAME)


def test_a_connection_without_with(connect: Open) -> None:
    loader = connect()
    loader.export(FRAME, None, "t")
    assert len(loader.load("select * from t")) == 3
    loader.close()
    loader.close()
    loader.open()
    assert loader.conn is not None
    loader.close()


def test_connections_by_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for loader in (DuckDB(database="x.duckdb", schema="shop"), SQLite("x.db")):
        with loader:
            loader.export(FRAME, None, "t")
    assert (tmp_path / "x.db").exists()
    with DuckDB("x.duckdb") as duck:
        assert len(duck.load("select * from shop.t")) == 3
        duck.export(FRAME, "made", "u")
        assert len(duck.load("select * from made.u")) == 3
    with pytest.raises(ConfigError, match="'datbase'"):
        DuckDB("x", datbase="y")


def test_paths_start_at_the_project(tmp_path: Path) -> None:
    (tmp_path / "streamline.yaml").write_text("name: p\n")
    (tmp_path / "io_config.yaml").write_text("default: {SQLITE_DATABASE: data.db}\n")
    with SQLite.with_config(ConfigFileLoader(tmp_path / "io_config.yaml")) as loader:
        loader.export(FRAME, None, "t")
    assert (tmp_path / "data.db").exists()


def test_what_the_profile_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "io_config.yaml").write_text("default: {POSTGRES_HOST: h}\n")
    with pytest.raises(ConfigError, match="SQLITE_DATABASE") as caught:
        SQLite.with_config(ConfigFileLoader(tmp_path / "io_config.yaml")).open()
    assert "io_config.yaml, profile 'default'" in str(caught.value.where)


@pytest.mark.parametrize(
    ("query", "ending"),
    [
        ("select 1", "select 1\nLIMIT 5"),
        ("-- note\n/* more */ SELECT 1", "SELECT 1\nLIMIT 5"),
        ("with a as (select 1) select * from a", "from a\nLIMIT 5"),
        ("select 1 limit 9", "select 1 limit 9\n) AS limited\nLIMIT 5"),
        ("with a as (delete from t returning *) select * from a", None),
        ("show tables", None),
        ("selection", None),
    ],
)
def test_only_a_select_gets_a_limit(query: str, ending: str | None) -> None:
    shortened = limited(query, 5)
    assert shortened is None if ending is None else str(shortened).endswith(ending)
    assert limited(query, None) is None


def test_a_comment_at_the_end_does_not_end_the_limit(connect: Open) -> None:
    with connect() as loader:
        loader.export(FRAME, None, "t")
        assert loader.load("select * from t order by id desc -- all of them", limit=2)["id"].to_list() == [3, 2]
        assert loader.load("select * from t order by id limit 2", limit=1)["id"].to_list() == [1]
        assert loader.load("select * from t order by id limit 2", limit=9)["id"].to_list() == [1, 2]


@given(st.text(min_size=1))
def test_cleaned_names_are_clean_and_stay_so(name: str) -> None:
    cleaned = clean_column(name)
    assert clean_column(cleaned) == cleaned
    assert not cleaned[:1].isdigit()


@given(
    st.text("abc_ ", min_size=1, max_size=80), st.lists(st.text("xyz", min_size=1, max_size=40), min_size=1, max_size=3)
)
def test_names_of_indexes_fit_every_database(table: str, columns: list[str]) -> None:
    assert len(index_name(table, columns).encode()) <= 63


cells = st.fixed_dictionaries(
    {
        "number": st.none() | st.integers(-(2**63), 2**63 - 1),
        "text": st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        "real": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "flag": st.booleans(),
    }
)


@given(rows=st.lists(cells, max_size=6), kind=st.sampled_from([DuckDB, SQLite]))
def test_any_rows_come_back(rows: list[dict[str, Any]], kind: type[DuckDB | SQLite]) -> None:
    types = {"number": "Int64", "text": "string", "real": "Float64", "flag": "boolean"}
    frame = pd.DataFrame(rows, columns=list(types), dtype=object).astype(types)
    with kind(":memory:") as loader:
        loader.export(frame.assign(place=range(len(frame))), None, "t")
        got = loader.load("select * from t order by place").drop(columns="place")
    records = got.astype(object).where(got.notna(), None).to_dict("records")
    assert [{key: None if value is None else value for key, value in one.items()} for one in records] == rows


keys = st.lists(st.tuples(st.sampled_from([None, 1, 2]), st.sampled_from(["a", "b"])), max_size=12)


@given(keys, st.booleans())
def test_one_row_per_key(pairs: list[tuple[int | None, str]], keep_last: bool) -> None:
    data = pa.table(
        {
            "k": pa.array([one[0] for one in pairs], pa.int64()),
            "l": pa.array([one[1] for one in pairs], pa.string()),
            "n": pa.array(range(len(pairs)), pa.int64()),
        }
    )
    seen: dict[Any, int] = {}
    for number, pair in enumerate(pairs):
        key = pair if pair[0] is not None else number
        if keep_last or key not in seen:
            seen[key] = number
    assert one_row_per_key(data, ["k", "l"], keep_last=keep_last)["n"].to_pylist() == sorted(seen.values())
