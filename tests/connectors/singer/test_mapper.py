"""A mapper reads what a source gives and is the source of what comes after; nothing gets lost in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import anyio
import pytest

from streamline.connectors.singer import mapper as mapper_module
from streamline.connectors.singer import tap as tap_module
from streamline.connectors.singer.mapper import MapperProcess
from streamline.errors import StreamlineError
from streamline.flow.items import ActivateVersion, FileBatch, Item, Position, RawBatch, RowBatch, Schema
from streamline.flow.protocols import Emit
from tests.connectors.singer.running import (
    PATIENCE,
    Plain,
    Taken,
    batch,
    gone,
    left,
    position,
    record,
    running,
    schema,
    tap,
    tap_command,
    until,
)
from tests.support.failures import fails

pytestmark = pytest.mark.anyio

COPY = "for line in sys.stdin: say(line, end='')"
SOON = 0.3


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits ten seconds for what ignores TERM."""
    for name in ("TERM_SECONDS", "EXIT_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(tap_module, name, SOON)


class Given:
    """A source that gives what it was made of, then fails if it is to."""

    id = "load"
    stopped: str | None = None

    def __init__(self, *parts: Sequence[Item], error: Exception | None = None) -> None:
        self.parts = parts
        self.error = error
        self.asked: list[str] = []

    async def run(self, emit: Emit) -> None:
        for items in self.parts:
            await emit(items)
        if self.error is not None:
            raise self.error

    def stop(self, reason: str) -> None:
        self.asked.append(reason)

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        pass

    async def release(self, keys: Collection[str]) -> None:
        pass


def mapper(folder: Path, code: str, source: Given, **more: object) -> MapperProcess:
    return MapperProcess(
        tap_command(folder, code, id="map", name="mapper-x", state=None, **more),
        source,
        run_dir=folder,
        masker=Plain(),
        log=lambda line: None,
    )


def many(count: int, pad: int = 10_000) -> list[list[Item]]:
    return [[schema()], *([batch(record(n, pad=pad)), position(n)] for n in range(count))]


async def failed(process: MapperProcess, code: str, name: str = "mapper-x") -> Taken:
    taken = Taken()
    with anyio.fail_after(PATIENCE), fails(code, name):
        await process.run(taken.emit)
    return taken


async def test_every_kind_of_item_passes_through_in_its_order(tmp_path: Path) -> None:
    file = b'{"type":"BATCH","stream":"users","filepath":"x.jsonl","format":"jsonl"}\n'
    source = Given(
        [schema(), batch(record(1)), RowBatch("users", [{"id": 2}]), position(2)],
        [ActivateVersion("users", 3), FileBatch("users", "pipelinewise", ["x.jsonl"], "jsonl", None, None, file)],
    )
    taken = Taken()
    with anyio.fail_after(PATIENCE):
        await mapper(tmp_path, COPY, source).run(taken.emit)
    kinds = [type(item) for item in taken.items]
    assert kinds[:3] == [Schema, RawBatch, Position]
    assert kinds[-2:] == [ActivateVersion, FileBatch]
    assert taken.ids == [1, 2]
    assert left(tmp_path) == []


async def test_more_than_its_pipes_hold_passes_through(tmp_path: Path) -> None:
    taken = Taken()
    with anyio.fail_after(PATIENCE):
        await mapper(tmp_path, COPY, Given(*many(400))).run(taken.emit)
    assert taken.ids == list(range(400))
    assert taken.positions[-1] == b'{"bookmarks":{"users":{"id":399}}}'


async def test_stopping_it_means_stopping_what_it_reads_from(tmp_path: Path) -> None:
    source = Given()
    process = mapper(tmp_path, COPY, source)
    process.stop("enough")
    assert source.asked == ["enough"]
    taken = Taken()
    with anyio.fail_after(PATIENCE):
        await process.run(taken.emit)


async def test_what_a_failing_source_gave_before_still_passes_through(tmp_path: Path) -> None:
    source = Given(*many(20), error=StreamlineError("the tap failed"))
    taken = await failed(mapper(tmp_path, COPY, source), "streamline.failed", "the tap failed")
    assert taken.ids == list(range(20))


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("sys.stdin.readline(); sys.exit(3)", "tap.exited"),
        ("sys.stdin.readline(); os.kill(os.getpid(), 9)", "tap.killed"),
        # An exit code of 0 says nothing about the records that it has not read.
        ("sys.stdin.readline(); sys.exit(0)", "mapper.input_unread"),
        ("os.read(0, 10); os.close(0); time.sleep(0.2)", "mapper.input_unread"),
    ],
)
@pytest.mark.parametrize("count", [5, 400])
async def test_ending_before_its_input_does_is_a_failure(tmp_path: Path, code: str, failure: str, count: int) -> None:
    class Slow(Given):
        async def run(self, emit: Emit) -> None:
            await super().run(emit)
            await anyio.sleep(1)

    await failed(mapper(tmp_path, code, Slow(*many(count))), failure)


