"""A router moves what a source gives through stages into sinks: list in, list out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import pytest

from streamline.errors import PipelineFailed, StreamFailed, StreamlineError
from streamline.flow.items import BadRecord, Item, Position, RowBatch
from streamline.flow.protocols import Emit
from streamline.flow.router import AHEAD, Route, Router
from streamline.flow.stops import StopPolicy

pytestmark = pytest.mark.anyio

ABORT = "abort"
"""A row that the stage or the sink which meets it fails at: crash points are data."""


def rows(*values: object) -> RowBatch:
    return RowBatch("users", [{"id": value} for value in values])


def at(number: int) -> Position:
    return Position("load", number, {"users": b"%d" % number})


class Given:
    """Gives its parts, one after the other, then fails if it is to."""

    id = "load"

    def __init__(self, *parts: Sequence[Item], error: Exception | None = None) -> None:
        self.parts = parts
        self.error = error
        self.given = 0

    async def run(self, emit: Emit) -> None:
        for items in self.parts:
            await emit(items)
            self.given += 1
        if self.error is not None:
            raise self.error


class Kept:
    """A sink that keeps what it is sent: values of rows, and numbers of positions as text."""

    def __init__(self, id: str = "export") -> None:
        self.id = id
        self.seen: list[object] = []
        self.ended = 0

    async def send(self, source: str, items: Sequence[Item]) -> None:
        assert source == "load"
        assert items
        for item in items:
            if isinstance(item, RowBatch):
                values = [row["id"] for row in item.rows]
                if ABORT in values:
                    raise StreamlineError("the sink failed")
                self.seen += values
            elif isinstance(item, Position):
                self.seen.append(f"at {item.number}")

    async def source_ended(self, source: str) -> None:
        self.ended += 1


class Each:
    """A stage that does something with every row."""

    def __init__(self, change: Callable[[object], object]) -> None:
        self.change = change
        self.finished = 0
        self.closed = 0

    async def process(self, item: Item) -> Sequence[Item]:
        if not isinstance(item, RowBatch):
            return [item]
        out: list[Item] = []
        for row in item.rows:
            if row["id"] == ABORT:
                raise StreamlineError("the stage failed")
            changed = self.change(row["id"])
            if isinstance(changed, BadRecord):
                out.append(changed)
            elif changed is not None:
                out.append(RowBatch(item.stream, [{"id": changed}]))
        return out

    async def finish(self) -> Sequence[Item]:
        self.finished += 1
        return []

    async def close(self) -> None:
        self.closed += 1


class Gather:
    """A stage that holds rows back until a position comes, nothing more is there, or the source has ended."""

    def __init__(self) -> None:
        self.held: list[object] = []
        self.flushed = 0

    @property
    def pending(self) -> bool:
        return bool(self.held)

    def _all(self) -> list[Item]:
        held, self.held = self.held, []
        return [rows(*held)] if held else []

    async def process(self, item: Item) -> Sequence[Item]:
        if isinstance(item, RowBatch):
            self.held += [row["id"] for row in item.rows]
            return []
        return [*self._all(), item]

    async def flush(self) -> Sequence[Item]:
        self.flushed += 1
        return self._all()

    async def finish(self) -> Sequence[Item]:
        return [*self._all(), rows("the end")]

    async def close(self) -> None:
        pass


def refuse(value: object) -> object:
    if isinstance(value, int) and value % 2:
        return BadRecord("users", b"%d" % value, "odd", "validate")
    return value


async def moved(
    source: Given, route: Route, *, complete: bool = True
) -> tuple[list[BadRecord], list[Item], Exception | None]:
    """Run it; what was refused, what was observed, and what it raised."""
    bad: list[BadRecord] = []
    observed: list[Item] = []
    router = Router(source, route, observe=observed.extend, on_bad=bad.extend, complete=lambda: complete)
    with anyio.fail_after(20):
        try:
            await router.run()
        except Exception as error:
            return bad, observed, error
    return bad, observed, None


async def test_everything_arrives_in_its_order_and_is_observed_before() -> None:
    sink = Kept()
    source = Given([rows(1, 2), at(1)], [rows(3)], [at(2), rows(4)])
    _, observed, error = await moved(source, Route(sinks=[sink]))
    assert error is None
    assert sink.seen == [1, 2, "at 1", 3, "at 2", 4]
    assert len(observed) == 6 - 1
    assert sink.ended == 1


async def test_stages_change_drop_and_multiply() -> None:
    sink = Kept()
    stages = [Each(lambda n: None if n == 2 else n), Each(lambda n: -n if isinstance(n, int) else n)]
    await moved(Given([rows(1, 2, 3), at(1)], [rows(2)]), Route(stages, [sink]))
    assert sink.seen == [-1, -3, "at 1"]
    assert [(stage.finished, stage.closed) for stage in stages] == [(1, 1), (1, 1)]


async def test_branches_each_get_everything() -> None:
    all_of_it, halved, deep = Kept("all"), Kept("halved"), Kept("deep")
    half = Each(lambda n: n // 2 if isinstance(n, int) else n)
    route = Route(
        [Each(lambda n: n)],
        branches=[Route(sinks=[all_of_it]), Route([half], [halved], [Route([Each(lambda n: [n])], [deep])])],
    )
    await moved(Given([rows(2, 4), at(1)]), route)
    assert all_of_it.seen == [2, 4, "at 1"]
    assert halved.seen == [1, 2, "at 1"]
    assert deep.seen == [[1], [2], "at 1"]
    assert [sink.ended for sink in (all_of_it, halved, deep)] == [1, 1, 1]


async def test_two_paths_into_one_sink_share_its_positions() -> None:
    sink = Kept()
    negated = Each(lambda n: -n if isinstance(n, int) else n)
    route = Route(branches=[Route([Gather()], [sink]), Route([negated], branches=[Route(sinks=[sink])])])
    await moved(Given([rows(1), at(1)], [rows(2)], [at(2), rows(3)]), route)
    assert [item for item in sink.seen if isinstance(item, str)] == ["at 1", "at 2", "the end"]
    assert {1, -1} == set(sink.seen[: sink.seen.index("at 1")])
    assert {1, -1, 2, -2} == {item for item in sink.seen[: sink.seen.index("at 2")] if isinstance(item, int)}
    assert sink.ended == 1


async def test_refused_records_are_told_before_the_next_position_is_sent() -> None:
    told: list[object] = []

    class Telling(Kept):
        async def send(self, source: str, items: Sequence[Item]) -> None:
            await super().send(source, items)
            told.extend(f"at {item.number}" for item in items if isinstance(item, Position))

    sink = Telling()
    source = Given([rows(1, 2, 3), at(1)], [rows(5), at(2)])
    router = Router(
        source,
        Route([Each(refuse)], [sink]),
        observe=lambda items: None,
        on_bad=lambda bad: told.extend(each.record for each in bad),
    )
    await router.run()
    assert sink.seen == [2, "at 1", "at 2"]
    assert told.index(b"1") < told.index(b"3") < told.index("at 1") < told.index("at 2")
    assert told.index(b"5") < told.index("at 2")


async def test_what_is_held_back_goes_out_when_nothing_more_is_there() -> None:
    sink = Kept()
    gather = Gather()

    class Pausing(Given):
        async def run(self, emit: Emit) -> None:
            await emit([rows(1)])
            while sink.seen != [1]:
                await anyio.sleep(0.001)
            await emit([rows(2)])

    _, _, error = await moved(Pausing(), Route([gather], [sink]))
    assert error is None
    assert sink.seen == [1, 2, "the end"]


async def test_what_a_stage_held_passes_the_stages_after_it() -> None:
    sink = Kept()
    route = Route([Gather(), Each(lambda n: f"<{n}>")], branches=[Route([Gather()], [sink])])
    await moved(Given([rows(1)], [rows(2)]), route)
    assert sink.seen == ["<1>", "<2>", "<the end>", "the end"]


async def test_a_source_that_fails_has_what_it_gave_delivered_but_nothing_finished() -> None:
    sink = Kept()
    boom = StreamlineError("the tap failed")
    _, _, error = await moved(Given([rows(1)], [rows(2)], error=boom), Route([Gather()], [sink]))
    assert error is boom
    assert sink.seen == [1, 2]
    assert sink.ended == 1


async def test_a_source_that_was_asked_to_end_is_not_finished_either() -> None:
    sink = Kept()
    _, _, error = await moved(Given([rows(1)]), Route([Gather()], [sink]), complete=False)
    assert error is None
    assert sink.seen == [1]
    assert sink.ended == 1


async def test_a_stage_that_fails_has_what_came_before_delivered() -> None:
    sink, stage = Kept(), Each(lambda n: n)
    source = Given([rows(1), at(1)], [rows(2), at(2), rows(ABORT), at(3)], [rows(4)])
    _, _, error = await moved(source, Route([Each(lambda n: n), stage], [sink]))
    assert isinstance(error, StreamlineError)
    assert error.message == "the stage failed"
    assert sink.seen[-1] != "at 3"
    assert sink.seen[:2] == [1, "at 1"]
    assert "at 3" not in sink.seen
    assert stage.closed == 1
    assert stage.finished == 0


async def test_a_sink_that_fails_ends_it_though_the_source_would_go_on_for_ever() -> None:
    class Endless(Given):
        async def run(self, emit: Emit) -> None:
            await emit([rows(1)])
            while True:
                await emit([rows(ABORT)])

    sink, stage = Kept(), Each(lambda n: "again" if n == 1 else n)
    _, _, error = await moved(Endless(), Route([Gather(), stage], branches=[Route(sinks=[sink])]))
    assert isinstance(error, StreamlineError)
    assert stage.closed == 1


async def test_a_stage_that_cannot_be_closed_does_not_keep_the_others_from_it() -> None:
    class Stuck(Each):
        async def close(self) -> None:
            await super().close()
            raise RuntimeError("it can't be closed")

    stages = [Stuck(lambda n: n), Each(lambda n: n), Stuck(lambda n: n)]
    sink = Kept()
    _, _, error = await moved(Given([rows(1)]), Route(stages, [sink]))
    assert isinstance(error, RuntimeError)
    assert sink.seen == [1]
    assert [stage.closed for stage in stages] == [1, 1, 1]


async def test_the_first_error_is_the_one_that_is_raised() -> None:
    class Stuck(Each):
        async def close(self) -> None:
            raise RuntimeError("it can't be closed")

    boom = StreamlineError("the tap failed")
    _, _, error = await moved(Given(error=boom), Route([Stuck(lambda n: n)], [Kept()]))
    assert error is boom


async def test_it_reads_a_few_steps_ahead_and_no_further() -> None:
    free = anyio.Event()
    source = Given(*[[rows(n)] for n in range(50)])

    class Slow(Kept):
        async def send(self, source: str, items: Sequence[Item]) -> None:
            await free.wait()
            await super().send(source, items)

    sink = Slow()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(moved, source, Route(sinks=[sink]))
        await anyio.wait_all_tasks_blocked()
        assert source.given == AHEAD + 1
        free.set()
    assert sink.seen == list(range(50))


async def test_cancelled_it_closes_its_stages() -> None:
    class Endless(Given):
        async def run(self, emit: Emit) -> None:
            await anyio.sleep_forever()

    class Slow(Each):
        async def close(self) -> None:
            await anyio.sleep(0.01)  # not to be cut short
            await super().close()

    stage = Slow(lambda n: n)
    router = Router(Endless(), Route([stage]), observe=lambda items: None, on_bad=lambda bad: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert stage.closed == 1


# -- streams that fail alone


def of(stream: str, *values: object) -> RowBatch:
    return RowBatch(stream, [{"id": value} for value in values])


class Seen(Kept):
    """A sink that also keeps what of each position may be saved."""

    def __init__(self, id: str = "export") -> None:
        super().__init__(id)
        self.parts: list[dict[str, bytes]] = []

    async def send(self, source: str, items: Sequence[Item]) -> None:
        await super().send(source, items)
        for item in items:
            if isinstance(item, Position):
                self.parts.append({key: value for key, value in item.parts.items() if key not in item.withheld})


class Told(Each):
    """A stage that also tells of the last value when the source has ended."""

    async def finish(self) -> Sequence[Item]:
        return [of("users", "users end"), of("orders", "orders end")]


def both(number: int) -> Position:
    return Position("load", number, {"users": b"%d" % number, "orders": b"%d" % number})


async def stopping(route: Route, *parts: Sequence[Item], separable: bool = True) -> tuple[list[str], Exception | None]:
    """Run it; the streams that were stopped, and what it raised."""
    stopped: list[str] = []
    policy = StopPolicy(
        lambda stream, position: [stream] if separable else None, lambda stream, error: stopped.append(stream)
    )
    router = Router(Given(*parts), route, observe=lambda items: None, on_bad=lambda bad: None, stops=policy)
    with anyio.fail_after(20):
        try:
            await router.run()
        except Exception as error:
            return stopped, error
    return stopped, None


async def test_a_stream_that_fails_is_stopped_alone() -> None:
    sink = Seen()
    stopped, error = await stopping(
        Route([Told(lambda n: n)], branches=[Route([Told(lambda n: n)], [sink])]),
        [of("users", 1), of("orders", 11), both(1)],
        [of("users", 2), both(2), of("users", ABORT), of("orders", 12), of("users", 3), both(3)],
        [of("users", ABORT), of("orders", 13), both(4)],
    )
    assert error is None
    assert stopped == ["users"]
    assert sink.seen == [1, 11, "at 1", 2, "at 2", 12, "at 3", 13, "at 4", "orders end", "orders end"]
    assert [(parts["users"], parts["orders"]) for parts in sink.parts] == [
        (b"1", b"1"),
        (b"2", b"2"),
        (b"2", b"3"),
        (b"2", b"4"),
    ]


async def test_a_stream_that_fails_on_one_path_goes_on_on_the_others_and_keeps_its_position() -> None:
    whole, part = Seen("whole"), Seen("part")
    branches = [Route([Each(lambda n: n + 1 if isinstance(n, int) else n)], [whole]), Route([Each(fail_at(2))], [part])]
    stopped, error = await stopping(
        Route(branches=branches), [of("users", 1), both(1), of("users", 2), both(2), of("users", 3), both(3)]
    )
    assert (stopped, error) == (["users"], None)
    assert whole.seen == [2, "at 1", 3, "at 2", 4, "at 3"]
    assert part.seen == [1, "at 1", "at 2", "at 3"]
    assert [parts.get("users") for parts in part.parts] == [b"1", None, None]
    assert [parts.get("orders") for parts in part.parts] == [b"1", b"2", b"3"]


def fail_at(number: int) -> Callable[[object], object]:
    def change(value: object) -> object:
        if value == number:
            raise StreamlineError("the stage failed")
        return value

    return change


async def test_a_stream_whose_part_of_a_position_is_not_known_stops_the_others_at_the_next_one() -> None:
    sink = Seen()
    stopped, error = await stopping(
        Route([Each(lambda n: n)], [sink]),
        [of("users", ABORT), of("orders", 1), both(1), of("orders", 2)],
        separable=False,
    )
    assert stopped == ["users"]
    assert str(error) == "the stage failed"
    assert "at 1" not in sink.seen


async def test_the_failure_of_a_stream_that_was_held_back_is_not_the_next_streams() -> None:
    class Late(Gather):
        """It fails on a stream when it is asked for what it holds."""

        def __init__(self, *, prompt: bool) -> None:
            super().__init__()
            self.prompt = prompt

        @property
        def pending(self) -> bool:
            return self.prompt and bool(self.held)

        async def flush(self) -> Sequence[Item]:
            if ABORT in self.held:
                self.held.remove(ABORT)
                raise StreamFailed("users", "the stage failed")
            held, self.held = self.held, []
            return [of("orders", *held)] if held else []

        async def finish(self) -> Sequence[Item]:
            return await self.flush()

    for prompt in (True, False):
        sink = Seen()
        stopped, error = await stopping(Route([Late(prompt=prompt)], [sink]), [of("users", ABORT), of("orders", 1)])
        assert (stopped, error) == (["users"], None)
        assert sink.seen == [1]


async def test_what_ends_all_streams_is_no_failure_of_one() -> None:
    class Broken(Each):
        async def process(self, item: Item) -> Sequence[Item]:
            raise PipelineFailed("the worker is gone")

    stopped, error = await stopping(Route([Broken(lambda n: n)], [Seen()]), [of("users", 1), of("orders", 1)])
    assert (stopped, str(error)) == ([], "the worker is gone")


async def test_a_stream_with_too_many_refused_records_is_stopped_alone() -> None:
    def too_many(bad: Sequence[BadRecord]) -> None:
        raise StreamlineError("too many")

    sink = Seen()
    stopped: list[str] = []
    router = Router(
        Given([of("orders", 1), rows(2, 3), both(1)], [rows(4), of("orders", 2), both(2)]),
        Route([Each(lambda n: refuse(n) if n != 1 else n)], [sink]),
        observe=lambda items: None,
        on_bad=too_many,
        stops=StopPolicy(lambda stream, position: [stream], lambda stream, error: stopped.append(stream)),
    )
    await router.run()
    assert stopped == ["users"]
    assert sink.seen == [1, "at 1", 2, "at 2"]
    assert [parts["orders"] for parts in sink.parts] == [b"1", b"2"]
    assert all("users" not in parts for parts in sink.parts)
