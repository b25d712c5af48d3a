"""The implementations that the suite is run on: sources, sinks and position stores, made in a folder."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streamline.connectors.kafka.outgoing import Destination
from streamline.connectors.kafka.sink import KafkaSink, TransactionalKafkaSink
from streamline.connectors.outputs.parquet_sink import ParquetSink
from streamline.connectors.outputs.table_source import TableSource, TableStream
from streamline.connectors.singer.batch_files import FileSource
from streamline.connectors.singer.mapper import MapperProcess
from streamline.connectors.singer.message_target import MessageTarget
from streamline.connectors.singer.polled_tap import Poll, PolledTap
from streamline.connectors.singer.state import join_state
from streamline.connectors.singer.tap import TapProcess
from streamline.connectors.singer.target import TargetProcess
from streamline.connectors.singer.target_input import Feed
from streamline.connectors.singer.target_pool import TargetPool
from streamline.errors import StreamlineError
from streamline.execution.integration.run_store import RunStore, SourceAccount
from streamline.flow.items import ArrowBatch, BadRecord, Item, MessageBatch, Position, RawBatch, RowBatch
from streamline.flow.protocols import PositionStore, Sink, Source
from streamline.state.sqlite import SQLiteStore
from tests.connectors.kafka.fake import FakeCluster
from tests.connectors.kafka.sinks import context, destination
from tests.connectors.singer.running import PATIENCE, Account, Plain, left, tap, tap_command, target
from tests.protocols.memory import EVERY, STREAM, Memory, Numbers, Table, rows_of

ENDLESS = 10**9


class SourceCase:
    """Makes a source of the numbers up to `count`; each class is a kind of source."""

    name = "memory"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        """A source that begins after the parts `start` of its position, and fails in place of one number."""
        return Numbers(count, id=id, start=start, fail_at=fail_at)

    def parts(self, number: int) -> dict[str, bytes]:
        """The parts of the position after a number."""
        return {STREAM: b"%d" % number}

    def left(self) -> list[str]:
        """What it left behind when it has ended."""
        return []

    def end(self) -> None:
        """Close what was made; called after the test."""


TAP = """
first = json.load(open(sys.argv[sys.argv.index("--state") + 1]))["bookmarks"].get("numbers", 0) + 1
schema("numbers")
for number in range(first, {count} + 1):
    if number == {fail_at}:
        sys.exit(3)
    {give}
    if number % {every} == 0 or number == {count}:
        {before}
        state_line = {{"type": "STATE", "value": {{"bookmarks": {{"numbers": number}}}}}}
        say(json.dumps(state_line))
        if {count} > 10**6:
            time.sleep(0.001)
