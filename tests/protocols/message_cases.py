"""Sources and sinks of messages that the suite is run on. Their items are `MessageBatch`es."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import duckdb
import msgspec
import pyarrow as pa

from streamline.connectors.files.settings import FileSettings, RecordSettings
from streamline.connectors.files.source import FileSource as LineSource
from streamline.connectors.files.tracked_file import FilePart, TrackedFile
from streamline.connectors.http.listen_settings import ListenSettings
from streamline.connectors.http.settings import http_settings
from streamline.connectors.http.sink import HttpSink
from streamline.connectors.http.source import TAKEN, HttpSource
from streamline.connectors.http.webhook import Webhook
from streamline.connectors.inbox import Inbox
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
from streamline.connectors.objects.settings import object_settings
from streamline.connectors.objects.sink import ObjectSink
from streamline.connectors.python.sink import PythonSink
from streamline.connectors.python.source import PythonSource
from streamline.connectors.python.user_class import UserClass
from streamline.connectors.stdio.sink import LineWriter, StdoutSink
from streamline.connectors.stdio.source import Input, StdinSource
from streamline.connectors.stream_connector import StreamContext
from streamline.connectors.tables.destination import TableDestination
from streamline.connectors.tables.rows import Row
from streamline.connectors.tables.settings import table_settings
from streamline.connectors.tables.sink import TableSink
from streamline.connectors.thread_sink import StreamWriter
from streamline.extensions import load_object
from streamline.flow.items import Item, MessageBatch, Origin
from streamline.flow.protocols import Emit, Sink, Source
from streamline.processes.job import Failure
from tests.connectors.http.posting import NoServer, post
from tests.connectors.http.serving import Request, serving
from tests.connectors.kafka.fake import EndlessLog, FakeCluster, FakeConsumer
from tests.connectors.kafka.running import context, settings
from tests.connectors.singer.running import PATIENCE
from tests.protocols.cases import AnyLane, SinkCase, SourceCase, no_refusals
from tests.protocols.memory import EVERY, STREAM


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


class MessageSinkCase(SinkCase):
    """Makes a sink of messages that fails, or waits, at a row that says so."""

    ROOM: int | None = None
    """Messages that wait in memory; None: as few as is set for it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._gate = threading.Event()

    def make(self, sources: Sequence[str] = ("load",), id: str = "export") -> Sink:
        sink = self._sink(id)
        if self.ROOM is not None:
            sink._inbox = Inbox(self.ROOM)
        sink.refused = no_refusals
        return sink

    def _sink(self, id: str) -> Any:
        raise NotImplementedError

    def row(self, number: int, do: str | None = None) -> Item:
        return MessageBatch(STREAM, [{"id": number, "do": do}])

    def go(self) -> None:
        self._gate.set()

    def end(self) -> None:
        self.go()  # a thread that waits has outlived its sink


class AnyLanePythonSink(AnyLane, PythonSink):
    pass


class PythonClassSink(MessageSinkCase):
    name = "PythonSink"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._durable: list[int] = []

    def _sink(self, id: str) -> Any:
        made = user_class(Writing, id, durable=self._durable, gate=self._gate)
        return AnyLanePythonSink(id, made, batch_size=1, waiting_batches=2)

    def durable(self) -> list[int]:
        return list(self._durable)


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


class HookedTableSink(AnyLane, TableSink):
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


class DuckDBTable(MessageSinkCase):
    name = "TableSink"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # What is imported on first use, also by the driver, is imported before the clock of a test runs.
        load_object("streamline.databases.duckdb:DuckDB")
        self._shared = duckdb.connect()
        self._shared.register("warm", pa.table({"id": ["1"]})).execute("select cast(id as bigint) from warm")
        self._shared.execute("""create table numbers (id bigint primary key, "do" text check ("do" <> 'fail'))""")

    def _sink(self, id: str) -> Any:
        config = {"path": ":memory:", "table": "numbers", "key": "id", "batch_size": 1}
        about = context(block=id)
        sink = HookedTableSink(table_settings("duckdb", config, about, lambda *path: ""), about)
        sink.gate, sink.shared = self._gate, self._shared
        return sink

    def durable(self) -> list[int]:
        rows = self._shared.cursor().execute("select id from numbers order by id").fetchall()
        return [row[0] for row in rows]


class AnyLaneHttpSink(AnyLane, HttpSink):
    pass


