"""The output of a source block: streams in Parquet files, read back as dicts of columns and rows."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from streamline.outputs.arrow_tables import read_table
from streamline.outputs.manifest import StoredValue
from streamline.outputs.storage import Storage
from streamline.outputs.stream_columns import json_rows

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
    """Read all streams, see `read_shapes`."""
    return read_shapes(stored_streams(storage, stored))


class StoredStream(msgspec.Struct, kw_only=True):
    """A stream as it is stored.

    Args:
        name: unique among the block's streams.
        stream: its catalog entry.
        columns: names, in their order; a file may lack some of them.
        parts: Parquet files, in the order of their records, and where each is.
    """

    name: str
    stream: dict[str, Any]
    columns: list[str]
    parts: list[tuple[Storage, StoredValue]]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(part.rows or 0 for _, part in self.parts)

    @property
    def files(self) -> list[Path]:
        """The files of an output that is stored in a folder."""
        return [path for storage, part in self.parts if (path := storage.path(part.file)) is not None]


def read_shapes(streams: Sequence[StoredStream]) -> Any:
    """Read streams: a dict with `stream`, `columns` and `rows` for one, a list of them for several."""
    shapes = []
    for stream in streams:
        with _garbage_kept():
            rows = [row for part in stream.parts for row in json_rows(read_table(*part), stream.columns)]
        shapes.append({"stream": stream.stream, "columns": list(stream.columns), "rows": rows})
    return shapes[0] if len(shapes) == 1 else shapes


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Keep the garbage collector from looking at the rows again and again while there are more and more of them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def stored_streams(storage: Storage, value: StoredValue) -> list[StoredStream]:
    """Return the streams with their files, without reading them."""
    entries: list[dict[str, Any]] = [msgspec.json.decode(stream.value) for stream in value.parts]
    names = [entry["stream"] for entry in entries]
    return [
        StoredStream(
            name=name if names.count(name) == 1 else entry.get("tap_stream_id", name),
            stream=entry,
            columns=list(stream.columns or []),
            parts=[(storage, part) for part in stream.parts],
        )
        for name, entry, stream in zip(names, entries, value.parts, strict=True)
    ]
