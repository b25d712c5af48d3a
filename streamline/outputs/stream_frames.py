"""The streams of a source block as tables of pandas, Polars and pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streamline.errors import ConfigError
from streamline.flow.codecs.arrow_types import arrow_field, is_json
from streamline.flow.codecs.schemas import properties
from streamline.outputs.frames import Frames, Library
from streamline.outputs.manifest import StoredValue
from streamline.outputs.parquet import plain_types
from streamline.outputs.storage import Storage, damaged
from streamline.outputs.stream_columns import joined, json_rows, json_values
from streamline.outputs.streams import StoredStream


def merged(outputs: Sequence[Sequence[StoredStream]]) -> list[StoredStream]:
    """Join the streams of several calls of a block, by their names: the rows of the first call come first."""
    streams: dict[str, StoredStream] = {}
    for stream in (stream for output in outputs for stream in output):
        known = streams.get(stream.name)
        if known is None:
            streams[stream.name] = msgspec.structs.replace(stream, parts=list(stream.parts))
        else:
            known.parts += stream.parts
            known.columns += [name for name in stream.columns if name not in known.columns]
    return list(streams.values())


def one_stream(streams: Sequence[StoredStream]) -> StoredStream:
    """Return the only stream.

    Raises:
        ConfigError: there are several.
    """
    if len(streams) != 1:
        raise ConfigError(
            f"it has {len(streams)} streams, which are not one table: {', '.join(stream.name for stream in streams)}",
            hint="take them in a Python block with a parameter annotated dict[str, pandas.DataFrame], or let the "
            "source read one stream",
            code="output.not_a_table",
        )
    return streams[0]


def to_frames(streams: Sequence[StoredStream], frames: Frames) -> Any:
    """Read streams as tables.

    Raises:
        ConfigError: one table is asked for, and there are several streams.
        OutputError: a file is damaged.
    """
    if frames.form == "single" or (frames.form == "any" and len(streams) == 1):
        return _to_frame(one_stream(streams), frames.library)
    tables = {stream.name: _to_frame(stream, frames.library) for stream in streams}
    return list(tables.values()) if frames.form == "list" else tables


def _to_frame(stream: StoredStream, library: Library) -> Any:
    if library == "pandas":
        return to_pandas(stream)
    table = to_table(stream)
    if library == "polars":
        import polars as pl

        return pl.from_arrow(table)
    return table


def to_table(stream: StoredStream) -> pa.Table:
    """Read a stream as a table. Values of objects and of columns with several types are JSON text."""
    return _Columns(stream).read(stream.columns)


def first_rows(stream: StoredStream, most: int) -> list[list[Any]]:
    """Return the first rows of a stream as JSON values."""
    rows: list[list[Any]] = []
    for storage, file in stream.parts:
        with pq.ParquetFile(storage.source(file.file)) as opened:
            for batch in opened.iter_batches(batch_size=min(most, 1 << 12)):
                rows += json_rows(pa.Table.from_batches([batch]), stream.columns)
                if len(rows) >= most:
                    return rows[:most]
    return rows


def parquet_files(streams: Sequence[StoredStream]) -> list[Path] | None:
    """Return the files of the only stream, if each has all its columns in the same types; else None."""
    if len(streams) != 1 or not streams[0].parts:
        return None
    paths = [storage.path(file.file) for storage, file in streams[0].parts]
    schemas = [pq.read_schema(path) for path in paths if path is not None]
    same = all(schema.equals(schemas[0]) for schema in schemas)
    complete = len(schemas) == len(paths) and schemas[0].names == streams[0].columns
    return [path for path in paths if path is not None] if same and complete and plain_types(schemas[0]) else None


def to_pandas(stream: StoredStream) -> Any:
    """Read a stream as a DataFrame, as other outputs come back; JSON text becomes the values that it stands for.

    Column by column: no more than one is in memory twice.
    """
    import pandas as pd

    from streamline.outputs.pandas_frames import as_pandas

    reader = _Columns(stream)
    series: dict[str, Any] = {}
    for name in stream.columns:
        table = reader.read([name])
        field = table.schema.field(0)
        if is_json(field):
            series[name] = _objects(json_values(table.column(0)))
        elif pa.types.is_nested(field.type):
            series[name] = _objects(table.column(0).to_pylist())
        else:
            series[name] = as_pandas(table, split=True)[name]
        del table
        pa.default_memory_pool().release_unused()
    return pd.DataFrame(series, index=pd.RangeIndex(stream.rows), copy=False)


def _objects(values: list[Any]) -> Any:
    import numpy as np
    import pandas as pd

    array = np.empty(len(values), object)
    array[:] = values
    return pd.Series(array, dtype=object, copy=False)


class _Columns:
    """Reads columns of a stream from all its files."""

    def __init__(self, stream: StoredStream) -> None:
        self._stream = stream
        self._declared = properties(stream.stream.get("schema") or {})

    def read(self, names: Sequence[str]) -> pa.Table:
        """Read columns. One that no file has is null, in the type that the stream's schema declares."""
        tables = [self._part(storage, file, names) for storage, file in self._stream.parts]
        table = joined(tables) if tables else pa.table({})
        rows = sum(part.num_rows for part in tables)
        for name in names:
            if name not in table.column_names:
                field = arrow_field(name, self._declared.get(name))
                table = table.append_column(field, pa.nulls(rows, field.type))
        return table.select(list(names))

    def _part(self, storage: Storage, stored: StoredValue, names: Sequence[str]) -> pa.Table:
        try:
            with pq.ParquetFile(storage.source(stored.file)) as file:
                present = [name for name in names if name in file.schema_arrow.names]
                # By its path: "a" would be "a.b", too.
                return file.read(present).select(present)
        except pa.ArrowException as error:
            raise damaged(storage, stored.file, error) from error
