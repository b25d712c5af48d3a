"""A sink into tables: a batch of messages is a transaction, and its commit is the proof."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby

import pyarrow as pa

from streamline.connectors.refusals import Message
from streamline.connectors.stream_connector import StreamContext
from streamline.connectors.tables.destination import TableDestination
from streamline.connectors.tables.rows import Row, row_of
from streamline.connectors.tables.settings import TITLES, TableSettings
from streamline.connectors.thread_sink import StreamWriter, ThreadSink
from streamline.databases.base import DatabaseError
from streamline.databases.faults import Fault, fault_of
from streamline.errors import ConfigError, PipelineFailed, StreamlineError
from streamline.flow.bisection import bisect
from streamline.flow.items import MessageBatch, Position

PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the next try during an outage; the last repeats."""


class TableSink(ThreadSink):
    """Writes messages as rows."""

    def __init__(self, settings: TableSettings, context: StreamContext) -> None:
        super().__init__(context.block, room=2 * settings.batch_size, note=context.note)
        self._settings = settings
        self._context = context
        self._destination: TableDestination | None = None
        self._connected = False
        """Whether it ever was."""

    def _open(self) -> StreamWriter:
        return _Writer(self)

    def _free(self) -> None:
        self._disconnect()

    # -- for the writer

    def write(self, messages: Sequence[Message]) -> None:
        """Write messages; those that cannot be rows, or that the database refuses, are refused.

        Raises:
            StreamlineError: nothing can be written.
        """
        rows: list[Row] = []
        for message in messages:
            try:
                rows.append(row_of(message, self._settings))
            except ValueError as error:
                if not self._context.set_aside:
                    self._write_rows(rows)
                    rows = []
                self._refuse(message.source, message.refused(str(error), self.id))
        self._write_rows(rows)

    def prove(self, numbers: dict[str, int]) -> None:
        """Report positions as proven."""
        self._prove(numbers)

    @property
    def batch_size(self) -> int:
        """The most messages of a transaction."""
        return self._settings.batch_size

    # -- rows

    def _write_rows(self, rows: Sequence[Row]) -> None:
        def table(row: Row) -> str:
            return self._settings.table_of(row.message.batch.stream)

        if self._context.set_aside:
            rows = sorted(rows, key=table)
        # If not, nothing after a message that is refused may be written: not into another table, either.
        for name, some in groupby(rows, table):
            self._write_table(name, list(some))

    def _write_table(self, table: str, rows: Sequence[Row]) -> None:
        def run(part: Sequence[Row]) -> Exception | None:
            return self._try(table, part)

        def refuse(row: Row, error: Exception) -> None:
            text = error.message if isinstance(error, StreamlineError) else str(error)
            self._refuse(row.message.source, row.message.refused(text, self.id))

        failure = run(rows)
        if failure is not None:
            bisect(rows, failure, run, refuse)

    def _try(self, table: str, rows: Sequence[Row]) -> Exception | None:
        """Write rows, however long the database is away; return why they are refused."""
        began, tries, changed = time.monotonic(), 0, False
        while True:
            try:
                destination = self._destination or self._connect()
                destination.write(table, rows)
            except DatabaseError as error:
                fault = fault_of(error)
                if fault == "rows":
                    return error
                if fault == "changed" and not changed and self._destination is not None:
                    changed = True
                    self._destination.forget()
                    continue
                late = not self._connected and time.monotonic() - began >= self._context.startup_timeout
                if fault != "outage" or late:
                    raise self._explained(error, fault) from error
                self._disconnect()
                if tries in (0, len(PAUSES)):
                    self._tell(f"{error.message}; it is tried again", "WARNING")
                if not self._pause(PAUSES[min(tries, len(PAUSES) - 1)]):
                    raise self._explained(error, fault) from error
                tries += 1
            except (ValueError, OverflowError, pa.ArrowException) as error:
                return error
            else:
                if tries:
                    self._tell(f"{self._settings.address} answers again", "INFO")
                return None

    def _connect(self) -> TableDestination:
        self._destination = TableDestination(self._settings, self._context.root, self.id)
        self._connected = True
        return self._destination

    def _disconnect(self) -> None:
        destination, self._destination = self._destination, None
        if destination is not None:
            destination.close()

    def _explained(self, error: DatabaseError, fault: Fault) -> StreamlineError:
        """Return the error that ends the attempt, or the run if no other attempt could do better."""
        if fault == "no_index":
            key = ", ".join(self._settings.key_columns)
            return ConfigError(
                f"block {self.id}: the table has no unique index on its key ({key})",
                hint=f"make one: create unique index on the table ({key}); or set `mode: append`",
                code="table_sink.no_unique_index",
            )
        if fault == "locked":
            return ConfigError(
                f"block {self.id}: {error.message}",
                hint="DuckDB lets one process have a file: end the other one",
                code="table_sink.locked",
            )
        return PipelineFailed(
            f"block {self.id}: {TITLES[self._settings.system]} cannot be written: {error.message}",
            blocks=[self.id],
            hint=error.hint,
            code="table_sink.failed",
        )


class _Writer:
    """Gathers messages for transactions."""

    def __init__(self, sink: TableSink) -> None:
        self._sink = sink
        self._messages: list[Message] = []
        self._numbers: dict[str, int] = {}

    def take(self, source: str, batch: MessageBatch) -> None:
        for number in range(len(batch.data)):
            self._messages.append(Message(source, batch, number))
            if len(self._messages) >= self._sink.batch_size:
                self._write()

    def reach(self, source: str, position: Position) -> None:
        self._numbers[source] = position.number

    def patience(self) -> float | None:
        return None

    def rest(self, *, hurry: bool) -> None:
        self._write()

    def _write(self) -> None:
        messages, self._messages = self._messages, []
        if messages:
            self._sink.write(messages)
        numbers, self._numbers = self._numbers, {}
        if numbers:
            self._sink.prove(numbers)
