"""A transformer with state as a stage: positions, saves, and partitions that go and come back."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamline.blocks.python.file import BlockFile
from streamline.blocks.python.messages.caller import MessageSettings
from streamline.blocks.python.messages.stateful import StatefulTransform
from streamline.blocks.python.messages.worker import MessageWorker
from streamline.flow.items import Item, MessageBatch, Origin, Position
from streamline.flow.keyed_state import Place

COUNT = """
@transformer
def count(messages, state, **kwargs):
    for message in messages:
        message["n"] = state.get("a", 0) + 1
        state.set("a", message["n"])
    return messages
"""
PLACE = Place("t", 0)


class MemoryStore:
    """A `StateStore`; `log` is what another owner has written, `restored` counts."""

    max_bytes: int | None = None
    any_key = False

    def __init__(self) -> None:
        self.log: dict[bytes, bytes] = {}
        self.values: dict[bytes, bytes | None] = {}
        self.restored = 0

    def start(self) -> None:
        pass

    def restore(self, place: Place) -> None:
        self.restored += 1
        self.values = dict(self.log)

    def get(self, place: Place, key: bytes) -> bytes | None:
        return self.values.get(key)

    def range(self, place: Place, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from sorted((key, value) for key, value in self.values.items() if value and first <= key < last)

    def marks(self, places: Collection[Place]) -> Mapping[Place, int]:
        return {}

    def save(self, place: Place, changes: Mapping[bytes, bytes | None], mark: int | None) -> None:
        self.values.update(changes)

    def drop(self, place: Place) -> None:
        self.values = {}

    def close(self) -> None:
        pass


class Staged:
    """The stage, with what it gave."""

    def __init__(self, stage: StatefulTransform) -> None:
        self.stage = stage
        self.given: list[Item] = []

    async def take(self, *items: Item) -> None:
        for item in items:
            self.given += await self.stage.process(item)
        self.given += await self.stage.flush()

    def counts(self) -> list[int]:
        batches = [item for item in self.given if isinstance(item, MessageBatch) and item.sink is None]
        return [message["n"] for batch in batches for message in batch.data]

    def changes(self) -> list[Any]:
        batches = [item for item in self.given if isinstance(item, MessageBatch) and item.sink == "count.state"]
        return [json.loads(value) for batch in batches for value in batch.data]


def batch(offset: int) -> MessageBatch:
    return MessageBatch("t", [{}], [Origin(*PLACE, offset, b"a", b"{}")])


def position(number: int) -> Position:
    return Position("read", number, {str(PLACE): b"%d" % number})


Cook = Callable[[Callable[[Staged, MemoryStore], Any]], None]


@pytest.fixture
def cook(tmp_path: Path) -> Cook:
    """Run a scenario with a stage."""

    def run(scenario: Callable[[Staged, MemoryStore], Any]) -> None:
        path = tmp_path / "count.py"
        path.write_text(COUNT)
        store = MemoryStore()
        worker = MessageWorker(MessageSettings(block=BlockFile("count", str(path)), state=lambda: store))

        async def main() -> None:
            stage = StatefulTransform(worker, "count.state")
            try:
                await stage.start()
                await scenario(Staged(stage), store)
            finally:
                await stage.close()

        anyio.run(main)

    return run


def test_changes_come_right_before_the_position(cook: Cook) -> None:
    async def scenario(staged: Staged, store: MemoryStore) -> None:
        await staged.take(batch(0), batch(1), position(1))
        changes, last = staged.given[-2:]
        assert isinstance(changes, MessageBatch)
        assert (staged.counts(), staged.changes(), last) == ([1, 2], [2], position(1))
        assert changes.origins == [Origin("t", 0, -1, b"a", b"2")]

    cook(scenario)


def test_while_more_comes_positions_are_left_out(cook: Cook) -> None:
    async def scenario(staged: Staged, store: MemoryStore) -> None:
        staged.stage._interval = 60.0
        await staged.take(batch(0), position(1))
        await staged.take(batch(1), position(2), batch(2), position(3))
        positions = [item.number for item in staged.given if isinstance(item, Position)]
        assert positions == [1, 3]
        assert staged.changes() == [1, 3]

    cook(scenario)


def test_a_partition_that_comes_back_is_restored(cook: Cook) -> None:
    async def scenario(staged: Staged, store: MemoryStore) -> None:
        await staged.take(batch(0), position(1))
        staged.stage.forget([str(PLACE)], 1)
        store.log = {b"a": b"10"}
        await staged.take(batch(1), position(2), batch(2), position(3))
        assert staged.counts() == [1, 11, 12]
        assert store.restored == 2

    cook(scenario)


def test_messages_that_were_given_before_it_went_leave_no_state(cook: Cook) -> None:
    async def scenario(staged: Staged, store: MemoryStore) -> None:
        await staged.take(batch(0), position(1))
        staged.stage.forget([str(PLACE)], 3)
        await staged.take(batch(1), position(2), batch(2), position(3))
        store.log = {b"a": b"10"}
        await staged.take(batch(7), position(4))
        assert staged.counts()[-1] == 11
        assert staged.changes()[-1] == 11

    cook(scenario)
