"""Taps that are polled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from streamline.connectors.singer.polled_tap import Poll, PolledTap
from streamline.connectors.singer.state import START, join_state
from streamline.connectors.singer.tap import TapFailed, TapRefused
from streamline.errors import StreamlineError
from streamline.flow.items import FORGOTTEN, Position
from tests.connectors.singer.running import PATIENCE, Taken, left, running, tap, until

pytestmark = pytest.mark.anyio

NUMBERS = """
at = json.load(open(sys.argv[sys.argv.index("--state") + 1]))["bookmarks"].get("users", {}).get("id", 0)
schema()
for number in range(at + 1, at + 4):
    record(number)
    state(number)
"""
"""Gives three more numbers in each poll."""


class Shop:
    """Opens polls of a tap that runs `code`, and counts them."""

    def __init__(self, folder: Path, code: str = NUMBERS) -> None:
        self.folder = folder
        self.code = code
        self.states: list[bytes] = []
        self.notes: list[str] = []

    def open_poll(self, rows: Mapping[str, bytes], state: bytes) -> Poll:
        self.states.append(state)
        return Poll(tap(self.folder, self.code, state=state))

    def source(self, **more: Any) -> PolledTap:
        values: dict[str, Any] = {
            "start": {},
            "state": START,
            "interval": 0.001,
            "note": self.notes.append,
            **more,
        }
        return PolledTap("load", self.open_poll, **values)


def numbers(taken: Taken) -> list[int]:
    return [item.number for item in taken.items if isinstance(item, Position)]


async def test_each_poll_starts_where_the_one_before_has_ended(tmp_path: Path) -> None:
    shop, taken = Shop(tmp_path), Taken()
    source = shop.source(polls=3)
    with anyio.fail_after(PATIENCE):
        await source.run(taken.emit)
    assert taken.ids == list(range(1, 10))
    assert [msgspec.json.decode(state)["bookmarks"].get("users") for state in shop.states] == [
        None,
        {"id": 3},
        {"id": 6},
    ]
    assert numbers(taken) == sorted(set(numbers(taken)))
    assert source.stopped is None
    assert left(tmp_path) == []


async def test_it_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    shop, taken = Shop(tmp_path), Taken()
    source = shop.source()
    async with running(lambda: source.run(taken.emit)):
        await until(lambda: len(shop.states) > 3)
        source.stop("enough")
    assert source.stopped == "enough"
    assert taken.ids == list(range(1, len(taken.ids) + 1))


async def test_stopped_while_it_waits_it_ends_at_once(tmp_path: Path) -> None:
    shop, taken = Shop(tmp_path), Taken()
    source = shop.source(interval=PATIENCE * 10)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.run, taken.emit)
            await until(lambda: len(taken.ids) == 3)
            source.stop("enough")
    assert len(shop.states) == 1


async def test_without_an_interval_a_tap_is_run_once(tmp_path: Path) -> None:
    shop, taken = Shop(tmp_path), Taken()
    with anyio.fail_after(PATIENCE):
        await shop.source(interval=None).run(taken.emit)
    assert taken.ids == [1, 2, 3]


async def test_a_poll_that_fails_is_tried_again_from_its_last_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = NUMBERS + "if not os.path.exists('mended'): open('mended', 'w').close(); sys.exit(3)\n"
    code = code.replace("    state(number)", "    if number % 2 == 0: state(number)")
    shop, taken = Shop(tmp_path, code), Taken()
    source = shop.source(polls=1)
    monkeypatch.setattr("streamline.connectors.singer.polled_tap.LONGEST_BACKOFF", 0.01)
    with anyio.fail_after(PATIENCE):
        await source.run(taken.emit)
    assert taken.ids == [1, 2, 3, 3, 4, 5]
    assert len(shop.notes) == 1
    assert numbers(taken) == sorted(set(numbers(taken)))


async def test_too_many_polls_that_fail_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamline.connectors.singer.polled_tap.LONGEST_BACKOFF", 0.01)
    shop = Shop(tmp_path, "sys.exit(3)")
    with anyio.fail_after(PATIENCE), pytest.raises(TapFailed):
        await shop.source(retries=2).run(Taken().emit)
    assert len(shop.states) == 3


async def test_a_config_that_the_tap_refuses_fails_the_first_poll(tmp_path: Path) -> None:
    code = "print('Config validation failed: host is a required property', file=sys.stderr); sys.exit(1)"
    shop = Shop(tmp_path, code)

    with anyio.fail_after(PATIENCE), pytest.raises(TapRefused):
        await shop.source(retries=None).run(Taken().emit)


class Given:
    """A poll that gives positions without a process."""

    id, stopped = "load", None

    def __init__(self, *positions: Mapping[str, bytes]) -> None:
        self._positions = positions
        self.confirmed: dict[str, bytes] = {}

    async def run(self, emit: Any) -> None:
        await emit([Position("x", number, parts) for number, parts in enumerate(self._positions, 1)])

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        self.confirmed.update(parts)

    def stop(self, reason: str) -> None: ...


async def test_bookmarks_that_a_tap_does_not_show_are_kept_and_those_that_it_dropped_are_not() -> None:
    started: list[dict[str, bytes]] = []
    polls = [Given({"a": b"1"}), Given({"b": b"2"}), Given({"b": b"3", "a": FORGOTTEN}), Given()]

    def open_poll(rows: Mapping[str, bytes], state: bytes) -> Poll:
        started.append(dict(rows))
        assert msgspec.json.decode(state) == msgspec.json.decode(join_state(rows))
        return Poll(polls[len(started) - 1])  # type: ignore[arg-type]

    await PolledTap("load", open_poll, start={}, state=START, interval=0.001, polls=4).run(Taken().emit)
    assert started == [{}, {"a": b"1"}, {"a": b"1", "b": b"2"}, {"b": b"3"}]


async def test_a_tap_that_reads_a_log_is_not_told_of_what_is_not_saved() -> None:
    opened: list[dict[str, bytes]] = []

    def open_poll(rows: Mapping[str, bytes], state: bytes) -> Poll:
        opened.append(dict(rows))
        return Poll(Given({"log": b"%d" % len(opened), "other": b"%d" % len(opened)}))  # type: ignore[arg-type]

    source = PolledTap(
        "load", open_poll, start={}, state=START, interval=0.001, polls=2, awaited=lambda key: key == "log"
    )
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.run, Taken().emit)
            await until(lambda: opened)
            await anyio.sleep(0.05)
            assert len(opened) == 1
            await source.confirm({"log": b"1"})
    assert opened[1] == {"log": b"1", "other": b"1"}


async def test_what_its_taker_raises_is_no_failure_of_the_poll(tmp_path: Path) -> None:
    async def refuse(items: Any) -> None:
        raise StreamlineError("the sink is gone")

    shop = Shop(tmp_path)
    with anyio.fail_after(PATIENCE), pytest.raises(StreamlineError):
        await shop.source().run(refuse)
    assert shop.notes == []


async def test_files_of_a_poll_are_deleted_when_it_has_ended(tmp_path: Path) -> None:
    deleted: list[int] = []

    class Files:
        async def delete_all(self) -> None:
            deleted.append(1)

    def open_poll(rows: Mapping[str, bytes], state: bytes) -> Poll:
        return Poll(Given(), Files())  # type: ignore[arg-type]

    await PolledTap("load", open_poll, start={}, state=START, interval=0.001, polls=2).run(Taken().emit)
    assert deleted == [1, 1]
