"""A source that gives the rows of tables: outputs of blocks that a destination block exports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import anyio.to_thread
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streamline.flow.codecs.arrow_types import property_of
from streamline.flow.items import ArrowBatch, Item, JSONObject, Position, Schema
from streamline.flow.protocols import Emit

BATCH_ROWS = 10_000
"""Rows of a batch, and between two positions."""

_READ_ROWS = 1 << 16


class TableStream(msgspec.Struct, kw_only=True):
    """One stream.

    Args:
        schema: its JSON Schema.
        tables: reads its rows from the first on, in order; called in a worker thread, as is what it returns.
    """

    stream: str
    schema: JSONObject
    tables: Callable[[], Iterator[pa.Table]]
    key_properties: Sequence[str] = ()


class TableSource:
    """Gives streams one after the other. The position of a stream is its number of rows given so far.

    Args:
        start: the parts of its position that were saved; it begins after that.
    """

    def __init__(
        self,
        id: str,
        streams: Sequence[TableStream],
        *,
        start: Mapping[str, bytes] | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self.id = id
        self.stopped: str | None = None
        self._streams = streams
        self._start = start or {}
        self._batch_rows = batch_rows
        self._released: set[str] = set()
        self._number = 0

    async def run(self, emit: Emit) -> None:
        """See `Source.run`."""
        for stream in self._streams:
            if self.stopped is None and stream.stream not in self._released:
                await self._give(stream, emit)

    def stop(self, reason: str) -> None:
        """See `Source.stop`."""
        self.stopped = self.stopped or reason

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`; the tables stay where they are."""

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`."""
        self._released.update(keys)

    async def _give(self, stream: TableStream, emit: Emit) -> None:
        await emit([Schema(stream.stream, stream.schema, list(stream.key_properties))])
        given = placed = done = int(self._start.get(stream.stream, b"0"))
        passed = 0
        tables = await anyio.to_thread.run_sync(stream.tables)
        while (table := await anyio.to_thread.run_sync(next, tables, None)) is not None:
            skipped = min(table.num_rows, done - passed)
            passed += skipped
            for first in range(skipped, table.num_rows, self._batch_rows):
                if self.stopped is not None or stream.stream in self._released:
                    return
                batch = table.slice(first, self._batch_rows)
                given += batch.num_rows
                items: list[Item] = [ArrowBatch(stream.stream, batch)]
                if given - placed >= self._batch_rows:
                    placed = given
                    items.append(self._position(stream.stream, given))
                await emit(items)
        if given > placed:
            await emit([self._position(stream.stream, given)])

    def _position(self, stream: str, given: int) -> Position:
        self._number += 1
        return Position(self.id, self._number, {stream: b"%d" % given})


def tables_of(files: Iterable[Path]) -> Iterator[pa.Table]:
    """Yield the rows of Parquet files in their order, a part at a time, however large their row groups are."""
    for path in files:
        # Buffered: without it a row group's columns are in memory as a whole.
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_READ_ROWS):
                yield pa.Table.from_batches([batch])


def schema_of(schema: pa.Schema) -> JSONObject:
    """Return the JSON Schema of a table's columns. Every column may be null; nothing else is known of one that is."""
    properties = {
        field.name: {"type": ["null"]} if pa.types.is_null(field.type) else property_of(field) for field in schema
    }
    return {"type": "object", "properties": properties}
