"""pandas columns as Arrow columns, and which of them Arrow's own pandas metadata restores exactly."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from streamline.outputs import jsonvalue

# What Arrow raises for values that it does not take. (ArrowInvalid is a ValueError; UnicodeEncodeError, too.)
REFUSALS = (ValueError, TypeError, ArithmeticError, NotImplementedError, KeyError)

_COMPARED_AT_ONCE = 1 << 14


class ArrowColumn(NamedTuple):
    """A pandas column as Arrow.

    Args:
        part: the rows from `start` to `stop`; raises one of `REFUSALS` where a value does not fit.
        exact: pandas reads exactly the same column from a Parquet file.
    """

    type: pa.DataType
    part: Callable[[int, int], pa.Array]
    exact: bool


def arrow_column(series: Any) -> ArrowColumn | None:
    """Return a Series, without its index, as Arrow; None if no Arrow type holds its values."""
    dtype = series.dtype
    try:
        if isinstance(dtype, np.dtype) and dtype.kind == "O":
            return _objects(series.to_numpy(copy=False))
        if isinstance(dtype, pd.CategoricalDtype):
            return _category(series.array)
        values = series.to_numpy(copy=False) if isinstance(dtype, np.dtype) else series.array
        empty = pa.array(values[:0], from_pandas=True)
        if isinstance(empty, pa.ExtensionArray):  # periods, intervals: types of pandas' own
            return None
        return ArrowColumn(
            empty.type,
            lambda start, stop: pa.array(values[start:stop], empty.type, from_pandas=True),
            _is_restored(dtype),
        )
    except REFUSALS:
        return None


_restored: dict[tuple[str, type, str], bool] = {}


def _is_restored(dtype: Any) -> bool:
    """Return whether a column of this dtype has the same dtype when pandas reads it from a Parquet file."""
    zone = getattr(dtype, "tz", None)
    key = repr(dtype), type(zone), repr(zone)
    if key not in _restored:
        _restored[key] = _survives(dtype)
    return _restored[key]


def _survives(dtype: Any) -> bool:
    file = BytesIO()
    try:
        pq.write_table(pa.Table.from_pandas(pd.DataFrame({"x": pd.Series([], dtype=dtype)})), file)
        # Not read_table: it imports all of pyarrow.dataset.
        back: Any = pq.ParquetFile(file).read().to_pandas()["x"].dtype
    except REFUSALS:
        return False
    # pandas takes all kinds of UTC for equal.
    return back == dtype and type(getattr(back, "tz", None)) is type(getattr(dtype, "tz", None))


def _whole(values: Any) -> ArrowColumn:
    return ArrowColumn(values.type, lambda start, stop: values[start:stop], exact=False)


def _category(values: Any) -> ArrowColumn:
    """Convert categories. Not exact: Parquet keeps neither categories without rows nor their order."""

    def part(start: int, stop: int) -> pa.Array:
        array = pa.array(values[start:stop])
        return array if text else array.dictionary_decode()

    kind = pa.array(values[:0]).type
    text = pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
    return ArrowColumn(kind if text else kind.value_type, part, exact=False)


# --- columns of Python objects ---


def _objects(values: Any) -> ArrowColumn:
    """Convert objects. Text, bytes and dates are exact if the only null is None; others get the nearest Arrow type."""
    kinds = set(map(type, values))
    simple = {str: pa.string(), bytes: pa.binary(), dt.date: pa.date32()}
    present = kinds - {type(None)}
    if len(present) < 2 and present <= simple.keys():
        kind = simple[present.pop()] if present else pa.null()
        return ArrowColumn(kind, lambda start, stop: pa.array(values[start:stop], kind), exact=True)
    kinds -= {type(None), float, type(pd.NA), type(pd.NaT)}
    if kinds and kinds <= {list, dict}:
        rows = [value if type(value) in kinds else None for value in values]
        return _whole(_nested(rows) if jsonvalue.is_plain(rows) else pa.array(rows))
    if kinds == {UUID}:
        return _whole(pa.array([str(value) if type(value) is UUID else None for value in values]))
    return _whole(pa.array(values, from_pandas=True))


def _nested(rows: list[Any]) -> pa.Array:
    """Convert to lists and structs if every dict has every key and no number changes its type, else to JSON text."""
    try:
        array = pa.array(rows)
        if _same(array, rows):
            return array
    except REFUSALS:
        pass
    return pa.array([None if row is None else jsonvalue.dumps(row) for row in rows], pa.binary()).cast(pa.string())


def _same(array: pa.Array, rows: list[Any]) -> bool:
    """Compare as JSON text: it tells 1 from 1.0, and shows the order of keys."""
    encode = msgspec.json.Encoder().encode
    return all(
        encode(rows[start : start + _COMPARED_AT_ONCE]) == encode(array[start : start + _COMPARED_AT_ONCE].to_pylist())
        for start in range(0, len(rows), _COMPARED_AT_ONCE)
    )


# --- names ---


def column_names(labels: Sequence[Any]) -> list[str]:
    """Return the names of the columns in a file: their labels, if these are text and unique."""
    names: list[str] = []
    taken: set[str] = set()
    for place, label in enumerate(labels):
        name = base = str(label) if is_text(label) else f"column_{place}"
        number = 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        names.append(name)
    return names


def is_text(label: Any) -> bool:
    """Return whether a label shows as text that is not empty and can be written as UTF-8."""
    try:
        return bool(str(label).encode())
    except UnicodeEncodeError:
        return False
