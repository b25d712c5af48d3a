"""Proven positions are saved with the refused records before them, in one step, whatever comes between."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence

import anyio
import pytest

from streamline.flow import checkpoint
from streamline.flow.checkpoint import MAX_PENDING_RECORDS, Checkpoint
from streamline.flow.items import BadRecord, Position
from streamline.flow.ledger import Ledger
from streamline.flow.protocols import Emit

pytestmark = pytest.mark.anyio


class Kept:
    """A store that keeps what it is given, one entry a transaction; `fail` counts the transactions that fail first."""

    def __init__(self) -> None:
        self.saves: list[tuple[str, dict[str, bytes], list[bytes]]] = []
        self.values: dict[tuple[str, str], bytes] = {}
        self.fail = 0
        self.gate: threading.Event | None = None
        self.entered = threading.Event()

    def save(
        self, source: str, parts: Mapping[str, bytes], refused: Sequence[BadRecord], number: int = 0
    ) -> Mapping[str, bytes]:
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(20)
        if self.fail:
            self.fail -= 1
            raise OSError("no space")
        self.saves.append((source, dict(parts), [bad.record for bad in refused]))
        moved = {key: value for key, value in parts.items() if self.values.get((source, key)) != value}
        self.values |= {(source, key): value for key, value in parts.items()}
        return moved

    @property
    def refused(self) -> list[bytes]:
        return [record for _, _, records in self.saves for record in records]


class Told:
    """A source that keeps what it is told."""

    stopped = None

    def __init__(self, id: str) -> None:
        self.id = id
        self.confirmed: list[Mapping[str, bytes]] = []

    async def run(self, emit: Emit) -> None:
        pass

    def stop(self, reason: str) -> None:
        pass

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        self.confirmed.append(parts)

    async def release(self, keys: Collection[str]) -> None:
        pass


class Saving(Checkpoint):
    """A checkpoint of some sources that feed the sinks given."""

    def __init__(self, store: Kept, *sources: str, sinks: Sequence[str] = ("export",)) -> None:
        self.sources = {source: Told(source) for source in sources or ("load",)}
        self.sinks = sinks
        super().__init__(store, Ledger({source: frozenset(sinks) for source in self.sources}), self.sources)

    def prove(self, number: int, source: str = "load", *, sink: str = "export", **parts: bytes) -> None:
        """Send a position to a sink, which proves it."""
        self.sent(sink, Position(source, number, parts or {"a": b"%d" % number}))
        self.proven(sink, source, number)


def bad(*numbers: int) -> list[BadRecord]:
    return [BadRecord("a", b"%d" % number, "odd", "validate") for number in numbers]


async def test_a_position_is_saved_with_the_refused_records_before_it_in_one_transaction() -> None:
    store = Kept()
    saving = Saving(store)
    saving.refuse("load", bad(1, 2))
    saving.prove(1)
    await saving.flush()
    assert store.saves == [("load", {"a": b"1"}, [b"1", b"2"])]
    await saving.flush()
    assert len(store.saves) == 1


async def test_a_position_waits_for_every_sink() -> None:
    store = Kept()
    saving = Saving(store, sinks=("one", "two"))
    saving.prove(3, sink="one")
    await saving.flush()
    assert store.saves == []
    saving.prove(2, sink="two")
    await saving.flush()
    assert store.saves == [("load", {"a": b"2"}, [])]


async def test_a_source_is_told_what_changed_after_it_was_saved() -> None:
    store = Kept()
    saving = Saving(store)
    for number in (1, 2):
        saving.prove(number, a=b"1", b=b"%d" % number)
        await saving.flush()
    assert saving.sources["load"].confirmed == [{"a": b"1", "b": b"1"}, {"b": b"2"}]
    assert saving.saved("load") == 2


async def test_what_is_withheld_is_not_saved() -> None:
    store = Kept()
    saving = Saving(store)
    saving.sent("export", Position("load", 1, {"a": b"1", "b": b"1"}, frozenset({"b"})))
    saving.proven("export", "load", 1)
    await saving.flush()
    assert store.saves == [("load", {"a": b"1"}, [])]


async def test_what_is_released_is_not_saved_until_the_source_gives_it_again() -> None:
    store = Kept()
    saving = Saving(store)
    await saving.release("load", ["b"], 2)
    for number in (1, 2, 3):
        saving.prove(number, a=b"1", b=b"1")
        await saving.flush()
    assert [parts for _, parts, _ in store.saves] == [{"a": b"1"}, {"a": b"1"}, {"a": b"1", "b": b"1"}]


async def test_many_refused_records_do_not_wait_for_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_INTERVAL", 0)
    store = Kept()
    saving = Saving(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(saving.run)
        saving.refuse("load", bad(*range(MAX_PENDING_RECORDS)))
        with anyio.fail_after(20):
            while len(store.refused) < MAX_PENDING_RECORDS:
                await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    assert store.saves[0][1] == {}


async def test_of_positions_that_come_while_it_saves_the_last_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_INTERVAL", 0)
    store = Kept()
    store.gate = threading.Event()
    saving = Saving(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(saving.run)
        saving.prove(1)
        await anyio.to_thread.run_sync(store.entered.wait)
        for number in range(2, 20):
            saving.prove(number)
        store.gate.set()
        with anyio.fail_after(20):
            while store.saves[-1:] != [("load", {"a": b"19"}, [])]:
                await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    assert len(store.saves) == 2


@pytest.mark.parametrize("turns", range(8))
async def test_whenever_it_is_cancelled_the_last_flush_has_saved_everything(turns: int) -> None:
    store = Kept()
    saving = Saving(store, "one", "two")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(saving.run)
        saving.refuse("two", bad(1))
        saving.prove(1, "one")
        saving.prove(2, "two")
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    await saving.flush()
    assert store.saves == [("one", {"a": b"1"}, []), ("two", {"a": b"2"}, [b"1"])]


async def test_a_save_that_fails_loses_nothing_and_no_later_position_overtakes_its_letters() -> None:
    store = Kept()
    saving = Saving(store, "one", "two")
    saving.refuse("one", bad(1))
    saving.prove(1, "one")
    saving.prove(1, "two")
    store.fail = 1
    with pytest.raises(OSError, match="no space"):
        await saving.flush()
    assert store.saves == []
    saving.refuse("one", bad(2))
    saving.prove(2, "one")
    await saving.flush()
    assert sorted(store.saves) == [("one", {"a": b"2"}, [b"1", b"2"]), ("two", {"a": b"1"}, [])]


async def test_a_save_that_fails_is_made_good_without_a_later_position() -> None:
    store = Kept()
    saving = Saving(store)
    saving.prove(1)
    store.fail = 1
    with pytest.raises(OSError, match="no space"):
        await saving.flush()
    await saving.flush()
    assert store.saves == [("load", {"a": b"1"}, [])]


async def test_a_source_that_cannot_be_told_does_not_get_its_refused_records_saved_twice() -> None:
    class Deaf(Told):
        async def confirm(self, parts: Mapping[str, bytes]) -> None:
            raise OSError("no space")

    store, source = Kept(), Deaf("s")
    saving = Checkpoint(store, Ledger({"s": frozenset(("one",))}), {"s": source})
    saving.refuse("s", bad(1))
    saving.sent("one", Position("s", 1, {"a": b"1"}))
    saving.proven("one", "s", 1)
    with pytest.raises(OSError, match="no space"):
        await saving.flush()
    await saving.flush()
    assert store.saves == [("s", {"a": b"1"}, [record.record for record in bad(1)])]
