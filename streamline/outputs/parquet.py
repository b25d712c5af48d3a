"""What all Parquet files of outputs have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pyarrow.types as pt

from streamline.outputs.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 1 << 18
"""Rows at most in a row group: what a reader of few rows has to decode, and what readers share among threads."""

_COMPRESSION = "snappy"  # every reader of Parquet knows it


def write_parquet(storage: Storage, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write tables one after the other into a new file; how many rows they had."""
    rows = 0
    with (
        pq.ParquetWriter(
            storage.target(name), schema, compression=_COMPRESSION, use_dictionary=_worth_a_dictionary(schema)
        ) as writer,
        storage.early(name) as early,
    ):
        for table in tables:
            writer.write_table(table, row_group_size=ROW_GROUP)
            rows += table.num_rows
            early()
    return rows


def _worth_a_dictionary(schema: pa.Schema) -> list[str] | bool:
    """Return the columns of text: numbers seldom repeat, and trying costs a third of the time."""
    return [
        field.name
        for field in schema
        if pt.is_dictionary(field.type) or pt.is_string(field.type) or pt.is_large_string(field.type)
    ] or False


def plain_types(schema: pa.Schema) -> list[str] | None:
    """Return the types of the columns; None where other readers of the file would see something else."""
    types = [str(field.type) for field in schema]
    odd = ("duration", "decimal256", "halffloat")
    return None if any(word in kind for kind in types for word in odd) else types


def slices(rows: int) -> Iterable[tuple[int, int]]:
    """Return where row groups begin and end."""
    return ((start, min(start + ROW_GROUP, rows)) for start in range(0, rows, ROW_GROUP))
