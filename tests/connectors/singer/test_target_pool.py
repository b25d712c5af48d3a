"""A destination's processes share its streams; every one of them sees every position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from streamline.connectors.singer.target import TargetProcess
from streamline.connectors.singer.target_pool import TargetPool
from streamline.flow.items import Item, Position, RowBatch
from streamline.flow.protocols import Failed, Proven

pytestmark = pytest.mark.anyio


class Process:
    """What a pool needs of a target process."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.ended: list[str] = []

    async def run(self, proven: Proven, failed: Failed) -> None:
        self.proven = proven

    async def send(self, source: str, items: Sequence[Item]) -> None:
        self.calls.append([f"at {i.number}" if isinstance(i, Position) else i.stream for i in items])

    async def source_ended(self, source: str) -> None:
        self.ended.append(source)


def pool(*processes: Process) -> TargetPool:
    return TargetPool("export", cast(list[TargetProcess], processes), lambda stream: ord(stream) % len(processes))


async def test_one_process_gets_everything_as_it_came() -> None:
    one = Process()
    await pool(one).send("load", [RowBatch("a", []), Position("load", 1, {}), RowBatch("b", [])])
    assert one.calls == [["a", "at 1", "b"]]


async def test_streams_keep_to_their_process_and_positions_go_to_all_in_their_place() -> None:
    one, two = Process(), Process()
    both = pool(one, two)
    await both.send("load", [RowBatch("b", []), RowBatch("a", []), Position("load", 1, {}), RowBatch("b", [])])
    await both.send("load", [RowBatch("a", [])])
    await both.send("load", [Position("load", 2, {})])
    assert one.calls == [["b", "at 1", "b"], ["at 2"]]
    assert two.calls == [["a", "at 1"], ["a"], ["at 2"]]


async def test_all_are_told_that_a_source_has_ended() -> None:
    one, two = Process(), Process()
    await pool(one, two).source_ended("load")
    assert (one.ended, two.ended) == (["load"], ["load"])


async def test_a_position_is_proven_when_every_process_has_proven_it() -> None:
    one, two = Process(), Process()
    proofs: list[tuple[str, int]] = []
    await pool(one, two).run(lambda source, number: proofs.append((source, number)), lambda error: None)
    one.proven("load", 3)
    assert proofs == []
    two.proven("load", 2)
    two.proven("load", 5)
    assert proofs == [("load", 2), ("load", 3)]
