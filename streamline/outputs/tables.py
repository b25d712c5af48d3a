"""Values as Arrow tables, for SQL blocks, exports and other languages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from streamline.errors import ConfigError
from streamline.outputs.values import kind_of


def to_table(value: Any) -> pa.Table:
    """Convert `value` to one Arrow table.

    Args:
        value: a pandas or Polars frame or Series, an Arrow table, a list of dicts, a dict of lists, or a list of
            tables. A frame's named index levels become columns; an index without a name is left out.

    Raises:
        ConfigError: it is not a table.
    """
    library = type(value).__module__.partition(".")[0]
    try:
        if isinstance(value, pa.Table):
            return value
        if isinstance(value, pa.RecordBatch):
            return pa.Table.from_batches([value])
        if library == "pandas":
            table = _from_pandas(value)
        elif library == "polars":
            table = _from_polars(value)
        elif isinstance(value, list):
            table = _from_list(value)
        elif isinstance(value, dict) and value and all(isinstance(column, (list, tuple)) for column in value.values()):
            table = pa.table({str(name): _array(str(name), column) for name, column in value.items()})
        else:
            table = None
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"{kind_of(value)} cannot be converted to a table: {error}", code="output.not_a_table"
        ) from error
    if table is None:
        raise ConfigError(
            f"{kind_of(value)} is not a table",
            hint="a table is a DataFrame, a Series, an Arrow table, a list of dicts, a dict of lists, a list of tables",
            code="output.not_a_table",
        )
    return table


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate tables. Types widen where they differ; columns that a table lacks are null there.

    Raises:
        ConfigError: the types of a column have nothing in common.
    """
    filled = [table for table in tables if table.num_columns]
    if not filled:
        return pa.table({})
    if len(filled) == 1:
        return filled[0]
    try:
        return pa.concat_tables(filled, promote_options="permissive")
    except pa.ArrowException as error:
        raise ConfigError(
            f"the parts of the output do not make one table: {error}", code="output.not_a_table"
        ) from error


def _from_list(value: list[Any]) -> pa.Table | None:
    if not value:
        return pa.table({})
    if all(isinstance(row, dict) for row in value):
        names: dict[Any, None] = {}
        for row in value:
            names.update(dict.fromkeys(row))
        return pa.table({str(name): _array(str(name), [row.get(name) for row in value]) for name in names})
    if all(type(part).__module__.partition(".")[0] in ("pandas", "polars", "pyarrow") for part in value):
        return concatenated([to_table(part) for part in value])
    return None


def _array(name: str, values: Iterable[Any]) -> pa.Array:
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"column '{name}' has values of types that have no common type: {error}",
            hint="convert the column to one type, or to text",
            code="output.mixed_types",
        ) from error


def _from_pandas(value: Any) -> pa.Table | None:
    import pandas as pd

    if isinstance(value, pd.Series):
        value = value.to_frame("value" if value.name is None else value.name)
    if not isinstance(value, pd.DataFrame):
        return None
    from streamline.outputs.pandas_columns import column_names

    labels: list[Any] = list(value.columns)
    columns = [value.iloc[:, place] for place in range(len(labels))]
    # After the columns, as in the files; an index without a name only numbers the rows.
    for level, name in enumerate(value.index.names):
        if name is not None and name not in labels:
            labels.append(name)
            level_values = value.index.get_level_values(level)
            columns.append(pd.Series(level_values.array, dtype=level_values.dtype, copy=False))
    names = column_names(labels)
    return pa.table({name: _from_series(name, column) for name, column in zip(names, columns, strict=True)})


def _from_series(name: str, series: Any) -> pa.Array:
    from streamline.outputs.pandas_columns import arrow_column

    column = arrow_column(series)
    if column is not None:
        with contextlib.suppress(pa.ArrowException, ValueError, OverflowError):
            return column.part(0, len(series))
    return _array(name, series)


def _from_polars(value: Any) -> pa.Table | None:
    import polars as pl

    if isinstance(value, pl.LazyFrame):
        value = value.collect()
    if isinstance(value, pl.Series):
        value = value.to_frame()
    return value.to_arrow() if isinstance(value, pl.DataFrame) else None
