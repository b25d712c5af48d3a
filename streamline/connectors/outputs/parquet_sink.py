"""A sink that writes the records of each stream to Parquet files: the output of a source block in a batch pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streamline.errors import StreamlineError
from streamline.flow.codecs.arrow_reader import ArrowReader
from streamline.flow.codecs.lanes import to_raw
from streamline.flow.codecs.schemas import properties
from streamline.flow.items import ActivateVersion, ArrowBatch, Item, JSONObject, Position, RawBatch, RowBatch, Schema
from streamline.flow.protocols import Failed, Proven
from streamline.outputs.stream_columns import joined

GROUP_ROWS = 1 << 18
"""Rows of a row group."""
GROUP_BYTES = 64 << 20
"""Bytes of a stream's rows that wait for their row group."""
WAITING_BYTES = 256 << 20
"""Bytes of all streams' rows that wait."""


class Part(msgspec.Struct, kw_only=True):
    """One Parquet file, with rows of one table version."""

    path: Path
    version: int | None
    rows: int = 0


class WrittenStream(msgspec.Struct, kw_only=True):
    """What was written of one stream.

    Args:
        schema: the JSON Schema that came last.
        columns: of any record, in the order of the schema; columns that it does not declare come last.
        parts: in the order of their records. A column may have another type in each, and may be missing.
    """

    stream: str
    schema: JSONObject
    columns: list[str]
    parts: list[Part]

    @property
    def rows(self) -> int:
        """Number of records."""
        return sum(part.rows for part in self.parts)


class ParquetSink:
    """Writes each stream's records to Parquet files in a folder. Proves everything when it is closed.

    Args:
        folder: an empty folder, which the sink's user removes.
    """

    def __init__(self, id: str, folder: Path) -> None:
        self.id = id
        self._folder = folder
        self._streams: dict[str, _StreamWriter] = {}
        self._numbers: dict[str, int] = {}
        self._failure: StreamlineError | None = None
        self._turn = anyio.Lock()
        self._limited, self._seconds = anyio.Event(), 0.0
        self._ended = anyio.Event()
        self._working: anyio.CancelScope | None = None
        self._stuck = False

    @property
    def unproven(self) -> bool:
        """Whether it was sent something that it has not proven: until it is closed."""
        return not self._ended.is_set()

    def written(self) -> list[WrittenStream]:
        """Return what was written, in the order in which the streams began; whole after `close`."""
        return [writer.written() for writer in self._streams.values()]

    async def run(self, proven: Proven, failed: Failed) -> None:
        """See `Sink.run`."""
        self._proven, self._failed = proven, failed
        try:
            await self._limited.wait()
            with anyio.move_on_after(self._seconds):
                await self._ended.wait()
                return
            self._fail(StreamlineError("it did not end in time", where=self.id, code="output.not_written"))
            await self._ended.wait()
        finally:
            if not self._stuck:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._abandon)

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """See `Sink.send`."""
        async with self._turn:
            await self._in_thread(partial(self._take, source, items))

    async def source_ended(self, source: str) -> None:
        """See `Sink.source_ended`; no position is ever held back."""

    def limit(self, seconds: float) -> None:
        """See `Sink.limit`."""
        self._seconds = seconds
        self._limited.set()

    async def close(self) -> None:
        """See `Sink.close`."""
        try:
            if self._failure is not None:
                return
            async with self._turn:
                await self._in_thread(self._finish)
            for source, number in self._numbers.items():
                self._proven(source, number)
        finally:
            self._ended.set()

    async def _in_thread(self, work: Any) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            with anyio.CancelScope() as self._working:
                # A write that hangs cannot be ended, but nobody has to wait for it.
                self._stuck = True
                await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
                self._stuck = False
        except StreamlineError as error:
            self._stuck = False
            self._fail(error)
            raise
        except (OSError, pa.ArrowException) as error:
            self._stuck = False
            failure = StreamlineError(
                f"the output cannot be stored: {error}", where=str(self._folder), code="output.not_written"
            )
            self._fail(failure)
            raise failure from error
        finally:
            self._working = None
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: StreamlineError) -> None:
        if self._failure is None:
            self._failure = error
            self._failed(error)
            if self._working is not None:
                self._working.cancel()

    # -- in a worker thread

    def _take(self, source: str, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, RawBatch | RowBatch | ArrowBatch):
                self._writer(item.stream).take(item)
            elif isinstance(item, Schema):
                self._writer(item.stream).set_schema(item.schema)
            elif isinstance(item, ActivateVersion):
                self._writer(item.stream).activate(item)
            elif isinstance(item, Position):
                self._numbers[source] = item.number
        while sum(writer.waiting_bytes for writer in self._streams.values()) > WAITING_BYTES:
            max(self._streams.values(), key=lambda writer: writer.waiting_bytes).flush()

    def _writer(self, stream: str) -> _StreamWriter:
        if stream not in self._streams:
            prefix = f"{len(self._streams)}-"
            self._streams[stream] = _StreamWriter(stream, self._folder, prefix)
        return self._streams[stream]

    def _finish(self) -> None:
        for writer in self._streams.values():
            writer.close()

    def _abandon(self) -> None:
        for writer in self._streams.values():
            writer.abandon()


