"""Arrow tables: Parquet where the same types come back from it, else Arrow's own file format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from streamline.outputs.errors import OutputError
from streamline.outputs.manifest import StoredValue
from streamline.outputs.parquet import ROW_GROUP, plain_types, slices, write_parquet
from streamline.outputs.storage import Storage, damaged


def write(storage: Storage, name: str, value: Any) -> StoredValue | None:
    """Store a Table, a RecordBatch, or what a RecordBatchReader gives; None for anything else of Arrow's."""
    if isinstance(value, pa.Table):
        return _write(storage, name, "arrow", value.schema, value.to_batches(), value.num_rows)
    if isinstance(value, pa.RecordBatch):
        return _write(storage, name, "arrow_batch", value.schema, [value], value.num_rows)
    if isinstance(value, pa.RecordBatchReader):
        return _write(storage, name, "arrow", value.schema, value, None)
    return None


def _write(
    storage: Storage, name: str, codec: str, schema: pa.Schema, batches: Any, rows: int | None
) -> StoredValue | None:
    if not schema.names and rows:
        return None  # rows without columns: neither format counts them
    if survives_parquet(schema):
        file = f"{name}.parquet"
        written = write_parquet(storage, file, schema, _grouped(batches, schema))
    else:
        file, written = _ipc(storage, name, schema, batches)
    return StoredValue(
        file=file,
        codec=codec,
        rows=written,
        columns=list(schema.names),
        types=plain_types(schema) if file.endswith(".parquet") else None,
    )


def _grouped(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Join small batches to row groups, and cut large ones."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        for start, stop in slices(batch.num_rows):
            if rows + stop - start > ROW_GROUP:
                yield pa.Table.from_batches(waiting, schema)
                waiting, rows = [], 0
            waiting.append(batch.slice(start, stop - start))
            rows += stop - start
    if waiting:
        yield pa.Table.from_batches(waiting, schema)


def _ipc(storage: Storage, name: str, schema: pa.Schema, batches: Any) -> tuple[str, int]:
    file = f"{name}.arrow"
    rows = 0
    options = pa.ipc.IpcWriteOptions(unify_dictionaries=True)
    with storage.create(file) as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return file, rows


def survives_parquet(schema: pa.Schema) -> bool:
    """Return whether a table with this schema comes back from Parquet with the same types, and with equal values."""
    if not schema.names or len(set(schema.names)) != len(schema.names):
        return False
    if any(_reordered(field.type) for field in schema):
        return False
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(schema.empty_table(), sink)
        back = pq.read_schema(pa.BufferReader(sink.getvalue()))
    except (pa.ArrowException, ValueError):
        return False
    return bool(back.equals(schema))


def _reordered(kind: pa.DataType) -> bool:
    """Return whether values of the type hold dictionaries, which Parquet writes anew."""
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return True
    if pt.is_struct(kind) and len({kind.field(n).name for n in range(kind.num_fields)}) != kind.num_fields:
        return True
    return any(_reordered(kind.field(number).type) for number in range(kind.num_fields))


def read_table(storage: Storage, stored: StoredValue) -> pa.Table:
    """Read the table of a Parquet or Arrow file, unconverted."""
    try:
        if stored.file.endswith(".arrow"):
            source = storage.source(stored.file)
            with pa.memory_map(source) if isinstance(source, str) else pa.BufferReader(source.getvalue()) as file:
                return pa.ipc.open_file(file).read_all()
        with pq.ParquetFile(storage.source(stored.file)) as file:
            return file.read()
    except pa.ArrowException as error:
        raise damaged(storage, stored.file, error) from error


def read(storage: Storage, stored: StoredValue) -> Any:
    """Read what `write` stored."""
    table = read_table(storage, stored)
    if stored.codec == "arrow":
        return table
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def take(storage: Storage, name: str, path: Path) -> StoredValue:
    """Make a finished Parquet file an output."""
    try:
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise OutputError(f"{path} is not a Parquet file: {error}", code="output.not_parquet") from error
    file = f"{name}.parquet"
    storage.take(file, path)
    return StoredValue(
        file=file,
        codec="pandas",
        rows=metadata.num_rows,
        columns=list(schema.names),
        types=[str(field.type) for field in schema],
    )
