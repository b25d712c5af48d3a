"""Proven positions are saved with the refused records before them, in one step, whatever comes between."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

import anyio
import pytest

from streamline.connectors.singer.state import StateParts
from streamline.execution.integration import checkpoint
from streamline.execution.integration.checkpoint import MAX_PENDING_LETTERS, PositionSaver, SourceAccount
from streamline.flow.items import BadRecord, Position
from streamline.flow.ledger import Ledger
from streamline.state.store import BookmarkOverride, BookmarkSave, DeadLetter, Store

pytestmark = pytest.mark.anyio


class Kept:
    """A store that keeps what it is given, one entry a transaction; `fail` counts the transactions that fail first."""

    def __init__(self) -> None:
        self.saves: list[tuple[str, dict[str, str], list[str]]] = []
        self.causes: list[str] = []
        self.consumed: list[BookmarkOverride] = []
        self.gaps: list[list[str]] = []
        self.fail = 0
        self.gate: threading.Event | None = None
        self.entered = threading.Event()

    def save(
        self,
        pipeline: str,
        block: str,
        run_id: str,
        bookmarks: Sequence[BookmarkSave],
        dead_letters: Sequence[DeadLetter] = (),
        consumed_overrides: Sequence[BookmarkOverride] = (),
    ) -> None:
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(20)
        if self.fail:
            self.fail -= 1
            raise OSError("the disk is full")
        self.saves.append(
            (block, {each.stream: each.value for each in bookmarks}, [bad.record for bad in dead_letters])
        )
        self.causes += [each.cause for each in bookmarks]
        self.consumed += consumed_overrides

    def mark_gap(self, pipeline: str, block: str, streams: Sequence[str]) -> None:
        self.gaps.append(list(streams))

    @property
    def letters(self) -> list[str]:
        return [record for _, _, letters in self.saves for record in letters]


def account(source: str = "load", **more: Any) -> SourceAccount:
    values: dict[str, Any] = {
        "block": source,
        "owns": lambda key: True,
        "shared": False,
        "sinks": ["export"],
        "replication": {},
        "rows": {},
        **more,
    }
    return SourceAccount(source=source, **values)


def saver(store: Kept, *accounts: SourceAccount, sinks: frozenset[str] = frozenset({"export"})) -> PositionSaver:
    return PositionSaver(
        cast(Store, store),
        pipeline="p",
        run_id="r",
        accounts=accounts,
        ledger=Ledger({each.source: sinks for each in accounts}),
        on_saved=lambda source: None,
    )


def at(number: int, value: bytes | None = None, *, source: str = "load", **more: Any) -> dict[str, Position]:
    return {source: Position(source, number, StateParts(value or b'{"bookmarks":{"a":%d}}' % number), **more)}


def bad(*numbers: int) -> list[BadRecord]:
    return [BadRecord("a", b"%d" % number, "odd", "validate") for number in numbers]


async def test_a_position_is_saved_with_the_refused_records_before_it_in_one_transaction() -> None:
    store = Kept()
    saving = saver(store, account())
    saving.refuse("load", "load", bad(1, 2))
    saving.proven("export", at(1))
    await saving.flush()
    assert store.saves == [("load", {"a": "1"}, ["1", "2"])]
    await saving.flush()
    assert len(store.saves) == 1


async def test_a_position_waits_for_every_sink() -> None:
    store = Kept()
    saving = saver(store, account(), sinks=frozenset({"one", "two"}))
    saving.proven("one", at(3))
    await saving.flush()
    assert store.saves == []
    saving.proven("two", at(2))
    await saving.flush()
    assert store.saves == [("load", {"a": "2"}, [])]


async def test_only_what_changed_is_saved_and_what_is_missing_deletes_nothing() -> None:
    store = Kept()
    confirmed: list[bytes] = []

    async def confirm(state: bytes) -> None:
        confirmed.append(state)

    saving = saver(store, account(rows={"a": b"1", "b": b"7"}, confirm=confirm))
    saving.proven("export", at(1))
    await saving.flush()
    assert (store.saves, confirmed) == ([], [])
    saving.proven("export", at(2))
    await saving.flush()
    assert store.saves == [("load", {"a": "2"}, [])]
    assert confirmed == [b'{"bookmarks":{"a":2,"b":7}}']


async def test_another_processs_bookmarks_and_withheld_ones_are_left_alone() -> None:
    store = Kept()
    saving = saver(store, account(owns=lambda key: key != "b", shared=True))
    value = b'{"bookmarks":{"a":1,"b":2,"c":3},"currently_syncing":"a","lsn":4}'
    saving.proven("export", at(1, value, withheld=frozenset({"c"})))
    await saving.flush()
    assert store.saves == [("load", {"a": "1", "*": '{"lsn":4}'}, [])]
    saving.proven("export", at(1, value))
    await saving.flush()
    assert store.saves[1:] == [("load", {"c": "3"}, [])]


async def test_a_state_of_another_shape_is_one_row_as_it_was_written() -> None:
    store = Kept()
    saving = saver(store, account())
    saving.proven("export", at(1, b'{"users": "2024-01-01",  "n": 1.10}'))
    await saving.flush()
    assert store.saves == [("load", {"*": '{"users": "2024-01-01",  "n": 1.10}'}, [])]


async def test_an_override_is_consumed_by_the_first_position_though_it_did_not_move() -> None:
    store = Kept()
    override = BookmarkOverride("a", "id", "1")
    saving = saver(store, account(rows={"a": b"1"}, cause_of={"a": "override"}, overrides={"a": [override]}))
    for number in (1, 1, 2):
        saving.proven("export", at(number))
        await saving.flush()
    assert store.consumed == [override]
    assert store.causes[0] == "override"
    assert store.saves[-1] == ("load", {"a": "2"}, [])


async def test_streams_that_were_left_out_have_their_gap_before_the_tap_is_told() -> None:
    store = Kept()
    gaps_when_told: list[int] = []

    async def confirm(state: bytes) -> None:
        gaps_when_told.append(len(store.gaps))

    saving = saver(store, account(left_out=["z"], confirm=confirm))
    for number in (1, 2):
        saving.proven("export", at(number))
        await saving.flush()
    assert store.gaps == [["z"]]
    assert gaps_when_told == [1, 1]


async def test_many_refused_records_do_not_wait_for_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_INTERVAL", 0)
    store = Kept()
    saving = saver(store, account())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(saving.run)
        saving.refuse("load", "load", bad(*range(MAX_PENDING_LETTERS)))
        with anyio.fail_after(20):
            while len(store.letters) < MAX_PENDING_LETTERS:
                await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    assert store.saves[0][1] == {}


async def test_of_positions_that_come_while_it_saves_the_last_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_INTERVAL", 0)
    store = Kept()
    store.gate = threading.Event()
    saving = saver(store, account())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(saving.run)
        saving.proven("export", at(1))
        await anyio.to_thread.run_sync(store.entered.wait)
        for number in range(2, 20):
            saving.proven("export", at(number))
        store.gate.set()
        with anyio.fail_after(20):
            while store.saves[-1:] != [("load", {"a": "19"}, [])]:
                await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    assert len(store.saves) == 2


@pytest.mark.parametrize("turns", range(8))
async def test_whenever_it_is_cancelled_the_last_flush_has_saved_everything(turns: int) -> None:
    store = Kept()
    saving = saver(store, account("one"), account("two"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(saving.run)
        saving.refuse("two", "two", bad(1))
        saving.proven("export", {**at(1, source="one"), **at(2, source="two")})
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    await saving.flush()
    assert store.saves == [("one", {"a": "1"}, []), ("two", {"a": "2"}, ["1"])]


async def test_a_save_that_fails_loses_nothing_and_no_later_position_overtakes_its_letters() -> None:
    store = Kept()
    saving = saver(store, account("one"), account("two"))
    saving.refuse("one", "one", bad(1))
    saving.proven("export", {**at(1, source="one"), **at(1, source="two")})
    store.fail = 1
    with pytest.raises(OSError, match="full"):
        await saving.flush()
    assert store.saves == []
    saving.refuse("one", "one", bad(2))
    saving.proven("export", at(2, source="one"))
    await saving.flush()
    assert sorted(store.saves) == [("one", {"a": "2"}, ["1", "2"]), ("two", {"a": "1"}, [])]


async def test_a_save_that_fails_is_made_good_without_a_later_position() -> None:
    store = Kept()
    saving = saver(store, account())
    saving.proven("export", at(1))
    store.fail = 1
    with pytest.raises(OSError, match="full"):
        await saving.flush()
    await saving.flush()
    assert store.saves == [("load", {"a": "1"}, [])]
