"""Polars DataFrames, LazyFrames (collected) and Series."""

from __future__ import annotations

from typing import Any

import polars as pl

from streamline.outputs.manifest import StoredValue
from streamline.outputs.storage import Storage, damaged


def write(storage: Storage, name: str, value: Any) -> StoredValue | None:
    """Store a frame or Series as Parquet, where its types come back from it, else as Arrow's IPC; None for what
    neither holds (columns of Python objects, rows without columns).
    """
    if isinstance(value, pl.LazyFrame):
        return _write_lazy(storage, name, value) or _write(storage, name, "polars", value.collect())
    if isinstance(value, pl.DataFrame):
        return _write(storage, name, "polars", value)
    if isinstance(value, pl.Series):
        return _write(storage, name, "polars_series", value.to_frame())
    return None


def _write(storage: Storage, name: str, codec: str, frame: pl.DataFrame) -> StoredValue | None:
    if frame.width == 0 or any(_holds_objects(kind) for kind in frame.dtypes):
        return None
    file = f"{name}.parquet"
    parquet = True
    try:
        frame.write_parquet(storage.target(file), compression="snappy")
        parquet = pl.read_parquet_schema(storage.source(file)) == frame.schema
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        parquet = False
    if not parquet:
        storage.remove(file)
        file = f"{name}.arrow"
        frame.write_ipc(storage.target(file))
    return StoredValue(
        file=file,
        codec=codec,
        rows=frame.height,
        columns=frame.columns,
        types=[str(kind) for kind in frame.dtypes] if parquet and not any(map(_is_odd, frame.dtypes)) else None,
    )


def _write_lazy(storage: Storage, name: str, query: pl.LazyFrame) -> StoredValue | None:
    """Have Polars write the rows as it finds them: they need not be in memory together. None where a column's type
    might not come back.
    """
    schema = query.collect_schema()
    if storage.path(name) is None or not schema or not all(_is_simple(kind) for kind in schema.dtypes()):
        return None
    file = f"{name}.parquet"
    query.sink_parquet(storage.target(file), compression="snappy")
    rows = pl.scan_parquet(storage.source(file), hive_partitioning=False).select(pl.len()).collect().item()
    types = [str(kind) for kind in schema.dtypes()]
    return StoredValue(file=file, codec="polars", rows=rows, columns=schema.names(), types=types)


def _is_odd(kind: pl.DataType) -> bool:
    """Return whether other readers of the file would see something else."""
    return any(word in str(kind) for word in ("Duration", "Int128", "Float16", "Null"))


def _is_simple(kind: pl.DataType) -> bool:
    if _is_odd(kind):
        return False
    return kind.is_integer() or kind.is_float() or kind in (pl.String, pl.Boolean, pl.Date, pl.Datetime, pl.Binary)


def _holds_objects(kind: pl.DataType) -> bool:
    if kind == pl.Object:
        return True
    inner = getattr(kind, "inner", None)
    if inner is not None:
        return _holds_objects(inner)
    return any(_holds_objects(field.dtype) for field in getattr(kind, "fields", ()))


def read(storage: Storage, stored: StoredValue) -> Any:
    """Read what `write` stored."""
    source = storage.source(stored.file)
    ipc = stored.file.endswith(".arrow")
    try:
        frame = pl.read_ipc(source) if ipc else pl.read_parquet(source, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(storage, stored.file, error) from error
    return frame.to_series() if stored.codec == "polars_series" else frame
