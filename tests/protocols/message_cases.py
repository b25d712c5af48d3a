"""Sources and sinks of messages that the suite is run on. Their items are `MessageBatch`es."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import duckdb
import pyarrow as pa

from streamline.connectors.files.settings import FileSettings, RecordSettings
from streamline.connectors.files.source import FileSource as LineSource
from streamline.connectors.files.tracked_file import FilePart, TrackedFile
from streamline.connectors.kafka.client import (
    Connection,
    Consumer,
    ConsumerOptions,
    KafkaClient,
    KafkaError,
    Partition,
)
from streamline.connectors.kafka.offset_parts import committed_of, decode_part, encode_part
from streamline.connectors.kafka.source import KafkaSource
from streamline.connectors.python.sink import PythonSink
from streamline.connectors.python.source import PythonSource
from streamline.connectors.python.user_class import UserClass
from streamline.connectors.stdio.source import Input, StdinSource
from streamline.connectors.stream_connector import StreamContext
from streamline.connectors.tables.destination import TableDestination
from streamline.connectors.tables.rows import Row
from streamline.connectors.tables.settings import table_settings
from streamline.connectors.tables.sink import TableSink
from streamline.errors import StreamlineError
from streamline.extensions import load_object
from streamline.flow.items import BadRecord, Item, MessageBatch, Origin, Position
from streamline.flow.protocols import Sink, Source
from streamline.processes.job import Failure
from tests.connectors.kafka.fake import EndlessLog, FakeCluster, FakeConsumer
from tests.connectors.kafka.running import context, settings
from tests.connectors.singer.running import PATIENCE
from tests.protocols.cases import SinkCase, SourceCase
from tests.protocols.memory import EVERY, STREAM, rows_of


class Broken(FakeCluster):
    """A cluster whose polls hold so many messages as there are between positions, and fail at one of them."""

    def __init__(self, fail_at: int | None) -> None:
        super().__init__()
        self._fail_at = fail_at

    def consumer(self, connection: Connection, options: ConsumerOptions) -> Consumer:
        consumer = FailingConsumer(self, options)
        consumer.max_messages = EVERY
        consumer.fail_at = self._fail_at
        self.consumers.append(consumer)
        return consumer


class FailingConsumer(FakeConsumer):
    fail_at: int | None = None

    def poll_batch(self, limit: int, timeout: float) -> list[Origin]:
        messages = super().poll_batch(limit, timeout)
        if self.fail_at is not None and any(message.offset == self.fail_at - 1 for message in messages):
            raise KafkaError("the source failed", kafka_code="UNKNOWN_SERVER_ERROR")
        return messages


class Kafka(SourceCase):
    """Number n is at offset n - 1."""

    name = "KafkaSource"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._sources: list[KafkaSource] = []

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        cluster: KafkaClient = (broken := Broken(fail_at))
        broken.create("t").logs = [
            EndlessLog(count, lambda offset: Origin("t", 0, offset, None, b'{"id":%d}' % (offset + 1)))
        ]
        for value in (start or {}).values():
            part = decode_part(value)
            broken.group("g").offsets[Partition("t", 0)] = committed_of(part.offset, part.topic_id)
        source = KafkaSource(settings(), cluster, context(block=id, until_caught_up=True))
        self._sources.append(source)
        return source

    def parts(self, number: int) -> dict[str, bytes]:
        return {"t/0": encode_part(number, "id-1", epoch=1)}

    def end(self) -> None:
        async def close() -> None:
            for source in self._sources:
                await source.close()

        anyio.run(close)


class Counting:
    """A user's class that reads numbers."""

    position: int | None
    count: int
    fail_at: int | None

    def batch_read(self, handler: Any) -> None:
        first = (self.position or 0) + 1
        while first <= self.count:
            end = min(self.count, first + EVERY - (first - 1) % EVERY - 1)
            if self.fail_at is not None and first <= self.fail_at <= end:
                raise ConnectionError("the source failed")
            handler([{"id": number} for number in range(first, end + 1)], position=end)
            first = end + 1


class Writing:
    """A user's class that writes numbers."""

    durable: list[int]
    gate: threading.Event

    def batch_write(self, messages: list[dict[str, Any]]) -> None:
        if any(message.get("do") == "fail" for message in messages):
            raise ValueError("the message is wrong")
        if any(message.get("do") == "wait" for message in messages):
            self.gate.wait(PATIENCE)
        self.durable.extend(message["id"] for message in messages)


def user_class(kind: type, id: str, **attributes: Any) -> UserClass:
    return UserClass(
        block=id, load=lambda: kind, explain=lambda error: Failure(message=str(error)), attributes=attributes
    )


class PythonClass(SourceCase):
    name = "PythonSource"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._sources: list[PythonSource] = []

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        source = PythonSource(id, user_class(Counting, id, count=count, fail_at=fail_at), batch_size=EVERY, start=start)
        self._sources.append(source)
        return source

    def parts(self, number: int) -> dict[str, bytes]:
        return {"position": b"%d" % number}

    def end(self) -> None:
        async def close() -> None:
            for source in self._sources:
                await source.close()

        anyio.run(close)


class AnyLanePythonSink(PythonSink):
    """Takes records in any lane for messages."""

    async def send(self, source: str, items: Sequence[Item]) -> None:
        messages = [item if isinstance(item, Position) else MessageBatch(STREAM, rows_of(item)) for item in items]
        await super().send(source, messages)