class _StreamWriter:
    def __init__(self, stream: str, folder: Path, prefix: str) -> None:
        self.waiting_bytes = 0
        self._stream = stream
        self._folder = folder
        self._prefix = prefix
        self._schema: JSONObject = {}
        self._reader = ArrowReader(None)
        self._seen: dict[str, None] = {}
        self._version: int | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._files = 0
        self._parts: list[Part] = []
        self._open: tuple[pq.ParquetWriter, pa.Schema] | None = None

    def written(self) -> WrittenStream:
        declared = list(properties(self._schema))
        columns = list(dict.fromkeys([*declared, *self._seen]))
        return WrittenStream(stream=self._stream, schema=self._schema, columns=columns, parts=list(self._parts))

    def set_schema(self, schema: JSONObject) -> None:
        if schema != self._schema:
            self._schema = schema
            self._reader = ArrowReader(schema)

    def take(self, batch: RawBatch | RowBatch | ArrowBatch) -> None:
        for each in [batch] if isinstance(batch, ArrowBatch) else self._reader.read(to_raw(batch)):
            if each.version != self._version:
                self._end_part()
                self._version = each.version
            table = each.table
            for start in range(0, table.num_rows, GROUP_ROWS):
                self._wait(table.slice(start, GROUP_ROWS))

    def activate(self, item: ActivateVersion) -> None:
        """Drop the rows of older versions, which a target would delete."""
        if item.keep_old:
            return
        self._end_part()
        stale = [part for part in self._parts if part.version is not None and part.version < item.version]
        for part in stale:
            part.path.unlink()
            self._parts.remove(part)

    def flush(self) -> None:
        if not self._waiting:
            return
        table = joined(self._waiting)
        self._waiting, self._waiting_rows, self.waiting_bytes = [], 0, 0
        self._seen.update(dict.fromkeys(table.column_names))
        if self._open is None or self._open[1] != table.schema:
            self._close_file()
            path = self._folder / f"{self._prefix}{self._files}.parquet"
            self._files += 1
            self._open = (pq.ParquetWriter(path, table.schema, compression="snappy"), table.schema)
            self._parts.append(Part(path=path, version=self._version))
        self._open[0].write_table(table, row_group_size=GROUP_ROWS)
        self._parts[-1].rows += table.num_rows

    def close(self) -> None:
        self._end_part()

    def abandon(self) -> None:
        self._waiting.clear()
        self._close_file()

    def _wait(self, table: pa.Table) -> None:
        if self._waiting_rows + table.num_rows > GROUP_ROWS:
            self.flush()
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self.waiting_bytes += table.nbytes
        if self.waiting_bytes > GROUP_BYTES:
            self.flush()

    def _end_part(self) -> None:
        self.flush()
        self._close_file()

    def _close_file(self) -> None:
        if self._open is not None:
            writer, self._open = self._open[0], None
            writer.close()
