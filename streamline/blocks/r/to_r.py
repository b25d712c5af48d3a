"""Python values and Arrow tables as R has them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamline.blocks.r.rds import NA_INTEGER, NA_REAL_BITS, RVector, strings

Warn = Callable[[str], None]
EXACT = 2**53
"""Integers beyond it have no exact double, and R has no wider integers than 32 bits."""


class NotForRError(ValueError):
    """A value that has no equivalent in R."""


def data_frame(table: pa.Table, warn: Warn) -> RVector:
    """Convert a table to a data.frame.

    Integers become `integer` where 32 bits hold them, else `double`; dictionaries of text become factors, times
    without a zone POSIXct without one, nested values lists.

    Raises:
        NotForRError: a text holds NUL.
    """
    columns: list[RVector | None] = []
    for name, column in zip(table.column_names, table.columns, strict=True):

        def warn_of(text: str, name: str = name) -> None:
            warn(f"column '{name}': {text}")

        columns.append(vector(column, warn_of))
    return _frame(list(map(str, table.column_names)), columns, table.num_rows)


def _frame(names: Sequence[str], columns: list[RVector | None], rows: int) -> RVector:
    attributes = {
        "names": strings(*names),
        "class": strings("data.frame"),
        # R's short form of the row names 1, 2, …, n.
        "row.names": RVector("integer", np.array([NA_INTEGER, -rows], np.int32)),
    }
    return RVector("list", columns, attributes)


def vector(column: pa.ChunkedArray | pa.Array, warn: Warn) -> RVector:
    """Convert a column to a vector."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # more than one chunk is left where text is longer than 2 GiB
        array = pa.concat_arrays([chunk.cast(_large(chunk.type)) for chunk in array.chunks])
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind, types = array.type, pa.types
    if types.is_dictionary(kind):
        if _is_text(kind.value_type) and not array.dictionary.null_count and _distinct(array.dictionary):
            return _factor(array)
        return vector(array.dictionary_decode(), warn)
    if _is_text(kind):
        return RVector("string", array.to_pylist())
    if types.is_boolean(kind):
        return RVector("logical", _integers(array.cast(pa.int32())))
    if types.is_integer(kind):
        return _whole(array, warn)
    if types.is_floating(kind) or types.is_decimal(kind):
        return RVector("double", _doubles(array))
    if types.is_date(kind):
        return RVector("double", _doubles(array.cast(pa.date32()).cast(pa.int32())), {"class": strings("Date")})
    if types.is_timestamp(kind):
        attributes = {"class": strings("POSIXct", "POSIXt")}
        if kind.tz is not None:
            # An offset such as +02:00 has no name in R: its times are shown as UTC.
            attributes["tzone"] = strings("UTC" if kind.tz[:1] in "+-" else kind.tz)
        return RVector("double", _seconds(array, kind.unit), attributes)
    if types.is_duration(kind):
        attributes = {"class": strings("difftime"), "units": strings("secs")}
        return RVector("double", _seconds(array, kind.unit), attributes)
    if types.is_null(kind):
        return RVector("logical", _integers(pc.cast(array, pa.int32())))
    return RVector("list", [to_r(item) for item in array.to_pylist()])


def to_r(value: Any) -> RVector | None:
    """Convert any Python value: a dict to a named list, a list of scalars of one type to a vector.

    Raises:
        NotForRError: it has no equivalent in R.
    """
    value = _plain(value)
    if value is None:
        return None
    if isinstance(value, Mapping):
        return RVector("list", [to_r(item) for item in value.values()], {"names": strings(*map(str, value))})
    if isinstance(value, bytes | bytearray | memoryview):
        return RVector("raw", bytes(value))
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        elements = [_plain(item) for item in value]
        kinds = {_scalar_kind(element) for element in elements if element is not None}
        if len(kinds) == 1 and None not in kinds:
            return _scalars(elements)
        if kinds == {"integer", "double"}:
            return _scalars([None if value is None else float(value) for value in elements])
        return RVector("list", [to_r(element) for element in elements])
    if _scalar_kind(value) is not None:
        return _scalars([value])
    if type(value).__name__ == "DataFrame":
        return _mixed_frame(value)
    if hasattr(value, "__array__") or hasattr(value, "__arrow_c_array__") or hasattr(value, "to_frame"):
        return vector(pa.array(value), lambda _: None)
    raise NotForRError(f"a value of type {type(value).__name__} cannot be passed to R")


