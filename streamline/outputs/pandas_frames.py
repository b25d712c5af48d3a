"""pandas DataFrames and Series as Parquet files that any reader understands, and that come back as they were.

The file has every column that Arrow has a type for. What pandas would not read back from it exactly (an index, Python
objects, categories, some dtypes) is pickled beside it as well, and comes back from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from streamline.outputs import pickled
from streamline.outputs.manifest import StoredValue
from streamline.outputs.pandas_columns import REFUSALS, ArrowColumn, arrow_column, column_names
from streamline.outputs.parquet import plain_types, slices, write_parquet
from streamline.outputs.storage import Storage, damaged

# Below it a frame is put together in one piece per dtype, which pandas computes with faster; above it that copy
# would cost more than it brings.
_SMALL = 1 << 24
# A large frame is read a few columns at a time: only these are in memory twice, as Arrow's and as pandas'. Each read
# looks at the description of all columns, so a wide frame is read in no more than so many parts.
_COLUMNS, _PARTS = 4, 16


def write(storage: Storage, name: str, value: Any) -> StoredValue | None:
    """Store a DataFrame or Series; None for what only pickle restores: subclasses, an Index, odd values."""
    if type(value) is pd.Series:
        frame, codec = value.to_frame(0), "pandas_series"
        labels: list[Any] = ["value" if value.name is None else value.name]
    elif type(value) is pd.DataFrame:
        frame, codec = value, "pandas"
        labels = list(value.columns)
    else:
        return None
    names = column_names(labels)
    columns = {label: arrow_column(frame.iloc[:, number]) for number, label in enumerate(names)}
    if not any(columns.values()):
        return None
    levels, complete = _levels(frame.index, names)
    beside = _beside(value, names)
    odd = {
        label: frame.iloc[:, number].array
        for number, (label, column) in enumerate(columns.items())
        if column is None or not column.exact
    }
    if odd:
        beside["odd"] = odd
    written = {label: column for label, column in columns.items() if column is not None} | levels
    file, objects = f"{name}.parquet", f"{name}.objects.pkl"
    try:
        if beside:
            pickled.write(storage, objects, beside)
        fields = [(label, column.type) for label, column in written.items()]
        schema = pa.schema(fields, metadata=_metadata(frame, columns, levels))
        write_parquet(storage, file, schema, _tables(schema, list(written.values()), len(frame)))
    except (pickled.Unpicklable, *REFUSALS):
        # A value that does not fit its column's type (text that is not UTF-8), or that cannot be pickled: pickling the
        # whole frame restores it, or reports where it is.
        storage.remove(file)
        storage.remove(objects)
        return None
    return StoredValue(
        file=file,
        codec=codec,
        rows=len(frame),
        columns=names,
        types=plain_types(schema) if complete and all(columns.values()) else None,
        parts=[StoredValue(file=objects, codec="pickle")] if beside else [],
    )


def _beside(value: Any, names: list[str]) -> dict[str, Any]:
    """Return what a Parquet file's columns alone do not tell pandas."""
    beside: dict[str, Any] = {}
    if isinstance(value, pd.DataFrame):
        if not _is_same(value.columns, pd.Index(names)):
            beside["columns"] = value.columns
    elif type(value.name) is not str or value.name != names[0]:
        beside["name"] = value.name
    if not _is_same(value.index, pd.RangeIndex(len(value))):
        beside["index"] = value.index
    if value.attrs:
        beside["attrs"] = value.attrs
    if not value.flags.allows_duplicate_labels:
        beside["unique"] = True
    return beside


def _is_same(index: Any, other: Any) -> bool:
    return type(index) is type(other) and index.dtype == other.dtype and index.identical(other) and index.name is None


def _levels(index: Any, names: Sequence[str]) -> tuple[dict[str, ArrowColumn], bool]:
    """Return the named levels of an index, for other readers: grouping by a column moves it into the index.

    Returns:
        The levels, and whether there are no others.
    """
    levels: dict[str, ArrowColumn] = {}
    named = [(number, name) for number, name in enumerate(index.names) if name is not None]
    for number, name in named:
        if type(name) is str and name and name not in names:
            level = index.get_level_values(number)
            column = arrow_column(pd.Series(level.array, dtype=level.dtype, copy=False))
            if column is not None:
                levels[name] = column
    return levels, len(levels) == len(named)