"""


class Tap(SourceCase):
    name = "TapProcess"
    give = "record(number, 'numbers')"
    before = "pass"

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        return self._tap(count, start, fail_at, id)

    def _tap(self, count: int, start: Mapping[str, bytes] | None, fail_at: int | None, id: str) -> TapProcess:
        code = TAP.format(count=count, fail_at=fail_at, every=EVERY, give=self.give, before=self.before)
        bookmarks = {key: msgspec.Raw(value) for key, value in (start or {}).items()}
        return tap(self.folder, code, id=id, state=msgspec.json.encode({"bookmarks": bookmarks}))

    def left(self) -> list[str]:
        return [name for name in left(self.folder) if not name.endswith(".jsonl")]


class Files(Tap):
    """A tap whose records wait in files, one file for each position."""

    name = "FileSource"
    give = "(file := globals().get('file') or []).append(number)"
    before = """name = f"{number}.batch.jsonl"
        open(name, "w").writelines(json.dumps({"id": each}) + chr(10) for each in file)
        say(json.dumps({"type": "BATCH", "stream": "numbers", "filepath": name, "format": "jsonl"}))
        file = []"""

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        return FileSource(self._tap(count, start, fail_at, id), run_dir=self.folder, root=self.folder)


class Mapper(Tap):
    name = "MapperProcess"

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        command = tap_command(self.folder, "for line in sys.stdin: say(line, end='')", id=f"{id}.map", state=None)
        upstream = self._tap(count, start, fail_at, id)
        return MapperProcess(command, upstream, run_dir=self.folder, masker=Plain(), log=lambda line: None)


class Polled(Tap):
    """A tap that gives a part of the numbers in each poll."""

    name = "PolledTap"
    EACH = 4 * EVERY

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        def open_poll(rows: Mapping[str, bytes], state: bytes) -> Poll:
            end = min(count, int(rows.get(STREAM, b"0")) + self.EACH)
            return Poll(self._tap(end, rows, fail_at, id))

        first = int((start or {}).get(STREAM, b"0"))
        return PolledTap(
            id,
            open_poll,
            start=start or {},
            state=join_state(start or {}),
            interval=0.001,
            polls=max(1, -(-(count - first) // self.EACH)),
            retries=0,
        )


class Tables(SourceCase):
    name = "TableSource"

    def make(
        self, count: int, *, start: Mapping[str, bytes] | None = None, fail_at: int | None = None, id: str = "load"
    ) -> Source:
        def tables() -> Iterator[pa.Table]:
            for first in range(1, count + 1, 7 * EVERY):
                numbers = range(first, min(first + 7 * EVERY, count + 1))
                if fail_at is not None and fail_at in numbers:
                    yield pa.table({"id": pa.array(range(first, fail_at), pa.int64())})
                    raise StreamlineError("the output cannot be read")
                yield pa.table({"id": pa.array(numbers, pa.int64())})

        schema = {"type": "object", "properties": {"id": {"type": "integer"}}}
        stream = TableStream(stream=STREAM, schema=schema, tables=tables, key_properties=["id"])
        return TableSource(id, [stream], start=start, batch_rows=EVERY)


SOURCES = [SourceCase, Tap, Files, Mapper, Polled, Tables]


class SinkCase:
    """Makes a sink; each class is a kind of sink."""

    name = "memory"
    FAIL: Any = "fail"
    WAIT: Any = "wait"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: list[Table] = []

    def make(self, sources: Sequence[str] = ("load",), id: str = "export") -> Sink:
        """A sink that these sources feed."""
        sink = Table(id, every=3)
        self._made.append(sink)
        return sink

    def durable(self) -> list[int]:
        """The rows that are durable, in their order, of all sinks that were made."""
        return [number for sink in self._made for number in sink.rows]

    def taken(self) -> int:
        """How many rows it has taken, durable or not."""
        return len(self.durable())

    def row(self, number: int, do: str | None = None) -> Item:
        """A record; `do` is FAIL or WAIT (until `go`)."""
        return RowBatch(STREAM, [{"id": number, **({"do": do} if do is not None else {})}])

    def go(self) -> None:
        """End the wait."""
        for sink in self._made:
            sink.gate.set()

    def left(self) -> list[str]:
        """What is left behind when it has ended."""
        return []

    def end(self) -> None:
        """Close what was made; called after the test."""


class Target(SinkCase):
    name = "TargetProcess"
    FAIL = "os._exit(7)"
    WAIT = "while not os.path.exists('go'): time.sleep(0.01)"
    processes = 1

    def make(self, sources: Sequence[str] = ("load",), id: str = "export") -> Sink:
        return self._process(sources, id)

    def _process(self, sources: Sequence[str], id: str) -> TargetProcess:
        return target(self.folder, Account(), feeds=sources, id=id)

    def durable(self) -> list[int]:
        file = self.folder / "got.jsonl"
        # It may be read in the middle of a write.
        lines = file.read_bytes().rpartition(b"\n")[0].splitlines() if file.exists() else []
        messages = [msgspec.json.decode(line) for line in lines]
        return [message["record"]["id"] for message in messages if message["type"] == "RECORD"]

    def go(self) -> None:
        (self.folder / "go").touch()

    def left(self) -> list[str]:
        return [name for name in left(self.folder) if name not in ("got.jsonl", "go")]


class Silent(Target):
    """A target that echoes nothing: its exit is its only proof."""

    name = "TargetProcess, silent"

    def _process(self, sources: Sequence[str], id: str) -> TargetProcess:
        return target(self.folder, Account(), echo=False, feeds=sources, id=id)


class Pool(Target):
    name = "TargetPool"

    def make(self, sources: Sequence[str] = ("load",), id: str = "export") -> Sink:
        processes = [self._process(sources, f"{id}.{number}") for number in (1, 2)]
        return TargetPool(id, processes, lambda stream: 0)


class Messages(Target):
    name = "MessageTarget"

    def make(self, sources: Sequence[str] = ("load",), id: str = "export") -> Sink:
        feeds = [
            Feed(
                source=source,
                keys_of=lambda stream: (stream,),
                owns=lambda key: True,
                name_of=lambda key, source=source: f"{source}:{key}",
            )
            for source in sources
        ]
        process = target(self.folder, Account(), feeds=feeds, id=id)
        return MessageTarget(TargetPool(id, [process], lambda stream: 0))


class HookedParquetSink(ParquetSink):
    """A disk that fails, or hangs, at a row that says so."""

    def __init__(self, id: str, folder: Path) -> None:
        super().__init__(id, folder)
        self.gate = threading.Event()
        self.taken = 0

    def _take(self, source: str, items: Sequence[Item]) -> None:
        for item in items:
            do = item.rows[0].get("do") if isinstance(item, RowBatch) else None
            if do == ParquetFiles.WAIT:
                self.gate.wait(PATIENCE)
            elif do == ParquetFiles.FAIL:
                raise OSError(errno.ENOSPC, "No space left on device")
        super()._take(source, items)
        self.taken += sum(item.count for item in items if isinstance(item, RawBatch | RowBatch | ArrowBatch))


class ParquetFiles(SinkCase):
    name = "ParquetSink"

    def make(self, sources: Sequence[str] = ("load",), id: str = "export") -> Sink:
        made: list[HookedParquetSink] = getattr(self, "_sinks", [])
        folder = self.folder / str(len(made))
        folder.mkdir()
        sink = HookedParquetSink(id, folder)
        self._sinks = [*made, sink]
        return sink

    def taken(self) -> int:
        return sum(sink.taken for sink in self._sinks)

    def durable(self) -> list[int]:
        return [
            int(number)  # of a SCHEMA that does not declare it: JSON text
            for sink in self._sinks
            for stream in sink.written()
            for part in stream.parts
            for number in pq.read_table(part.path).column("id").to_pylist()
        ]

    def go(self) -> None:
        for sink in self._sinks:
            sink.gate.set()


class AnyLane:
    """A sink of messages that takes records in any lane for messages; stands before the sink's class."""

    async def send(self, source: str, items: Sequence[Item]) -> None:
        messages = [item if isinstance(item, Position) else MessageBatch(STREAM, rows_of(item)) for item in items]
        await super().send(source, messages)


