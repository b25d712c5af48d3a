"""The output of a source block: streams in Parquet files, read back as dicts of columns and rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from streamline.errors import ConfigError
from streamline.outputs.arrow_tables import read_table
from streamline.outputs.manifest import StoredValue
from streamline.outputs.storage import Storage
from streamline.outputs.stream_columns import joined, json_rows

CODEC = "streams"


class StreamFiles(msgspec.Struct, kw_only=True):
    """One stream. Its files are moved to their place.

    Args:
        stream: its catalog entry.
        columns: names, in their order; a file may lack some of them.
        files: Parquet files, in the order of their records, and how many rows each has.
    """

    stream: dict[str, Any]
    columns: Sequence[str]
    files: Sequence[tuple[Path, int]]


class Streams(msgspec.Struct, kw_only=True):
    """The output of a source block, as it is given to `write_output`; read back it is `{stream, columns, rows}`.

    Args:
        streams: all that the block reads, those without records included.
    """

    streams: Sequence[StreamFiles]


def write(storage: Storage, name: str, value: Streams) -> StoredValue:
    """Store the streams."""
    parts = [_write_stream(storage, f"{name}_{number}", stream) for number, stream in enumerate(value.streams)]
    return StoredValue(codec=CODEC, rows=sum(part.rows or 0 for part in parts), parts=parts)


def _write_stream(storage: Storage, name: str, stream: StreamFiles) -> StoredValue:
    files = []
    for number, (path, rows) in enumerate(stream.files):
        file = f"{name}_{number}.parquet"
        storage.take(file, path)
        files.append(StoredValue(file=file, codec="arrow", rows=rows))
    return StoredValue(
        codec="stream",
        rows=sum(rows for _, rows in stream.files),
        columns=list(stream.columns),
        parts=files,
        value=msgspec.Raw(msgspec.json.encode(stream.stream)),
    )


def read(storage: Storage, stored: StoredValue) -> Any:
    """Read the streams: a dict with `stream`, `columns` and `rows` for one, a list of them for several."""
    shapes = [_shape(storage, stream) for stream in stored.parts]
    return shapes[0] if len(shapes) == 1 else shapes


def _shape(storage: Storage, stored: StoredValue) -> dict[str, Any]:
    columns = stored.columns or []
    rows = [row for part in stored.parts for row in json_rows(read_table(storage, part), columns)]
    return {"stream": msgspec.json.decode(stored.value), "columns": list(columns), "rows": rows}


class StoredStream(msgspec.Struct, kw_only=True):
    """A stream as it is stored.

    Args:
        stream: its catalog entry.
        columns: names, in their order; a file may lack some of them.
        files: Parquet files, in the order of their records.
    """

    stream: dict[str, Any]
    columns: list[str]
    files: list[Path]


def stored(storage: Storage, value: StoredValue) -> list[StoredStream]:
    """Return the streams with their files, without reading them."""
    return [
        StoredStream(
            stream=msgspec.json.decode(stream.value),
            columns=list(stream.columns or []),
            files=[path for part in stream.parts if part.file and (path := storage.path(part.file)) is not None],
        )
        for stream in value.parts
    ]


def tables(storage: Storage, stored: StoredValue) -> dict[str, pa.Table]:
    """Read each stream as a table, by name."""
    return {msgspec.json.decode(stream.value)["stream"]: _table(storage, stream) for stream in stored.parts}


def table(storage: Storage, stored: StoredValue) -> pa.Table:
    """Read the one stream as a table.

    Raises:
        ConfigError: there are several.
    """
    if len(stored.parts) != 1:
        raise ConfigError(
            f"the block read {len(stored.parts)} streams, which are not one table",
            hint="take them in a Python block: as dict[str, DataFrame], or as a list of columns and rows",
            code="output.not_a_table",
        )
    return _table(storage, stored.parts[0])


def _table(storage: Storage, stored: StoredValue) -> pa.Table:
    parts = [read_table(storage, part) for part in stored.parts]
    whole = joined(parts) if parts else pa.table({})
    missing = [name for name in stored.columns or [] if name not in whole.column_names]
    for name in missing:
        whole = whole.append_column(name, pa.nulls(whole.num_rows))
    return whole.select(list(stored.columns or []))
