"""Between what users hand over (pandas, Polars, Arrow, records) and what databases and files take."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from streamline.databases.arrow import is_json, is_uuid, json_type
from streamline.errors import ConfigError

_EXACT_IN_FLOAT = 2**53


def as_pandas(data: Any) -> pd.DataFrame:
    """Return a pandas DataFrame of `data`: pandas, Polars, Arrow; a dict is one row, a list is rows.

    Raises:
        ConfigError: it is nothing of the kind; the message says what it is.
    """
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, pd.Series):
        return data.to_frame()
    if isinstance(data, Mapping):
        return pd.DataFrame([data])
    if isinstance(data, list):
        return pd.DataFrame(data)
    table = _foreign_table(data)
    if table is not None:
        frame: pd.DataFrame = table.to_pandas()
        return frame
    kind = type(data)
    raise ConfigError(
        f"a DataFrame is needed, not {kind.__module__}.{kind.__qualname__}".replace("builtins.", ""),
        hint="pass a pandas or Polars DataFrame, an Arrow table, or a list of dicts",
        code="export.not_a_frame",
    )


def as_arrow(data: Any, *, index: bool = False) -> pa.Table:
    """Return an Arrow table of `data`, for a database. What has no type of its own there (mixed columns) becomes text.

    Args:
        data: as `as_pandas` takes it.
        index: a pandas index becomes columns too.

    Raises:
        ConfigError: it is no table.
    """
    table = None if index else _foreign_table(data)
    if table is not None:
        return table
    frame = as_pandas(data)
    if index:
        frame = frame.reset_index()
    names = [str(name) for name in frame.columns]
    columns = [_arrow_column(frame.iloc[:, position]) for position in range(len(names))]
    return pa.Table.from_arrays(columns, names=names)


def from_arrow(table: pa.Table, *, coerce_float: bool = True) -> pd.DataFrame:
    """Return a pandas DataFrame as `pandas.read_sql` gives it, except that no integer is ever rounded.

    JSON values come as dicts and lists, arrays as lists, UUIDs as text.

    Args:
        table: the rows, as `Database.query` gives them.
        coerce_float: decimals become floats, with which pandas can calculate.
    """
    if coerce_float:
        for position, field in enumerate(table.schema):
            if pa.types.is_decimal(field.type):
                table = table.set_column(position, field.name, table.column(position).cast(pa.float64()))
    special = {position: _special(column) for position, column in enumerate(table.columns)}
    frame: pd.DataFrame = table.to_pandas()
    for position, values in special.items():
        if values is not None:
            frame.isetitem(position, values)
    return frame


def _special(column: pa.ChunkedArray) -> Any:
    """Return what a column of a table is in pandas, where Arrow itself would make something else of it; else None."""
    kind = column.type
    if pa.types.is_integer(kind) and kind.bit_width == 64 and column.null_count:
        # pandas would make floats of them.
        bounds = pc.min_max(column).as_py().values()
        if all(bound is None or abs(bound) <= _EXACT_IN_FLOAT for bound in bounds):
            return None
        types: Any = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}
        return column.to_pandas(types_mapper=types.get)
    if pa.types.is_nested(kind):
        return pd.Series(column.to_pylist(), dtype=object)
    if is_json(kind):
        texts = column.cast(pa.string()).to_pylist()
        return pd.Series([None if text is None else json.loads(text) for text in texts], dtype=object)
    if is_uuid(kind):
        return pd.Series([None if value is None else str(value) for value in column.to_pylist()], dtype=object)
    return None


def _foreign_table(data: Any) -> pa.Table | None:
    """Polars and Arrow as an Arrow table; None for anything else. Imports neither of them."""
    polars = sys.modules.get("polars")
    if polars is not None:
        if isinstance(data, polars.LazyFrame):
            data = data.collect()
        if isinstance(data, polars.DataFrame):
            return data.to_arrow()
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, pa.RecordBatchReader):
        return data.read_all()
    return None


def _arrow_column(series: pd.Series[Any]) -> Any:
    if isinstance(series.dtype, pd.PeriodDtype | pd.IntervalDtype):
        series = series.astype("string")
    elif series.dtype == object and _holds_dicts(series):
        return pa.array([_json(value) for value in series], pa.string()).cast(json_type())
    try:
        column = pa.Array.from_pandas(series)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([_text(value) for value in series], pa.string())
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _holds_dicts(series: pd.Series[Any]) -> bool:
    """Return whether the first value is a dict or a list of dicts: a column of JSON, whose keys may differ by row."""
    first = next((value for value in series if value is not None and value == value), None)
    return isinstance(first, dict) or (isinstance(first, list) and bool(first) and isinstance(first[0], dict))


def _json(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and value != value):
        return None
    return json.dumps(value, default=_json_default, ensure_ascii=False)


def _json_default(value: Any) -> Any:
    """Convert what JSON has no words for: numpy's values to Python's, the rest to text."""
    for method in ("tolist", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)


def _text(value: Any) -> str | None:
    """Return a value of a column of mixed types: dicts and lists as JSON, the rest as Python writes it."""
    if isinstance(value, dict | list | tuple):
        return _json(value)

    return None if pd.isna(value) else str(value)
