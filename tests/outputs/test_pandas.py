"""pandas frames and Series come back as they went, and their files are plain Parquet where values allow it."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.outputs import pandas_frames, parquet
from streamline.outputs.store import pack, unpack
from tests.outputs.conftest import Shelf
from tests.outputs.exactly import assert_same_frame, assert_same_series

ROWS = 4
_moments = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))
_texts = st.text(max_size=5)
_nothing = st.sampled_from([None, float("nan"), pd.NA, pd.NaT])
_zones = st.sampled_from(
    [ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), dt.UTC, dt.timezone(dt.timedelta(hours=-5, minutes=-30)), "UTC"]
)


def lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=ROWS, max_size=ROWS)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[pd.Series]:
    def column(values: list[Any]) -> pd.Series:
        array = np.empty(len(values), object)
        for place, value in enumerate(values):
            array[place] = value
        return pd.Series(array, dtype=object)

    return lists(values).map(column)


def typed(values: st.SearchStrategy[Any], *dtypes: Any) -> st.SearchStrategy[pd.Series]:
    return st.builds(lambda values, dtype: pd.Series(values, dtype=dtype), lists(values), st.sampled_from(dtypes))


@st.composite
def categories(draw: st.DrawFn) -> pd.Series:
    labels = draw(
        st.lists(_texts, unique=True, min_size=1, max_size=4)
        | st.lists(st.integers(-9, 9), unique=True, min_size=1, max_size=4)
        | st.lists(st.floats(allow_nan=False), unique=True, min_size=1, max_size=3)
        | st.lists(_moments, unique=True, min_size=1, max_size=3)
        | st.just([])
    )
    codes = draw(lists(st.integers(-1, len(labels) - 1)))
    dtype = pd.CategoricalDtype(labels, ordered=draw(st.booleans()))
    return pd.Series(pd.Categorical.from_codes(codes, dtype=dtype))


@st.composite
def moments(draw: st.DrawFn) -> pd.Series:
    values = pd.Series(pd.to_datetime(draw(lists(_moments | st.none()))))
    values = values.astype(f"datetime64[{draw(st.sampled_from(['s', 'ms', 'us', 'ns']))}]")
    return values.dt.tz_localize("UTC").dt.tz_convert(draw(_zones)) if draw(st.booleans()) else values


_small = st.integers(-100, 100)
_nested = st.recursive(
    st.none() | st.booleans() | _small | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
columns = st.one_of(
    typed(_small, "int8", "int32", "int64", "float16", "float32", "float64", "complex128", object),
    typed(st.integers(0, 200), "uint8", "uint64"),
    typed(st.floats(), "float64", object),
    typed(st.booleans(), bool, object),
    typed(_small | st.none(), "Int8", "Int64", "Float64", object),
    typed(st.booleans() | st.none(), "boolean", object),
    typed(_texts | st.none(), "str", "string[python]", "string[pyarrow]", object, pd.ArrowDtype(pa.string())),
    typed(st.timedeltas(dt.timedelta(-9999), dt.timedelta(9999)) | st.none(), "timedelta64[us]", "timedelta64[ns]"),
    typed(_small | st.none(), pd.ArrowDtype(pa.int32()), pd.SparseDtype("float64")),
    moments(),
    categories(),
    objects(_texts | _nothing),
    objects(_small | st.none()),
    objects(st.integers() | st.none()),
    objects(st.floats() | st.none()),
    objects(st.binary(max_size=3) | st.none()),
    objects(st.dates() | st.none()),
    objects(_moments | st.none()),
    objects(st.times() | st.none()),
    objects(st.timedeltas() | _nothing),
    objects(st.decimals(allow_nan=False, allow_infinity=False, places=2) | st.none()),
    objects(st.decimals(allow_nan=False) | st.just(Decimal("NaN")) | st.none()),
    objects(st.uuids() | st.none()),
    objects(st.lists(_small, max_size=3) | _nothing),
    objects(st.fixed_dictionaries({"a": _small, "b": _texts | st.none()}) | st.none()),
    objects(_nested),
    objects(st.lists(st.floats(width=32), max_size=3).map(lambda row: np.array(row, "float32")) | _nothing),
    objects(st.tuples(_small, _texts)),
    objects(_texts | _small | _nothing | st.floats()),
    objects(st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)),
    st.builds(lambda: pd.Series(pd.period_range("2020", periods=ROWS, freq="M"))),
    st.builds(lambda: pd.Series(pd.interval_range(0, ROWS))),
)
_names = st.none() | _texts | _small
labels = st.one_of(
    st.just(["a", "b", "c"]),
    st.lists(_texts, min_size=3, max_size=3),
    st.lists(_small, min_size=3, max_size=3),
    st.lists(_texts | _small | st.none(), min_size=3, max_size=3),
    st.just(pd.date_range("2020", periods=3)),
    st.just(pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["x", None])),
)


@st.composite
def indexes(draw: st.DrawFn) -> pd.Index:
    kind = draw(st.sampled_from(["range", "values", "multi", "frequency", "odd"]))
    name = draw(_names)
    if kind == "range":
        start, step = draw(st.integers(-5, 5)), draw(st.sampled_from([1, 2, -3]))
        return pd.RangeIndex(start, start + ROWS * step, step, name=name)
    if kind == "frequency":
        zone = draw(st.none() | _zones)
        return pd.date_range(
            "2020-03-28", periods=ROWS, freq=draw(st.sampled_from(["D", "h", "MS"])), tz=zone, name=name
        )
    if kind == "odd":
        return pd.period_range("2020", periods=ROWS, freq="M", name=name)
    if kind == "multi":
        return pd.MultiIndex.from_arrays(
            [draw(columns.filter(_hashable)) for _ in range(2)], names=[name, draw(_names)]
        )
    return pd.Index(draw(columns.filter(_hashable).filter(lambda index: index.dtype != "float16")), name=name)


def _hashable(column: pd.Series) -> bool:
    try:
        hash(tuple(column))
        pd.Index(column)
    except (TypeError, NotImplementedError, ValueError):
        return False
    return column.dtype.kind != "c" and not isinstance(column.dtype, (pd.SparseDtype, pd.IntervalDtype))


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    values = pd.concat([draw(columns) for _ in range(3)], axis=1, keys=range(3))
    values.index = draw(indexes())
    names = draw(labels)
    values.columns = names if isinstance(names, pd.Index) else pd.Index(names, name=draw(_names))
    if draw(st.booleans()):
        values.attrs = draw(st.sampled_from([{"a": [1]}, {"b": (1, 2)}, {}]))
    return values.iloc[: draw(st.sampled_from([ROWS, ROWS, 0, 1]))]


@given(frames(), st.booleans())
def test_frames_come_back_as_they_went(frame: pd.DataFrame, large: bool) -> None:
    with mock.patch.object(pandas_frames, "_SMALL", 0 if large else 1 << 24):
        assert_same_frame(frame, unpack(pack(frame)).value())


@given(columns)
def test_columns_come_back_as_they_went(column: pd.Series) -> None:
    assert_same_frame(column.to_frame("x"), unpack(pack(column.to_frame("x"))).value())


@given(columns, indexes(), _names | st.tuples(_texts, _small))
def test_series_come_back_as_they_went(column: pd.Series, index: pd.Index, name: Any) -> None:
    column.index = index
    column.name = name

    assert_same_series(column, unpack(pack(column)).value())


PLAIN = {
    "ints": [1, 2, 3],
    "floats": [1.5, None, 2.5],
    "text": ["a", None, "c"],
    "objects": pd.Series(["a", None, float("nan")], dtype=object),
    "nullable": pd.array([1, None, 3], dtype="Int64"),
    "moment": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
    "zoned": pd.to_datetime(["2024-01-01", None, "2024-01-03"]).tz_localize("Europe/Berlin"),
    "kind": pd.Categorical(["x", None, "y"], categories=["y", "x", "z"], ordered=True),
    "level": pd.Categorical([3, None, 1]),
    "price": pd.Series([Decimal("1.10"), None, Decimal("20.00")], dtype=object),
    "day": pd.Series([dt.date(2024, 1, 1), None, dt.date(2024, 1, 3)], dtype=object),
    "tags": [["a"], None, ["b", "c"]],
    "place": [{"x": 1, "y": "a"}, None, {"x": 2, "y": None}],
    "id": pd.Series([uuid.UUID(int=1), None, uuid.UUID(int=2)], dtype=object),
    "vector": pd.Series([np.array([1.0, 2.0]), None, np.array([3.0])], dtype=object),
}


def test_the_common_case_is_a_parquet_file_that_duckdb_reads(shelf: Shelf) -> None:
    frame = pd.DataFrame(PLAIN)

    output = shelf.write(frame)

    assert_same_frame(frame, output.value())
    assert output.parquet() == [shelf.folder / "output_0.parquet"]
    rows = duckdb.sql(
        f"select * exclude zoned, epoch(zoned::timestamptz) from '{shelf.folder}/output_0.parquet'"
    ).fetchall()
    assert rows[2] == (
        *(3, 2.5, "c", None, 3, dt.datetime(2024, 1, 3), "y", 1, Decimal("20.00"), dt.date(2024, 1, 3), ["b", "c"]),
        *(
            {"x": 2, "y": None},
            str(uuid.UUID(int=2)),
            [3.0],
            pd.Timestamp("2024-01-03", tz="Europe/Berlin").timestamp(),
        ),
    )
    assert rows[1] == (2, *[None] * (len(PLAIN) - 1))


def test_pandas_reads_the_file_by_itself(shelf: Shelf) -> None:
    frame = pd.DataFrame({"a": [1, 2], "k": pd.Categorical(["x", "y"])}, index=pd.Index(["p", "q"], name="key"))

    shelf.write(frame)

    pd.testing.assert_frame_equal(pd.read_parquet(shelf.folder / "output_0.parquet"), frame)


def test_an_index_without_a_name_is_not_in_the_main_file(shelf: Shelf) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3, 4]}).iloc[[0, 1, 3]]

    output = shelf.write(frame)

    assert_same_frame(frame, output.value())
    assert duckdb.sql(f"select * from '{output.parquet()[0]}'").fetchall() == [(1,), (2,), (4,)]
    assert output.table().to_pydict() == {"a": [1, 2, 4]}


def test_columns_that_parquet_does_not_hold_are_pickled_beside_the_others(shelf: Shelf) -> None:
    frame = pd.DataFrame({"a": [1, 2], "odd": pd.Series([{1, 2}, 3 + 4j], dtype=object)})

    output = shelf.write(frame)

    assert shelf.names() == ["manifest.json", "output_0.objects.pkl", "output_0.parquet"]
    assert_same_frame(frame, output.value())
    assert output.parquet() is None


def test_what_cannot_be_pickled_is_named_by_column_and_row(shelf: Shelf) -> None:
    import threading

    from streamline.outputs.store import OutputError

    frame = pd.DataFrame({"a": [1, 2], "lock": [1, threading.Lock()]}, index=["x", "y"])

    with pytest.raises(OutputError, match=r"output 0: a pandas\.DataFrame; at \['lock'\]\['y'\]: cannot pickle"):
        shelf.write(frame)


def test_what_comes_back_can_be_changed(shelf: Shelf) -> None:
    output = shelf.write(pd.DataFrame({"a": [1, 2], "b": [True, False], "t": pd.to_datetime(["2024", "2025"])}))

    frame = output.value()
    frame.loc[0, "a"] = 9
    frame["b"] = ~frame["b"]
    frame.loc[0, "t"] = pd.Timestamp("2030")

    assert frame["a"].tolist() == [9, 2]
    assert output.value()["a"].tolist() == [1, 2]


def test_many_rows_in_several_row_groups(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", 1000)
    rows = 3_500
    frame = pd.DataFrame(
        {
            "n": np.arange(rows),
            "x": np.where(np.arange(rows) % 7 == 0, np.nan, 1.5),
            "s": pd.Series([f"v{number % 1000}" for number in range(rows)]),
            "o": pd.Series([None if number % 5 == 0 else f"w{number % 10}" for number in range(rows)], dtype=object),
            "k": pd.Categorical.from_codes(np.arange(rows) % 3, ["a", "b", "c"]),
            "i": pd.array(np.arange(rows) % 9, dtype="Int32"),
        }
    )

    output = shelf.write(frame)

    assert output.manifest.outputs[0].rows == rows
    assert pq.ParquetFile(shelf.folder / "output_0.parquet").num_row_groups == 4
    value = output.value()
    assert_same_frame(frame.iloc[::10], value.iloc[::10])
    pd.testing.assert_frame_equal(frame, value)


def test_wide_frames(shelf: Shelf) -> None:
    frame = pd.DataFrame(np.arange(20_000.0).reshape(10, 2_000))

    assert_same_frame(frame, shelf.write(frame).value())


class Labelled(pd.DataFrame):
    """A subclass, as GeoDataFrame is one."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return Labelled


def test_subclasses_stay_subclasses(shelf: Shelf) -> None:
    assert type(shelf.write(Labelled({"a": [1]})).value()) is Labelled


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (pa.list_(pa.int64()), [[1], None, []]),
        (pa.struct([("x", pa.int64())]), [{"x": 1}, None, {"x": None}]),
        (pa.map_(pa.string(), pa.int64()), [[("a", 1)], None, []]),
        (pa.dictionary(pa.int32(), pa.string()), ["a", None, "b"]),
        (pa.binary(2), [b"ab", None, b"cd"]),
    ],
    ids=["list", "struct", "map", "dictionary", "binary"],
)
def test_columns_of_arrows_own_dtypes_come_back(shelf: Shelf, type_: pa.DataType, values: list[Any]) -> None:
    series = pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values, type_)), name="odd")
    frame = pd.DataFrame({"plain": [1, 2, 3], "odd": series})

    back = shelf.write(frame).value()

    assert back.dtypes.to_dict() == frame.dtypes.to_dict()
    assert pa.array(back["odd"]).to_pylist() == pa.array(frame["odd"]).to_pylist()
    assert list(back["plain"]) == [1, 2, 3]
