"""What every source keeps to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import pytest

from streamline.errors import StreamlineError
from streamline.flow.items import Item, Position
from streamline.flow.protocols import Source
from tests.connectors.singer.running import PATIENCE, until
from tests.protocols.cases import ENDLESS, SOURCES, SourceCase
from tests.protocols.memory import ids_of
from tests.protocols.message_cases import MESSAGE_SOURCES

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[*SOURCES, *MESSAGE_SOURCES], ids=lambda case: case.name)
def source_case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SourceCase]:
    folder = tmp_path / "source"
    folder.mkdir()
    case: SourceCase = request.param(folder)
    yield case
    case.end()


class Taken:
    """What a source gave, and how many calls of `emit` were open at once."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.open = 0
        self.most = 0

    async def emit(self, items: Sequence[Item]) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        await anyio.lowlevel.checkpoint()
        self.items += items
        self.open -= 1

    @property
    def positions(self) -> list[Position]:
        return [item for item in self.items if isinstance(item, Position)]


async def run(source: Source) -> Taken:
    taken = Taken()
    with anyio.fail_after(PATIENCE):
        await source.run(taken.emit)
    return taken


async def test_items_come_in_order_one_call_at_a_time(source_case: SourceCase) -> None:
    source = source_case.make(95)
    taken = await run(source)
    assert ids_of(taken.items) == list(range(1, 96))
    assert taken.most == 1
    assert source.stopped is None
    assert source_case.left() == []


async def test_positions_count_up_bear_its_id_and_cover_what_came_before(source_case: SourceCase) -> None:
    source = source_case.make(95)
    taken = await run(source)
    numbers = [position.number for position in taken.positions]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 0
    assert {position.source for position in taken.positions} == {source.id} == {"load"}
    for index, item in enumerate(taken.items):
        if isinstance(item, Position):
            assert item.parts == source_case.parts(ids_of(taken.items[:index])[-1])
    assert taken.positions[-1].parts == source_case.parts(95)


async def test_it_begins_after_the_position_that_it_is_given(source_case: SourceCase) -> None:
    first = await run(source_case.make(30))
    again = await run(source_case.make(55, start=first.positions[-1].parts))
    assert ids_of(again.items) == list(range(31, 56))


async def test_it_gives_no_more_while_nobody_takes(source_case: SourceCase) -> None:
    calls = 0

    async def stuck(items: Sequence[Item]) -> None:
        nonlocal calls
        calls += 1
        await anyio.sleep_forever()

    source = source_case.make(ENDLESS)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.run, stuck)
            await until(lambda: calls)
            await anyio.sleep(0.3)
            assert calls == 1
            tasks.cancel_scope.cancel()
    assert source_case.left() == []


async def test_stopped_in_the_middle_it_ends_well_with_all_that_it_gave(source_case: SourceCase) -> None:
    source, taken = source_case.make(ENDLESS), Taken()
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.run, taken.emit)
            await until(lambda: taken.positions)
            source.stop("enough")
    ids = ids_of(taken.items)
    assert ids == list(range(1, len(ids) + 1))
    assert source.stopped == "enough"
    assert source_case.left() == []


async def test_stopped_before_it_was_run_it_ends_soon(source_case: SourceCase) -> None:
    source = source_case.make(ENDLESS)
    source.stop("enough")
    await run(source)
    assert source.stopped == "enough"


async def test_failing_in_the_middle_it_has_given_what_came_before(source_case: SourceCase) -> None:
    taken = Taken()
    with anyio.fail_after(PATIENCE), pytest.raises(StreamlineError):
        await source_case.make(90, fail_at=43).run(taken.emit)
    ids = ids_of(taken.items)
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) >= 40
    assert taken.positions[-1].parts == source_case.parts(40)
    assert source_case.left() == []


async def test_what_its_taker_raises_ends_it(source_case: SourceCase) -> None:
    class Odd(Exception):
        pass

    async def refuse(items: Sequence[Item]) -> None:
        raise Odd

    with anyio.fail_after(PATIENCE), pytest.raises(Odd):
        await source_case.make(ENDLESS).run(refuse)
    assert source_case.left() == []


async def test_it_may_be_told_at_any_time_what_was_saved_and_what_is_no_longer_its(source_case: SourceCase) -> None:
    source = source_case.make(50)
    for number in (10, 50):
        await source.confirm(source_case.parts(number))
        await source.release(["another"])
        if number == 10:
            assert ids_of((await run(source)).items) == list(range(1, 51))
