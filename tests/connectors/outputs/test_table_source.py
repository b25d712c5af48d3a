"""Parquet files as the tables that a destination block exports."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streamline.connectors.outputs.table_source import tables_of
from streamline.flow.codecs.arrow_types import is_json, json_field


def test_a_large_row_group_is_read_in_parts(tmp_path: Path) -> None:
    ids = pa.table({"id": range(200_000)})
    pq.write_table(ids, tmp_path / "a.parquet", row_group_size=200_000)
    pq.write_table(ids.slice(0, 1), tmp_path / "b.parquet")
    tables = list(tables_of([tmp_path / "a.parquet", tmp_path / "b.parquet"]))
    assert max(table.num_rows for table in tables) < 100_000
    assert pa.concat_tables(tables).column("id").to_pylist() == [*range(200_000), 0]


def test_columns_of_json_text_stay_such(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(['{"a":1}'])], schema=pa.schema([json_field("any")]))
    pq.write_table(table, tmp_path / "a.parquet")
    (read,) = tables_of([tmp_path / "a.parquet"])
    assert is_json(read.schema.field("any"))
