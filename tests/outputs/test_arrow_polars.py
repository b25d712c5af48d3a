"""Arrow tables and Polars frames come back as they went."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal
from polars.testing.parametric import dataframes

from streamline.outputs.store import OutputError, ParquetFile, pack, unpack
from tests.outputs.conftest import Shelf

_small = st.integers(-100, 100)
_TYPES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int8(), _small),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float16(), _small.map(np.float16)),
    (pa.float64(), st.floats()),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.text(max_size=4)),
    (pa.large_string(), st.text(max_size=4)),
    (pa.string_view(), st.text(max_size=20)),
    (pa.binary(), st.binary(max_size=4)),
    (pa.binary(2), st.binary(min_size=2, max_size=2)),
    (pa.date32(), st.dates()),
    (pa.date64(), st.dates()),
    (pa.time32("s"), st.times().map(lambda time: time.replace(microsecond=0))),
    (pa.time64("us"), st.times()),
    (pa.timestamp("s"), st.integers(-(2**40), 2**40)),
    (pa.timestamp("ns", "Europe/Berlin"), st.integers(-(2**62), 2**62)),
    (pa.duration("s"), _small),
    (pa.duration("us"), _small),
    (pa.decimal128(5, 2), st.decimals(-999, 999, places=2)),
    (pa.decimal256(50, 2), st.decimals(-999, 999, places=2)),
    (pa.null(), st.none()),
    (pa.list_(pa.int32()), st.lists(_small, max_size=3)),
    (pa.list_(pa.int32(), 2), st.lists(_small, min_size=2, max_size=2)),
    (pa.large_list(pa.string()), st.lists(st.text(max_size=2), max_size=3)),
    (pa.struct([("x", pa.int8()), ("y", pa.string())]), st.fixed_dictionaries({"x": _small, "y": st.text(max_size=2)})),
    (
        pa.map_(pa.string(), pa.int8()),
        st.dictionaries(st.text(max_size=2), _small, max_size=2).map(lambda d: [*d.items()]),
    ),
    (pa.dictionary(pa.int8(), pa.string()), st.sampled_from("abc")),
    (pa.month_day_nano_interval(), st.tuples(_small, _small, _small)),
]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    kinds = draw(st.lists(st.sampled_from(_TYPES), min_size=1, max_size=3))
    rows = draw(st.integers(0, 4))
    names = draw(st.sampled_from([["a", "b", "c"], ["a", "a", ""], ["x.y", "ü", "1"]]))[: len(kinds)]
    metadata = draw(st.sampled_from([None, {"k": "v"}]))
    fields = [
        pa.field(name, kind, metadata=draw(st.sampled_from([None, {"f": "g"}])))
        for name, (kind, _) in zip(names, kinds, strict=True)
    ]
    arrays = [pa.array(draw(st.lists(st.none() | of, min_size=rows, max_size=rows)), kind) for kind, of in kinds]
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata))
    return pa.concat_tables([table, table.slice(1)]) if draw(st.booleans()) else table


def _equal(left: Any, right: Any) -> bool:
    # NaN is not equal to itself for Arrow.
    return bool(left.equals(right)) or repr(left.to_pydict()) == repr(right.to_pydict())


def _assert_same_schema(left: pa.Schema, right: pa.Schema) -> None:
    # The name of a list's elements is the file format's affair.
    assert left.equals(right)
    assert (left.metadata or {}) == (right.metadata or {})
    assert [field.metadata or {} for field in left] == [field.metadata or {} for field in right]


@given(tables())
def test_tables_come_back_as_they_went(table: pa.Table) -> None:
    back = unpack(pack(table)).value()

    assert type(back) is pa.Table
    _assert_same_schema(back.schema, table.schema)
    back.validate(full=True)
    assert _equal(back, table)


@given(tables())
def test_batches_come_back_as_they_went(table: pa.Table) -> None:
    batch = (
        table.combine_chunks().to_batches()[0]
        if table.num_rows
        else pa.RecordBatch.from_arrays([pa.array([], field.type) for field in table.schema], schema=table.schema)
    )

    back = unpack(pack(batch)).value()

    assert type(back) is pa.RecordBatch
    _assert_same_schema(back.schema, batch.schema)
    assert _equal(back, batch)


def test_no_columns() -> None:
    assert unpack(pack(pa.table({}))).value().equals(pa.table({}))


def test_columns_that_must_not_be_null(shelf: Shelf) -> None:
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False)])

    output = shelf.write(pa.table({"a": [1, 2]}, schema=schema))

    assert output.value().schema.equals(schema)
    assert output.parquet() == [shelf.folder / "output_0.parquet"]


def test_a_reader_is_stored_batch_by_batch(shelf: Shelf) -> None:
    schema = pa.schema([("n", pa.int64())])
    batches = (pa.RecordBatch.from_pydict({"n": [number] * 1000}, schema=schema) for number in range(400))

    output = shelf.write(pa.RecordBatchReader.from_batches(schema, batches))

    assert output.value().num_rows == output.manifest.outputs[0].rows == 400_000
    assert output.table()["n"].to_pylist()[-1] == 399


def test_a_parquet_file_becomes_the_output(shelf: Shelf, tmp_path: Any) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "made.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), path)

    output = shelf.write(ParquetFile(path))

    assert not path.exists()
    assert output.value()["a"].tolist() == [1, 2]
    assert output.parquet() == [shelf.folder / "output_0.parquet"]
    assert output.manifest.outputs[0].rows == 2


def test_what_is_no_parquet_file(shelf: Shelf, tmp_path: Any) -> None:
    path = tmp_path / "made.parquet"
    path.write_text("hello")

    with pytest.raises(OutputError, match="is not a Parquet file"):
        shelf.write(ParquetFile(path))

    assert not shelf.folder.exists()


@given(dataframes(min_cols=1, max_cols=4, max_size=5, excluded_dtypes=[pl.Object]))
def test_polars_frames_come_back_as_they_went(frame: pl.DataFrame) -> None:
    back = unpack(pack(frame)).value()

    assert back.schema == frame.schema
    assert_frame_equal(back, frame, check_exact=True, categorical_as_str=True)


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame(),
        pl.DataFrame({"a": pl.Series([], dtype=pl.Int8)}),
        pl.DataFrame({"a": [[1, None], None], "b": [{"x": 1}, {"x": None}]}),
        pl.DataFrame({"e": pl.Series(["x", "y"], dtype=pl.Enum(["y", "x"]))}),
        pl.DataFrame({"c": pl.Series(["x", None], dtype=pl.Categorical)}),
        pl.DataFrame({"t": [dt.time(1), None], "d": [dt.timedelta(1), None], "p": [Decimal("1.10"), None]}),
        pl.DataFrame({"z": [dt.datetime(2024, 1, 1)]}).with_columns(pl.col("z").dt.replace_time_zone("Europe/Berlin")),
        pl.DataFrame({"f": [1.0, float("nan"), None], "u": [b"x", None, b""]}),
    ],
    ids=lambda frame: ",".join(map(str, frame.dtypes)) or "empty",
)
def test_polars_types(shelf: Shelf, frame: pl.DataFrame) -> None:
    back = shelf.write(frame).value()

    assert back.schema == frame.schema
    assert_frame_equal(back, frame, check_exact=True)


def test_polars_lazy_frames_are_collected(shelf: Shelf) -> None:
    back = shelf.write(pl.LazyFrame({"a": [1, 2]}).filter(pl.col("a") > 1)).value()

    assert_frame_equal(back, pl.DataFrame({"a": [2]}))


def test_polars_series(shelf: Shelf) -> None:
    series = pl.Series("n", [1, None], dtype=pl.Int16)

    back = shelf.write(series).value()

    assert_series_equal(back, series)
    assert back.dtype == pl.Int16


def test_polars_frames_of_objects_cannot_be_stored(shelf: Shelf) -> None:
    frame = pl.DataFrame({"o": pl.Series([{1}, {2}], dtype=pl.Object)})

    with pytest.raises(OutputError, match=r"a polars\.DataFrame"):
        shelf.write(frame)