class HttpRequests(MessageSinkCase):
    name = "HttpSink"
    ROOM = 2

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._taken: list[int] = []
        self._serving = serving()
        self._server = self._serving.__enter__()
        self._server.answer = self._answer

    def _sink(self, id: str) -> Any:
        about = context(block=id)
        return AnyLaneHttpSink(http_settings({"url": self._server.url}, about, lambda *path: ""), about)

    def _answer(self, request: Request) -> tuple[int, dict[str, str]]:
        row = msgspec.json.decode(request.body)
        if row.get("do") == "fail":
            return 422, {}
        if row.get("do") == "wait":
            self._gate.wait(PATIENCE)
        self._taken.append(row["id"])
        return 200, {}

    def durable(self) -> list[int]:
        return list(self._taken)

    def end(self) -> None:
        self.go()
        self._serving.__exit__(None, None, None)


class HookedLines(LineWriter):
    """Lines to a file that can be written no more, or for some time, at a message that says so."""

    gate: threading.Event

    def _line(self, data: Any) -> bytes:
        if data.get("do") == "fail":
            raise ValueError("it has no text")
        if data.get("do") == "wait":
            self.gate.wait(PATIENCE)
        return super()._line(data)


class AnyLaneStdoutSink(AnyLane, StdoutSink):
    """Its thread may outlive the test: it closes its file itself, or the next file would get its number and lines."""

    gate: threading.Event
    path: Path

    def _open(self) -> StreamWriter:
        self._file = self.path.open("ab")
        writer = HookedLines(self.id, self._file.fileno(), self._refuse, self._prove, as_text=False)
        writer.gate = self.gate
        return writer

    def _free(self) -> None:
        self._file.close()


class LinesOfOutput(MessageSinkCase):
    name = "StdoutSink"
    ROOM = 2

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = folder / "out"
        self._path.touch()

    def _sink(self, id: str) -> Any:
        sink = AnyLaneStdoutSink(context(block=id), as_text=False)
        sink.gate, sink.path = self._gate, self._path
        return sink

    def durable(self) -> list[int]:
        return [msgspec.json.decode(line)["id"] for line in self._path.read_bytes().splitlines()]


class AnyLaneObjectSink(AnyLane, ObjectSink):
    gate: threading.Event

    def _open(self) -> StreamWriter:
        writer = super()._open()
        line_of = writer._line

        def line(data: Any) -> bytes:
            if data.get("do") == "fail":
                raise ValueError("it has no text")
            if data.get("do") == "wait":
                self.gate.wait(PATIENCE)
            return line_of(data)

        writer._line = line
        return writer


class ObjectFiles(MessageSinkCase):
    name = "ObjectSink"
    ROOM = 2

    def _sink(self, id: str) -> Any:
        about = StreamContext(pipeline="p", block=id, root=self.folder)
        config = {"url": "files", "max_file_seconds": 0.01}
        sink = AnyLaneObjectSink(object_settings("objects", config, about, lambda *path: ""), about)
        sink.gate = self._gate
        return sink

    def durable(self) -> list[int]:
        files = (self.folder / "files").glob("numbers/*.jsonl")
        return sorted(msgspec.json.decode(line)["id"] for file in files for line in file.read_bytes().splitlines())


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


class PostedSource(HttpSource):
    """A source that is sent numbers, one request for each position. It ends when it has given them: by being stopped,
    as there is no other end."""

    server: NoServer
    numbers: range
    fail_at: int | None

    async def run(self, emit: Emit) -> None:
        posting = asyncio.ensure_future(self._post())
        try:
            await super().run(emit)
            if posting.done() and self.stopped == "sent":
                self.stopped = None
        finally:
            posting.cancel()
            await self.close()

    async def _post(self) -> None:
        for first in self.numbers:
            if (first - 1) % EVERY:
                continue
            last = min(first + EVERY - 1, self.numbers[-1])
            if self.fail_at is not None and first <= self.fail_at <= last:
                self.server.end()
                return
            body = b"\n".join(b'{"id":%d}' % number for number in range(first, last + 1))
            while (await post(self.server.app, body)).status != 202:
                if self.ending:
                    return
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
        self.stop("sent")


class Requests(SourceCase):
    name = "HttpSource"

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        made: list[NoServer] = []

        def listen(settings: ListenSettings, app: Webhook) -> NoServer:
            made.append(NoServer(settings, app))
            return made[0]

        options = StreamContext(pipeline="p", block=id, root=self.folder, start=start or {}, memory={})
        source = PostedSource(ListenSettings(respond="accepted"), options, listen)
        source.server, source.fail_at = made[0], fail_at
        source.numbers = range(int((start or {}).get(TAKEN, b"0")) + 1, count + 1)
        return source

    def parts(self, number: int) -> dict[str, bytes]:
        return {TAKEN: b"%d" % number}


MESSAGE_SOURCES: list[type[SourceCase]] = [Kafka, PythonClass, LinesOfFile, LinesOfInput, Requests]
MESSAGE_SINKS: list[type[SinkCase]] = [PythonClassSink, DuckDBTable, HttpRequests, LinesOfOutput, ObjectFiles]