def no_refusals(source: str, records: Sequence[BadRecord]) -> None:
    """What `refused` of a sink is set to: a message that it refuses fails it."""
    raise StreamlineError("refused")


class AnyLaneSink(AnyLane, KafkaSink):
    pass


class AnyLaneTransactions(AnyLane, TransactionalKafkaSink):
    pass


class NoOffsets:
    """A source whose offsets nobody looks at."""

    def transaction_offsets(self, parts: Mapping[str, bytes]) -> Any:
        return {}, None


class KafkaTopic(SinkCase):
    """A sink whose topic is in memory."""

    name = "KafkaSink"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cluster = FakeCluster()
        self.cluster.create(STREAM)
        self.cluster.refuse = lambda message: "INVALID_RECORD" if b'"fail"' in (message.value or b"") else None
        self._waits = True

    def make(self, sources: Sequence[str] = ("load",), id: str = "export") -> Sink:
        blocks = [destination(topic=STREAM, batch_bytes=1 << 20, compression="gzip")]
        sink = self._sink(id, blocks, sources)
        sink.refused = no_refusals
        return sink

    def _sink(self, id: str, blocks: Sequence[Destination], sources: Sequence[str]) -> KafkaSink:
        return AnyLaneSink(id, blocks, self.cluster, context())

    def row(self, number: int, do: str | None = None) -> Item:
        if do == self.WAIT:
            self.cluster.stuck = self._waits
        return MessageBatch(STREAM, [{"id": number, "do": do}])

    def durable(self) -> list[int]:
        return [msgspec.json.decode(record.value or b"")["id"] for record in self.cluster.records(STREAM)]

    def go(self) -> None:
        self._waits = self.cluster.stuck = False


class KafkaTransactions(KafkaTopic):
    name = "TransactionalKafkaSink"

    def _sink(self, id: str, blocks: Sequence[Destination], sources: Sequence[str]) -> KafkaSink:
        sink = AnyLaneTransactions(id, blocks, self.cluster, context())
        sink.offsets_from = dict.fromkeys(sources, NoOffsets())
        return sink


SINKS = [SinkCase, Target, Silent, Pool, Messages, ParquetFiles, KafkaTopic, KafkaTransactions]


def sqlite_store(folder: Path) -> PositionStore:
    """The state store, for a source `load` of block `load` in pipeline `p`."""
    account = SourceAccount(
        block="load",
        owned=dict,
        sinks_of=lambda key: ["export"],
        destinations=lambda stream, text: {},
        replication={},
        rows={},
    )
    store = SQLiteStore(folder / "state.db")
    return RunStore(store, pipeline="p", run_id="r", accounts={"load": account})


STORES: dict[str, Callable[[Path], PositionStore]] = {"memory": lambda folder: Memory(), "SQLite": sqlite_store}
