"""Outputs as Arrow tables, and as Parquet files that others read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from streamline.errors import ConfigError
from streamline.outputs.store import pack, unpack
from tests.outputs.conftest import Shelf

ROWS = {"a": [1, 2], "b": ["x", None]}
FRAME = pd.DataFrame(ROWS)


@pytest.mark.parametrize(
    "value",
    [
        FRAME,
        pl.DataFrame(ROWS),
        pa.table(ROWS),
        pa.RecordBatch.from_pydict(ROWS),
        ROWS,
        [{"a": 1, "b": "x"}, {"a": 2}],
        [FRAME.iloc[:1], FRAME.iloc[1:]],
        (FRAME,),
        FRAME.iloc[[1, 0]].sort_index(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_a_table(value: Any) -> None:
    assert unpack(pack(value)).table().to_pydict() == ROWS


def test_series_are_columns() -> None:
    assert unpack(pack(pd.Series([1, 2], name="n"))).table().to_pydict() == {"n": [1, 2]}
    assert unpack(pack(pd.Series([1, 2]))).table().to_pydict() == {"value": [1, 2]}
    assert unpack(pack(pl.Series("n", [1, 2]))).table().to_pydict() == {"n": [1, 2]}


def test_keys_of_later_rows_are_columns_too() -> None:
    assert unpack(pack([{"a": 1}, {"b": 2}])).table().to_pydict() == {"a": [1, None], "b": [None, 2]}


def test_names_of_an_index_are_columns(shelf: Shelf) -> None:
    grouped = pd.DataFrame({"k": ["x", "y", "x"], "n": [1, 2, 3]}).groupby("k").sum()

    output = shelf.write(grouped)

    assert output.table().to_pydict() == {"n": [4, 2], "k": ["x", "y"]}
    assert duckdb.sql(f"select k, n from '{output.parquet()[0]}' order by k").fetchall() == [("x", 4), ("y", 2)]


def test_names_of_an_index_that_are_taken_are_left_out(shelf: Shelf) -> None:
    frame = pd.DataFrame({"n": [1, 2]}, index=pd.Index([5, 6], name="n"))

    assert shelf.write(frame).table().to_pydict() == {"n": [1, 2]}


def test_objects_that_only_pickle_restores_are_in_the_table_too(shelf: Shelf) -> None:
    frame = pd.DataFrame({"a": [1, 2], "d": pd.Series([Decimal("1.1"), Decimal("2.25")], dtype=object)})

    output = shelf.write(frame)

    assert output.parquet() is not None
    assert output.table().to_pydict() == {"a": [1, 2], "d": [Decimal("1.10"), Decimal("2.25")]}


def test_chunks_are_one_table_and_several_files(shelf: Shelf) -> None:
    def chunks() -> Iterator[pd.DataFrame]:
        for start in (0, 10):
            yield pd.DataFrame({"n": [start, start + 1]})

    output = shelf.write(chunks())

    assert output.table().to_pydict() == {"n": [0, 1, 10, 11]}
    assert [path.name for path in output.parquet()] == ["output_0.parquet", "output_1.parquet"]


def test_chunks_whose_types_differ_are_one_table_and_no_files(shelf: Shelf) -> None:
    output = shelf.write(iter([pd.DataFrame({"n": [1]}), pd.DataFrame({"n": [1.5], "m": ["x"]})]))

    assert output.parquet() is None
    assert output.table().to_pydict() == {"n": [1.0, 1.5], "m": [None, "x"]}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "None"),
        (5, "an int is not a table"),
        ("x", "a str is not a table"),
        ({"a": 1}, "a dict is not a table"),
        ([1, 2], "a list is not a table"),
        ((FRAME, FRAME), "2 outputs"),
        ([{"a": 1}, {"a": "x"}], "column 'a' has values of types that have no common type"),
        (
            pd.DataFrame({"a": pd.Series([1, "x"], dtype=object)}),
            "column 'a' has values of types that have no common type",
        ),
        ([pd.DataFrame({"a": [1]}), pd.DataFrame({"a": ["x"]})], "do not make one table"),
    ],
)
def test_what_is_none_is_named(value: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        unpack(pack(value)).table()


@pytest.mark.parametrize(
    "value",
    [
        pa.table({"d": pa.array([5], pa.duration("s"))}),
        pl.DataFrame({"d": [dt.timedelta(seconds=5)]}),
        pd.DataFrame({"d": pd.to_timedelta([5], unit="s")}),
    ],
    ids=lambda value: type(value).__module__,
)
def test_durations_need_a_conversion(shelf: Shelf, value: Any) -> None:
    output = shelf.write(value)

    assert output.parquet() is None  # where Parquet has integers
    assert output.table().to_pydict() == {"d": [dt.timedelta(seconds=5)]}
