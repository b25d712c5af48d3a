"""A database's rows as a block's output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamline.blocks.call import BlockCall

if TYPE_CHECKING:
    import pyarrow as pa

OUTPUT_FILE = "output.parquet"


def save(call: BlockCall, rows: pa.Table | None) -> Any:
    """The rows as a Parquet file that becomes the output; None where there are no columns."""
    if rows is None or not rows.num_columns:
        return None
    import pyarrow.parquet as pq

    from streamline.outputs.values import ParquetFile

    path = call.scratch / OUTPUT_FILE
    pq.write_table(rows, path)
    return ParquetFile(path)
