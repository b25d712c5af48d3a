"""The runtime with every source and every sink: nothing is lost, and only what is proven is saved."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import anyio
import pytest

from streamline.errors import StreamlineError
from streamline.flow.items import BadRecord, Item, RowBatch
from streamline.flow.protocols import Emit, Failed, ImmediateStage, PositionStore, Proven, Sink, Source
from streamline.flow.router import Route
from streamline.flow.runtime import Flow, FlowOutcome, Runtime
from tests.connectors.singer.running import PATIENCE, until
from tests.protocols.cases import ENDLESS, SinkCase, SourceCase
from tests.protocols.memory import STREAM, Memory, Numbers, Table, ids_of

pytestmark = pytest.mark.anyio


class Checked(Memory):
    """A store that keeps the saved positions whose records were not all durable in a sink."""

    def __init__(self, case: SinkCase) -> None:
        super().__init__()
        self.unfounded: list[bytes] = []
        self._case = case

    def save(self, source: str, parts: Any, refused: Sequence[BadRecord], number: int = 0) -> Any:
        for value in parts.values():
            if not set(range(1, int(value) + 1)) <= set(self._case.durable()):
                self.unfounded.append(value)
        return super().save(source, parts, refused)


def flow(source: Source, *sinks: Sink, **more: Any) -> Flow:
    return Flow(source=source, route=Route(branches=[Route(sinks=[sink]) for sink in sinks]), **more)


async def run(flows: Sequence[Flow], store: PositionStore, **more: Any) -> list[FlowOutcome]:
    with anyio.fail_after(PATIENCE):
        return await Runtime(flows, store=store, **more).run()


async def test_everything_arrives_in_order_and_its_position_is_saved(
    source_case: SourceCase, sink_case: SinkCase
) -> None:
    store = Checked(sink_case)
    (outcome,) = await run([flow(source_case.make(55), sink_case.make())], store)
    assert outcome.error is None
    assert sink_case.durable() == list(range(1, 56))
    assert store.saved == {"load": {STREAM: b"55"}}
    assert store.unfounded == []
    assert source_case.left() == []
    assert sink_case.left() == []


async def test_a_run_goes_on_where_the_one_that_failed_had_proven(source_case: SourceCase, sink_case: SinkCase) -> None:
    store = Checked(sink_case)
    (outcome,) = await run([flow(source_case.make(90, fail_at=43), sink_case.make())], store)
    assert isinstance(outcome.error, StreamlineError)
    assert outcome.sink is None
    assert store.saved == {"load": {STREAM: b"40"}}
    (outcome,) = await run([flow(source_case.make(90, start=store.saved["load"]), sink_case.make())], store)
    assert outcome.error is None
    assert sorted(set(sink_case.durable())) == list(range(1, 91))
    assert store.saved == {"load": {STREAM: b"90"}}
    assert store.unfounded == []


async def test_stopped_it_proves_and_saves_what_was_read(source_case: SourceCase, sink_case: SinkCase) -> None:
    store = Checked(sink_case)
    runtime = Runtime([flow(source_case.make(ENDLESS), sink_case.make())], store=store)
    outcomes: list[FlowOutcome] = []
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:

            async def collect() -> None:
                outcomes.extend(await runtime.run())

            tasks.start_soon(collect)
            await until(lambda: sink_case.taken() > 20)
            runtime.stop("enough", within=PATIENCE)
    assert outcomes[0].error is None
    rows = sink_case.durable()
    assert rows == list(range(1, len(rows) + 1))
    assert len(rows) - 10 <= int(store.saved["load"][STREAM]) <= len(rows)
    assert store.unfounded == []


# -- with the pair in memory alone


class Marked(Numbers):
    """A source with a row that does something to the sink."""

    def __init__(self, count: int, row: int, do: str, **more: Any) -> None:
        super().__init__(count, **more)
        self._row, self._do = row, do

    async def run(self, emit: Emit) -> None:
        async def mark(items: Sequence[Item]) -> None:
            if ids_of(items) == [self._row]:
                items = [RowBatch(STREAM, [{"id": self._row, "do": self._do}]), *items[1:]]
            await emit(items)

        await super().run(mark)


async def test_a_sink_that_fails_ends_the_flows_that_feed_it_and_no_other() -> None:
    store, bad, good = Memory(), Table("bad"), Table("good")
    failed: list[str] = []
    outcomes = await run(
        [
            flow(Marked(50, 25, "fail", id="one"), bad, good),
            flow(Numbers(ENDLESS, id="two"), bad),
            flow(Numbers(50, id="three"), good),
        ],
        store,
        on_failed=lambda id, error: failed.append(id),
    )
    assert [(outcome.source, outcome.sink) for outcome in outcomes] == [
        ("one", "bad"),
        ("two", "bad"),
        ("three", None),
    ]
    assert outcomes[2].error is None
    assert store.saved["one"] == {STREAM: b"20"}
    assert store.saved["three"] == {STREAM: b"50"}
    assert sorted(failed) == ["bad", "one", "two"]
    assert (bad.closed, good.closed) == (1, 1)


async def test_a_sink_whose_run_raises_has_failed_and_is_not_waited_for() -> None:
    class Broken(Table):
        async def run(self, proven: Proven, failed: Failed) -> None:
            await anyio.sleep(0.05)
            raise OSError("no space")

        async def close(self) -> None:
            self.closed += 1
            await anyio.sleep_forever()

    for count, closed in ((0, 1), (ENDLESS, 0)):
        sink = Broken(every=ENDLESS)
        (outcome,) = await run([flow(Numbers(count), sink)], Memory())
        assert (str(outcome.error), outcome.sink, sink.closed) == ("no space", "export", closed)


async def test_a_position_waits_for_the_slowest_sink() -> None:
    store, slow, fast = Memory(), Table("slow"), Table("fast")
    source = Marked(50, 25, "wait")
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Runtime([flow(source, fast, slow)], store=store).run)
            fast._take = lambda row: Table._take(fast, {"id": row["id"]})  # type: ignore[method-assign]
            await until(lambda: 25 in fast.rows and store.saved)
            await anyio.sleep(0.3)
            assert store.saved == {"load": {STREAM: b"20"}}
            assert source.confirmed == {STREAM: b"20"}
            slow.gate.set()
    assert source.confirmed == {STREAM: b"50"}


async def test_it_reads_no_more_than_the_sink_takes() -> None:
    given = 0

    class Counted(Numbers):
        async def run(self, emit: Emit) -> None:
            async def count(items: Sequence[Item]) -> None:
                nonlocal given
                given += 1
                await emit(items)

            await super().run(count)

    sink = Table()
    runtime = Runtime([flow(Counted(ENDLESS), sink)], store=Memory())
    sink._turn.acquire_nowait()
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.run)
            await anyio.wait_all_tasks_blocked()
            assert given < 10
            tasks.cancel_scope.cancel()


async def test_what_is_released_is_saved_as_far_as_it_is_proven_and_no_further() -> None:
    store, source, sink = Memory(), Marked(ENDLESS, 28, "wait"), Table()
    runtime = Runtime([flow(source, sink)], store=store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.run)
            await until(lambda: 27 in sink.rows)
            await anyio.sleep(0.1)  # position 30 has been given, and waits behind 28
            await runtime.release("load", [STREAM], within=0.3)
            assert store.saved == {"load": {STREAM: b"20"}}
            sink.gate.set()
    assert 30 in sink.rows
    assert store.saved == {"load": {STREAM: b"20"}}


async def test_what_is_released_is_waited_for() -> None:
    store, sink = Memory(), Table()
    runtime = Runtime([flow(Marked(ENDLESS, 28, "wait"), sink)], store=store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.run)
            await until(lambda: 27 in sink.rows)
            await anyio.sleep(0.1)  # position 30 has been given, and waits behind 28

            async def let_go() -> None:
                await anyio.sleep(0.1)
                sink.gate.set()

            tasks.start_soon(let_go)
            await runtime.release("load", [STREAM], within=PATIENCE)
            assert store.saved == {"load": {STREAM: b"30"}}


async def test_sinks_and_stages_help_when_keys_are_released() -> None:
    class Slow(Table):
        """Proves what it was sent when somebody waits for it."""

        forgotten: tuple[str, Collection[str], int] | None = None

        def hurry(self, source: str, number: int) -> None:
            self._numbers.setdefault(source, number)
            self._commit()

        def forget(self, source: str, keys: Collection[str], number: int) -> None:
            self.forgotten = source, keys, number

    class Keeping(ImmediateStage):
        """Holds something of keys."""

        forgotten: tuple[Collection[str], int] | None = None

        async def process(self, item: Item) -> Sequence[Item]:
            return [item]

        def forget(self, keys: Collection[str], number: int) -> None:
            self.forgotten = keys, number

    class Staying(Numbers):
        async def run(self, emit: Emit) -> None:
            await super().run(emit)
            await anyio.sleep_forever()

    store, sink, stage = Memory(), Slow(every=ENDLESS), Keeping()
    runtime = Runtime([Flow(source=Staying(20), route=Route([stage], [sink]))], store=store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.run)
            await until(lambda: len(sink._buffer) == 20)
            await runtime.release("load", [STREAM], within=10 * PATIENCE)
            tasks.cancel_scope.cancel()
    assert store.saved == {"load": {STREAM: b"20"}}
    newest = runtime._running["load"].router.newest
    assert sink.forgotten == ("load", [STREAM], newest)
    assert stage.forgotten == ([STREAM], newest)


async def test_what_is_released_and_already_saved_is_not_waited_for() -> None:
    class Staying(Numbers):
        async def run(self, emit: Emit) -> None:
            await super().run(emit)
            await anyio.sleep_forever()

    store = Memory()
    runtime = Runtime([flow(Staying(20), Table())], store=store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.run)
            await until(lambda: store.saved == {"load": {STREAM: b"20"}})
            await runtime.release("load", [STREAM], within=10 * PATIENCE)
            tasks.cancel_scope.cancel()


async def test_neither_what_a_failed_flow_gave_nor_a_flow_that_gave_nothing_is_waited_for() -> None:
    class Lasting(Numbers):
        async def run(self, emit: Emit) -> None:
            await until(lambda: self._released)

    store, bad = Memory(), Table("bad", every=ENDLESS)
    runtime = Runtime(
        [flow(Numbers(30, id="one", fail_at=25), bad), flow(Lasting(ENDLESS, id="two"), bad)], store=store
    )
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.run)
            await until(lambda: runtime._running["one"].ended)
            await runtime.release("one", [STREAM], within=10 * PATIENCE)
            await runtime.release("two", [STREAM], within=10 * PATIENCE)
    assert store.saved.get("one", {}) == {}


async def test_a_flow_that_waits_for_its_turn_is_not_begun_once_its_sink_has_failed() -> None:
    limit, sink = anyio.CapacityLimiter(1), Table()
    calls: list[str] = []

    async def before() -> None:
        calls.append("before")

    first = flow(Marked(50, 25, "fail", id="one"), sink, limits=[limit], before=before)
    second = flow(Numbers(50, id="two"), sink, limits=[limit], before=before)
    outcomes = await run([first, second], Memory())
    assert [(outcome.sink, outcome.began is None) for outcome in outcomes] == [("export", False), ("export", True)]
    assert calls == ["before"]


async def test_stages_are_not_finished_after_a_stop() -> None:
    class Finishing:
        finished = 0

        async def process(self, item: Item) -> Sequence[Item]:
            return [item]

        async def finish(self) -> Sequence[Item]:
            self.finished += 1
            return []

        async def close(self) -> None:
            pass

    for count, stopped, finished in ((20, None, 1), (ENDLESS, "enough", 0)):
        stage, source = Finishing(), Numbers(count)
        source.stopped = stopped
        (outcome,) = await run([Flow(source=source, route=Route([stage], [Table()]))], Memory())
        assert (outcome.error, stage.finished) == (None, finished)


@pytest.mark.parametrize(("within", "limits"), [(None, []), (0.5, [0.5])])
async def test_a_stop_limits_the_time_of_sinks_where_it_names_one(within: float | None, limits: list[float]) -> None:
    class Limited(Table):
        def limit(self, seconds: float) -> None:
            given.append(seconds)

    given: list[float] = []
    Runtime([flow(Numbers(5), Limited())], store=Memory()).stop("the run was interrupted", within=within)
    assert given == limits


async def test_refused_records_are_saved_with_the_position_after_them() -> None:
    class Refuse:
        async def process(self, item: Item) -> Sequence[Item]:
            if isinstance(item, RowBatch) and item.rows[0]["id"] == 15:
                return [BadRecord(STREAM, b'{"id":15}', "odd", "odd")]
            return [item]

        async def finish(self) -> Sequence[Item]:
            return []

        async def close(self) -> None:
            pass

    class Ordered(Memory):
        def save(self, source: str, parts: Any, refused: Sequence[BadRecord], number: int = 0) -> Any:
            self.refused += refused
            for value in parts.values():
                assert int(value) < 15 or self.refused
            return super().save(source, parts, [])

    store, sink = Ordered(), Table()
    seen: list[BadRecord] = []
    route = Route([Refuse()], [sink])
    (outcome,) = await run([Flow(source=Numbers(30), route=route, refused=seen.extend)], store)
    assert outcome.error is None
    assert 15 not in sink.rows
    assert store.refused == seen != []


async def test_a_limit_lets_one_run_after_the_other() -> None:
    limit = anyio.CapacityLimiter(1)
    store, sink = Memory(), Table()
    outcomes = await run([flow(Numbers(20, id=id), sink, limits=[limit]) for id in ("one", "two")], store)
    assert sink.rows == [*range(1, 21), *range(1, 21)]
    assert all(outcome.began is not None for outcome in outcomes)


async def test_cancelled_it_saves_what_was_proven() -> None:
    store, sink = Memory(), Table()
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Runtime([flow(Marked(ENDLESS, 25, "wait"), sink)], store=store).run)
            await until(lambda: 24 in sink.rows)
            tasks.cancel_scope.cancel()
    assert store.saved == {"load": {STREAM: b"20"}}


# -- two paths into one sink


class Add:
    """A stage that adds to every id, and fails at one of them."""

    def __init__(self, amount: int, fail_at: int | None = None) -> None:
        self.amount, self.fail_at, self.closed = amount, fail_at, 0

    async def process(self, item: Item) -> Sequence[Item]:
        if not isinstance(item, RowBatch):
            return [item]
        if item.rows[0]["id"] == self.fail_at:
            raise StreamlineError("the stage failed")
        return [RowBatch(STREAM, [{"id": row["id"] + self.amount} for row in item.rows])]

    async def finish(self) -> Sequence[Item]:
        return []

    async def close(self) -> None:
        self.closed += 1


async def test_a_position_is_saved_when_all_paths_into_the_sink_have_sent_their_records() -> None:
    store, sink = Memory(), Table()
    route = Route(branches=[Route([Add(0)], [sink]), Route([Add(1000, fail_at=20)], [sink])])
    (outcome,) = await run([Flow(source=Numbers(50), route=route)], store)
    assert str(outcome.error) == "the stage failed"
    assert {20, 1019} <= set(sink.rows)
    assert 1020 not in sink.rows
    assert store.saved == {"load": {STREAM: b"10"}}

    store, sink = Memory(), Table()
    route = Route(branches=[Route([Add(0)], [sink]), Route([Add(1000)], [sink])])
    (outcome,) = await run([Flow(source=Numbers(55), route=route)], store)
    assert outcome.error is None
    assert sorted(sink.rows) == [*range(1, 56), *range(1001, 1056)]
    assert store.saved == {"load": {STREAM: b"55"}}


# -- stages of flows that do not run to their end


async def test_stages_of_a_flow_that_never_runs_are_closed() -> None:
    first, second = Add(0), Add(0)
    limit = anyio.CapacityLimiter(1)
    flows = [
        Flow(source=Marked(50, 5, "wait", id="one"), route=Route([first], [Table("one")]), limits=[limit]),
        Flow(source=Numbers(5, id="two"), route=Route([second], [Table("two")]), limits=[limit]),
    ]
    runtime = Runtime(flows, store=Memory())
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.run)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert (first.closed, second.closed) == (1, 1)


async def test_a_stage_that_cannot_be_started_stops_all_flows_and_the_others_are_closed() -> None:
    class Broken(Add):
        async def start(self) -> None:
            raise StreamlineError("it cannot be started")

    started, broken, sink = Add(0), Broken(0), Table()
    flows = [Flow(source=Numbers(5, id=str(n)), route=Route([s], [sink])) for n, s in enumerate((started, broken))]
    with pytest.raises(StreamlineError, match="cannot be started"):
        await run(flows, Memory())
    assert (started.closed, broken.closed) == (1, 1)
    assert sink.rows == []


async def test_a_flow_that_failed_is_not_waited_for_when_its_keys_are_released() -> None:
    store, sink = Memory(), Table()
    # The other flow keeps the sink open.
    failing = Flow(source=Numbers(50), route=Route([Add(0, fail_at=25)], [sink]))
    runtime = Runtime([failing, flow(Marked(ENDLESS, 28, "wait", id="other"), sink)], store=store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.run)
            await until(lambda: bool(runtime._running["load"].outcome.error))
            await runtime.release("load", [STREAM], within=10 * PATIENCE)
            assert store.saved["load"] == {STREAM: b"20"}
            tasks.cancel_scope.cancel()