async def test_leaving_a_small_input_unread_is_a_failure(tmp_path: Path) -> None:
    code = "sys.stdin.readline; os.read(0, 10); time.sleep(0.3)"
    await failed(mapper(tmp_path, code, Given(*many(3))), "mapper.input_unread")


async def test_behind_a_tap_it_ends_when_the_tap_does(tmp_path: Path) -> None:
    source = tap(tmp_path, "schema()\nfor n in range(3000): record(n, pad='x' * 1000)\nstate(3000)")
    process = MapperProcess(
        tap_command(tmp_path, COPY, id="map", name="mapper-x", state=None),
        source,
        run_dir=tmp_path,
        masker=Plain(),
        log=lambda line: None,
    )
    taken = Taken()
    with anyio.fail_after(PATIENCE):
        await process.run(taken.emit)
    assert taken.ids == list(range(3000))
    assert len(taken.positions) == 1


async def test_a_mapper_that_dies_ends_the_tap_before_it(tmp_path: Path) -> None:
    log: list[str] = []
    source = tap(tmp_path, "print(os.getpid(), file=sys.stderr); schema()\nwhile True: record(1)", log=log.append)
    process = MapperProcess(
        tap_command(tmp_path, "sys.stdin.readline(); time.sleep(0.3); sys.exit(4)", id="map", name="mapper-x"),
        source,
        run_dir=tmp_path,
        masker=Plain(),
        log=lambda line: None,
    )
    await failed(process, "tap.exited", "code 4")
    with anyio.fail_after(PATIENCE):
        await until(lambda: gone(int(log[0])))
    assert left(tmp_path) == []


async def test_cancelled_it_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    taken = Taken()
    process = mapper(tmp_path, "schema(); record(os.getpid()); time.sleep(60)", Given(*many(400)))
    async with running(lambda: process.run(taken.emit)) as tasks:
        await until(lambda: taken.ids)
        tasks.cancel_scope.cancel()
    with anyio.fail_after(PATIENCE):
        await until(lambda: gone(taken.ids[0]))
    assert left(tmp_path) == []


async def test_one_that_does_not_end_after_its_input_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapper_module, "DRAIN_SECONDS", SOON)
    taken = await failed(mapper(tmp_path, f"{COPY}\ntime.sleep(600)", Given(*many(5))), "mapper.timed_out")
    assert taken.ids == list(range(5))


async def test_one_that_takes_no_input_is_given_up_once_the_source_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapper_module, "STOP_SECONDS", SOON)
    source = Given(*many(400))
    process = mapper(tmp_path, "time.sleep(600)", source)
    source.stopped = "enough"
    await failed(process, "mapper.timed_out")


async def test_its_timeout_ends_it_and_not_only_what_it_reads_from(tmp_path: Path) -> None:
    await failed(mapper(tmp_path, "time.sleep(600)", Given(*many(400)), timeout=SOON), "tap.timed_out")
