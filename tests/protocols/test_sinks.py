"""What every sink keeps to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import anyio
import pytest

from streamline.connectors.singer.state import StateParts
from streamline.errors import StreamlineError
from streamline.flow.items import ArrowBatch, Item, Position, RawBatch
from streamline.flow.protocols import Sink
from tests.connectors.singer.running import PATIENCE, record, until
from tests.protocols.cases import SINKS, SinkCase
from tests.protocols.memory import SCHEMA, STREAM
from tests.protocols.message_cases import MESSAGE_SINKS

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[*SINKS, *MESSAGE_SINKS], ids=lambda case: case.name)
def sink_case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SinkCase]:
    folder = tmp_path / "sink"
    folder.mkdir()
    case: SinkCase = request.param(folder)
    yield case
    case.end()


def at(number: int, source: str = "load") -> Position:
    return Position(source, number, StateParts(b'{"bookmarks":{"%s":%d}}' % (STREAM.encode(), number)))


class Reports:
    """What a sink reported. Each proof is checked when it comes: what it covers must be durable."""

    def __init__(self, case: SinkCase) -> None:
        self.case = case
        self.proven: dict[str, int] = {}
        self.failures: list[Exception] = []
        self.unfounded: list[tuple[str, int]] = []
        self.rows_of: Callable[[str, int], list[int]] = lambda source, number: list(range(1, number + 1))

    def prove(self, source: str, number: int) -> None:
        if not set(self.rows_of(source, number)) <= set(self.case.durable()) or self.failures:
            self.unfounded.append((source, number))
        self.proven[source] = max(number, self.proven.get(source, 0))


@asynccontextmanager
async def running(case: SinkCase, sink: Sink) -> AsyncIterator[Reports]:
    """Run a sink beside the body; it must have ended soon after that, and left nothing."""
    reports = Reports(case)

    async def run() -> None:
        try:
            await sink.run(reports.prove, reports.failures.append)
        except StreamlineError as error:
            reports.failures.append(error)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await anyio.lowlevel.checkpoint()
            yield reports
            tasks.cancel_scope.cancel()
    assert reports.unfounded == []
    assert case.left() == []


async def send(case: SinkCase, sink: Sink, first: int, last: int, source: str = "load") -> None:
    for number in range(first, last + 1):
        await sink.send(source, [case.row(number), at(number, source)])


async def test_closed_it_has_taken_everything_in_order_and_proven_it(sink_case: SinkCase) -> None:
    sink = sink_case.make()
    async with running(sink_case, sink) as reports:
        await sink.send("load", [SCHEMA])
        await send(sink_case, sink, 1, 20)
        await sink.source_ended("load")
        await sink.close()
        assert sink_case.durable() == list(range(1, 21))
        assert reports.proven == {"load": 20}
    assert reports.failures == []


async def test_records_come_in_any_lane(sink_case: SinkCase) -> None:
    import pyarrow as pa

    raw = RawBatch(STREAM, [b'{"type":"RECORD","stream":"numbers","record":{"id":1}}\n'], 1, 55)
    arrow = ArrowBatch(STREAM, pa.table({"id": [3]}))
    sink = sink_case.make()
    async with running(sink_case, sink):
        await sink.send("load", [SCHEMA, raw, sink_case.row(2), arrow, at(3)])
        await sink.close()
    assert sink_case.durable() == [1, 2, 3]


async def test_each_source_is_proven_for_itself_and_what_is_sent_at_once_stays_together(sink_case: SinkCase) -> None:
    sink = sink_case.make(["a", "b"])

    async def feed(source: str, first: int) -> None:
        for number in range(first, first + 50, 5):
            batch: list[Item] = [sink_case.row(each) for each in range(number, number + 5)]
            await sink.send(source, [*batch, at(number + 4, source)])
        await sink.source_ended(source)

    async with running(sink_case, sink) as reports:
        reports.rows_of = lambda source, number: list(range(1 if source == "a" else 101, number + 1))
        await sink.send("a", [SCHEMA])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed, "a", 1)
            tasks.start_soon(feed, "b", 101)
        await sink.close()
    rows = sink_case.durable()
    assert [row for row in rows if row < 100] == list(range(1, 51))
    assert [row for row in rows if row > 100] == list(range(101, 151))
    assert all(rows[index + 4] == rows[index] + 4 for index in range(0, 100, 5))
    assert reports.proven == {"a": 50, "b": 150}


async def test_while_it_can_take_nothing_who_sends_has_to_wait(sink_case: SinkCase) -> None:
    sink = sink_case.make()
    sent = 0
    line = record(2, stream=STREAM, pad=1 << 20)
    many: list[Item] = [RawBatch(STREAM, [line], 1, len(line)) for _ in range(2)]

    async def feed() -> None:
        nonlocal sent
        await sink.send("load", [sink_case.row(1, sink_case.WAIT)])
        while True:
            await sink.send("load", many)
            sent += 1

    async with running(sink_case, sink):
        await sink.send("load", [SCHEMA])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            await anyio.sleep(0.5)
            assert sent <= 2
            sink_case.go()
            tasks.cancel_scope.cancel()


async def test_failing_in_the_middle_it_says_so_and_proves_nothing_more(sink_case: SinkCase) -> None:
    sink = sink_case.make()
    async with running(sink_case, sink) as reports:
        await sink.send("load", [SCHEMA])
        await send(sink_case, sink, 1, 9)
        with pytest.raises(StreamlineError):
            await sink.send("load", [sink_case.row(10, sink_case.FAIL), at(10)])
            for number in count(11):
                await sink.send("load", [sink_case.row(11), at(number)])
        await until(lambda: reports.failures)
        await sink.close()
    assert reports.proven.get("load", 0) <= 9


async def test_limited_it_ends_though_it_can_take_nothing(sink_case: SinkCase) -> None:
    sink = sink_case.make()

    async def feed() -> None:
        with pytest.raises(StreamlineError):
            while True:
                await sink.send("load", [sink_case.row(1, sink_case.WAIT), at(1)])

    async with running(sink_case, sink) as reports:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            await anyio.sleep(0.1)
            sink.limit(0.2)
        await until(lambda: reports.failures)
        await sink.close()
    assert reports.proven == {}


async def test_cancelled_it_ends_at_once(sink_case: SinkCase) -> None:
    sink = sink_case.make()
    async with running(sink_case, sink) as reports:
        await sink.send("load", [SCHEMA, sink_case.row(1), at(1)])
    assert reports.proven.get("load", 0) <= 1