class PythonClassSink(SinkCase):
    name = "PythonSink"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._durable: list[int] = []
        self._gate = threading.Event()

    def make(self, sources: Sequence[str] = ("load",), id: str = "export") -> Sink:
        def refused(source: str, records: Sequence[BadRecord]) -> None:
            raise StreamlineError("refused")

        made = user_class(Writing, id, durable=self._durable, gate=self._gate)
        sink = AnyLanePythonSink(id, made, batch_size=1, waiting_batches=2)
        sink.refused = refused
        return sink

    def durable(self) -> list[int]:
        return list(self._durable)

    def row(self, number: int, do: str | None = None) -> Item:
        return MessageBatch(STREAM, [{"id": number, "do": do}])

    def go(self) -> None:
        self._gate.set()


class LinesOfFile(SourceCase):
    """Number n is the n-th line of a file. It ends where there are few of them."""

    name = "FileSource, lines"

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        self._file = self.folder / "numbers.jsonl"
        lines = [self._line(number) for number in range(1, min(count, 10_000) + 1)]
        if fail_at is not None:
            lines[fail_at - 1] = b"9" * 1_000
        self._file.write_bytes(b"".join(lines))
        records = RecordSettings(batch_size=EVERY, max_record_bytes=900)
        settings = FileSettings(path=self._file, records=records, poll_interval=0.01)
        until_caught_up = count <= 10_000
        options = StreamContext(
            pipeline="p", block=id, root=self.folder, start=start or {}, until_caught_up=until_caught_up
        )
        return LineSource(settings, options)

    def parts(self, number: int) -> dict[str, bytes]:
        offset = sum(len(self._line(each)) for each in range(1, number + 1))
        status = self._file.stat()
        file = TrackedFile(
            self._file,
            "numbers.jsonl",
            (status.st_ino, status.st_dev),
            FileSettings(path=self._file, records=RecordSettings()),
            FilePart(path="numbers.jsonl", offset=offset),
        )
        return {str(status.st_ino): file.part()}

    def _line(self, number: int) -> bytes:
        return b'{"id":%d}\n' % number


class HookedTableSink(TableSink):
    """A database in memory that hangs at a row that says so."""

    gate: threading.Event
    shared: duckdb.DuckDBPyConnection

    def _connect(self) -> TableDestination:
        destination = super()._connect()
        destination.database.connection = self.shared.cursor()
        return destination

    def _write_rows(self, rows: Sequence[Row]) -> None:
        if any((row.fields or {}).get("do") == "wait" for row in rows):
            self.gate.wait(PATIENCE)
        super()._write_rows(rows)

    async def send(self, source: str, items: Sequence[Item]) -> None:
        messages = [item if isinstance(item, Position) else MessageBatch(STREAM, rows_of(item)) for item in items]
        await super().send(source, messages)


class DuckDBTable(SinkCase):
    name = "TableSink"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._gate = threading.Event()
        # What is imported on first use, also by the driver, is imported before the clock of a test runs.
        load_object("streamline.databases.duckdb:DuckDB")
        self._shared = duckdb.connect()
        self._shared.register("warm", pa.table({"id": ["1"]})).execute("select cast(id as bigint) from warm")
        self._shared.execute("""create table numbers (id bigint primary key, "do" text check ("do" <> 'fail'))""")

    def make(self, sources: Sequence[str] = ("load",), id: str = "export") -> Sink:
        def refused(source: str, records: Sequence[BadRecord]) -> None:
            raise StreamlineError("refused")

        config = {"path": ":memory:", "table": "numbers", "key": "id", "batch_size": 1}
        about = context(block=id)
        sink = HookedTableSink(table_settings("duckdb", config, about, lambda *path: ""), about)
        sink.gate, sink.shared, sink.refused = self._gate, self._shared, refused
        return sink

    def durable(self) -> list[int]:
        rows = self._shared.cursor().execute("select id from numbers order by id").fetchall()
        return [row[0] for row in rows]

    def row(self, number: int, do: str | None = None) -> Item:
        return MessageBatch(STREAM, [{"id": number, "do": do}])

    def go(self) -> None:
        self._gate.set()


class LinesOfInput(SourceCase):
    """Number n is the n-th line of the standard input, which is begun after the numbers that are proven."""

    name = "StdinSource"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._open: list[int] = []

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        first = int((start or {}).get("records", b"0")) + 1
        numbers = range(first, min(count, 10_000) + 1)
        # It gives all that comes before a record that is too long, also between the places of positions here.
        bad = fail_at - (fail_at - 1) % EVERY if fail_at is not None else None
        lines = [b"9" * 1_000 if number == bad else b'{"id":%d}\n' % number for number in numbers]
        file = self.folder / f"in{len(self._open)}"
        file.write_bytes(b"".join(lines))
        self._open.append(os.open(file, os.O_RDONLY))
        return StdinSource(id, RecordSettings(batch_size=EVERY, max_record_bytes=900), Input(self._open[-1]))

    def parts(self, number: int) -> dict[str, bytes]:
        return {"records": b"%d" % number}

    def end(self) -> None:
        for fd in self._open:
            os.close(fd)


MESSAGE_SOURCES: list[type[SourceCase]] = [Kafka, PythonClass, LinesOfFile, LinesOfInput]
MESSAGE_SINKS: list[type[SinkCase]] = [PythonClassSink, DuckDBTable]
