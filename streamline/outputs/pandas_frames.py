"""pandas DataFrames and Series."""

from __future__ import annotations

from typing import Any

from streamline.outputs.manifest import Stored
from streamline.outputs.place import Place


def write(place: Place, name: str, value: Any) -> Stored | None:
    """Store a DataFrame or Series; None for what only pickle holds."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    if type(value) is not pd.DataFrame:
        return None
    if not value.columns.is_unique or not all(type(column) is str for column in value.columns):
        return None
    for position, kind in enumerate(value.dtypes):
        if kind.kind == "O" and pd.api.types.infer_dtype(value.iloc[:, position], skipna=False) != "string":
            return None
    try:
        table = pa.Table.from_pandas(value)
    except (pa.ArrowException, TypeError, ValueError):
        return None
    file = f"{name}.parquet"
    pq.write_table(table, place.target(file), compression="snappy")
    clean = table.schema.names == list(value.columns)
    types = [str(field.type) for field in table.schema] if clean else None
    return Stored(file=file, codec="pandas", rows=len(value), columns=list(table.schema.names), types=types)


def read(place: Place, stored: Stored) -> Any:
    """What `write` stored."""
    from streamline.outputs.arrow_tables import read_table

    return read_table(place, stored).to_pandas(split_blocks=True, self_destruct=True)