def _metadata(
    frame: Any, columns: Mapping[str, ArrowColumn | None], levels: dict[str, ArrowColumn]
) -> dict[bytes, bytes]:
    """Return the metadata that pandas reads."""
    # What is pickled beside the file is not described: pandas cannot parse the names of all dtypes.
    exact = [(number, label) for number, (label, column) in enumerate(columns.items()) if column and column.exact]
    empty = frame.iloc[:0, [number for number, _ in exact]]
    empty.columns = [label for _, label in exact]
    empty.attrs = {}
    with_index = len(levels) == frame.index.nlevels and all(level.exact for level in levels.values())
    metadata: dict[bytes, bytes] = pa.Schema.from_pandas(empty, preserve_index=with_index).metadata
    return metadata


def _tables(schema: pa.Schema, columns: Sequence[ArrowColumn], rows: int) -> Iterator[pa.Table]:
    """Yield the row groups, each made when it is written."""
    for start, stop in slices(rows):
        yield pa.Table.from_arrays([column.part(start, stop) for column in columns], schema=schema)


def read(storage: Storage, stored: StoredValue) -> Any:
    """Read what `write` stored.

    Raises:
        OutputError: the file is damaged.
    """
    beside: dict[str, Any] = {}
    if stored.parts:
        beside = pickled.read(storage, stored.parts[0].file, f"what belongs to {stored.file}")
    odd = beside.get("odd", {})
    exact = [name for name in stored.columns or [] if name not in odd]
    try:
        with pq.ParquetFile(storage.source(stored.file)) as file:
            frame = _read_frame(file, exact, odd, stored)
    except pa.ArrowException as error:
        raise damaged(storage, stored.file, error) from error
    value: Any = frame
    if stored.codec == "pandas_series":
        value = frame.iloc[:, 0]
        value.name = beside.get("name", value.name)
    elif "columns" in beside:
        frame.columns = beside["columns"]
    if "index" in beside:
        value.index = beside["index"]
    value.attrs = beside.get("attrs", {})
    return value.set_flags(allows_duplicate_labels=False) if "unique" in beside else value


def _read_frame(file: pq.ParquetFile, exact: list[str], odd: dict[str, Any], stored: StoredValue) -> Any:
    """Read the columns `exact`, and put the `odd` ones between them."""
    groups = range(file.metadata.num_row_groups)
    large = sum(file.metadata.row_group(group).total_byte_size for group in groups) >= _SMALL
    width = max(min(os.cpu_count() or 1, _COLUMNS), -(-len(exact) // _PARTS)) if large else max(len(exact), 1)
    columns: dict[str, Any] = {}
    for start in range(0, max(len(exact), 1), width):
        names = exact[start : start + width]
        # By its path: "a" would be "a.b", too.
        table = file.read(names).select(names)
        texts = _text_objects(table)
        if len(names) == len(exact) and not odd and not texts:
            return as_pandas(table)
        columns |= {name: table.column(name).to_numpy() for name in texts}
        table = table.drop_columns(texts)
        columns |= dict(as_pandas(table, split=large).items())
        del table
    columns |= odd
    small = sum(column.nbytes for column in columns.values()) < _SMALL
    series = {name: pd.Series(columns[name], dtype=columns[name].dtype, copy=False) for name in stored.columns or []}
    return pd.DataFrame(series, copy=small)


def _text_objects(table: pa.Table) -> list[str]:
    """Return the columns of Python's str, which pandas 3 would read as another dtype."""
    described = (table.schema.pandas_metadata or {}).get("columns", [])
    objects = {column["field_name"] for column in described if column["numpy_type"] == "object"}
    return [field.name for field in table.schema if field.name in objects and str(field.type) == "string"]


def as_pandas(table: pa.Table, *, split: bool = False) -> Any:
    """Convert a table as pandas reads it, except that integers beside NULLs stay integers (`Int64`): as floats, large
    ones would be rounded. The metadata of a table written from pandas wins.

    Args:
        split: keep each column in memory of its own, as in a large table.
    """
    described = table.schema.metadata or {}
    if b"pandas" not in described:
        columns = [
            {
                "name": field.name,
                "field_name": field.name,
                "pandas_type": str(field.type),
                "numpy_type": str(field.type).replace("uint", "UInt").replace("int", "Int"),
                "metadata": None,
            }
            for index, field in enumerate(table.schema)
            if pa.types.is_integer(field.type) and table.column(index).null_count
        ]
        if columns:
            description = {"index_columns": [], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
            table = table.replace_schema_metadata({**described, b"pandas": json.dumps(description).encode()})
    # Columns in one piece would be Arrow's own memory, which cannot be written to.
    pieces = pa.concat_tables([table, table.slice(0, 0)])
    large = split or table.nbytes >= _SMALL
    del table
    # The same inside of structs and lists, where pandas has no types of its own.
    return pieces.to_pandas(integer_object_nulls=True, split_blocks=large, self_destruct=large)