def _mixed_frame(frame: Any) -> RVector:
    """Convert a DataFrame with columns that have no Arrow type, such as numbers beside text, to one of lists."""
    columns = {str(name): to_r(list(frame[name])) for name in frame.columns}
    return _frame(list(columns), list(columns.values()), len(frame))


def _plain(value: Any) -> Any:
    """Convert scalars of NumPy and pandas to Python's own."""
    if value is None or isinstance(value, bool | int | float | str | list | dict):
        return value
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, dt.datetime | dt.date | dt.timedelta):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dt.time) or type(value).__module__ in ("uuid", "pathlib"):
        return str(value)
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "shape", None) == () else value


def _scalar_kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "logical"
    if isinstance(value, dt.datetime):
        return f"time {value.tzinfo}"
    kinds: tuple[tuple[str, type], ...] = (
        *(("integer", int), ("double", float), ("string", str)),
        *(("date", dt.date), ("duration", dt.timedelta)),
    )
    return next((kind for kind, of in kinds if isinstance(value, of)), None)


def _scalars(values: list[Any]) -> RVector:
    """Convert scalars of one kind to a vector."""
    if any(isinstance(value, str) for value in values):
        return RVector("string", values)
    if any(isinstance(value, int) and abs(value) >= 2**63 for value in values):
        values = [None if value is None else float(value) for value in values]
    return vector(pa.array(values), lambda _: None)


def _whole(array: pa.Array, warn: Warn) -> RVector:
    if array.type.bit_width >= 32:
        ends = pc.min_max(array)
        low, high = ends["min"].as_py(), ends["max"].as_py()
        if low is not None and (low <= NA_INTEGER or high >= 2**31):
            if low < -EXACT or high > EXACT:
                warn("integers beyond 2^53 are rounded: R's widest number is a double; send them as text to keep them")
            return RVector("double", _doubles(array))
    return RVector("integer", _integers(array.cast(pa.int32())))


def _integers(array: pa.Array) -> np.ndarray[Any, Any]:
    if array.null_count:
        array = array.fill_null(NA_INTEGER)
    return np.asarray(array.to_numpy(zero_copy_only=False), np.int32)


def _doubles(array: pa.Array, divisor: int = 1) -> np.ndarray[Any, Any]:
    missing = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    plain = array.fill_null(0) if missing is not None else array
    values = np.asarray(plain.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
    if divisor != 1:
        values = values / divisor
    return values if missing is None else _with_missing(values, missing)


def _seconds(array: pa.Array, unit: str) -> np.ndarray[Any, Any]:
    """Convert times or durations to seconds. Divided by whole powers of ten, so that they round back exactly."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return _doubles(array.cast(pa.int64()), per_second)


def _with_missing(values: np.ndarray[Any, Any], missing: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    values = values.copy()
    values.view(np.uint64)[missing] = NA_REAL_BITS
    return values


def _factor(array: Any) -> RVector:
    codes = _integers(pa.compute.add(array.indices.cast(pa.int32()), 1))
    classes = strings("ordered", "factor") if array.type.ordered else strings("factor")
    return RVector("integer", codes, {"levels": RVector("string", array.dictionary.to_pylist()), "class": classes})


def _is_text(kind: pa.DataType) -> bool:
    view = getattr(pa.types, "is_string_view", lambda _: False)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or view(kind))


def _large(kind: pa.DataType) -> pa.DataType:
    return pa.large_string() if _is_text(kind) else pa.large_binary() if pa.types.is_binary(kind) else kind


def _distinct(dictionary: pa.Array) -> bool:
    return len(dictionary.unique()) == len(dictionary)
