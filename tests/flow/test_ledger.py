"""The ledger: a position of a source may be saved once every one of its sinks has proven it."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.flow.items import Position
from streamline.flow.ledger import Ledger, Unproven


def at(number: int, source: str = "s", *withheld: str, size: int = 1) -> Position:
    return Position(source, number, {"a": b"x" * size}, frozenset(withheld))


def ledger_of(*sinks: str, positions: int = 9) -> Ledger:
    """A ledger whose source `s` has sent some positions to each of its sinks."""
    ledger = Ledger({"s": frozenset(sinks)})
    for number in range(1, positions + 1):
        for sink in sinks:
            ledger.sent(sink, at(number))
    return ledger


def test_every_sink_must_prove_a_position() -> None:
    ledger = ledger_of("one", "two")
    assert ledger.proven("one", "s", 3) is None
    assert ledger.proven("two", "s", 2) == at(2)
    assert ledger.proven("two", "s", 4) == at(3)


def test_a_proof_that_comes_again_or_is_older_returns_nothing() -> None:
    ledger = ledger_of("one")
    assert ledger.proven("one", "s", 5) == at(5)
    assert ledger.proven("one", "s", 5) is None
    assert ledger.proven("one", "s", 4) is None


def test_what_is_withheld_on_the_way_to_one_sink_is_withheld() -> None:
    ledger = Ledger({"s": frozenset({"one", "two"})})
    ledger.sent("one", at(1, "s", "held"))
    ledger.sent("two", at(1))
    ledger.proven("one", "s", 1)
    assert ledger.proven("two", "s", 1) == at(1, "s", "held")
    ledger.sent("one", at(2))
    assert ledger.proven("one", "s", 2) == at(1)


def test_the_sink_that_proves_last_may_be_the_one_whose_way_withholds() -> None:
    ledger = Ledger({"s": frozenset({"one", "two"})})
    ledger.sent("one", at(1, "s", "held"))
    ledger.sent("two", at(1))
    ledger.proven("two", "s", 1)
    assert ledger.proven("one", "s", 1) == at(1, "s", "held")


def test_memory_is_bounded_and_the_newest_position_kept() -> None:
    unproven = Unproven(max_positions=64)
    for number in range(1, 10_001):
        unproven.add(at(number))
        assert len(unproven) <= 64
    assert unproven.take(10_000) == at(10_000)
    assert len(unproven) == 0


def test_large_positions_are_fewer() -> None:
    unproven = Unproven(max_bytes=1000)
    for number in range(1, 100):
        unproven.add(at(number, size=300))
        assert len(unproven) <= 4
    assert unproven.take(99) == at(99, size=300)


SIZE = at(1).nbytes
"""Bytes of a position."""


@pytest.mark.parametrize(("max_positions", "max_bytes"), [(4, 100 * SIZE), (100, 4 * SIZE)], ids=["count", "bytes"])
class TestRoomForFourPositions:
    def test_no_position_is_lost_before_the_limit_is_passed(self, max_positions: int, max_bytes: int) -> None:
        unproven = Unproven(max_positions, max_bytes)
        for number in range(1, 5):
            unproven.add(at(number))
        assert [unproven.take(number) for number in range(1, 5)] == [at(number) for number in range(1, 5)]

    def test_every_position_is_kept_again_once_half_of_the_room_is_free(
        self, max_positions: int, max_bytes: int
    ) -> None:
        unproven = Unproven(max_positions, max_bytes)
        for number in range(1, 6):
            unproven.add(at(number))
        assert unproven.take(2) == at(1)
        assert len(unproven) == 2
        unproven.add(at(6))
        unproven.add(at(7))
        assert [unproven.take(number) for number in (5, 6, 7)] == [at(5), at(6), at(7)]


def test_the_oldest_position_can_be_proven_though_newer_ones_are_as_large_as_all_the_room() -> None:
    unproven = Unproven(max_bytes=1000)
    for number in range(1, 4):
        unproven.add(at(number, size=600))
    assert unproven.take(1) == at(1, size=600)
    unproven.add(at(4, size=600))
    assert unproven.take(3) == at(3, size=600)


@pytest.mark.parametrize(("size", "lag"), [(9 << 20, 1), (500 << 10, 200), (100 << 10, 1000)])
def test_a_sink_that_lags_behind_still_gets_positions_saved(size: int, lag: int) -> None:
    value = b"x" * size
    ledger = Ledger({"s": frozenset(("one",))})
    saved = []
    for number in range(1, 20 * lag + 1):
        ledger.sent("one", Position("s", number, {"a": value}))
        if number > lag and (position := ledger.proven("one", "s", number - lag)):
            saved.append(position.number)
    assert len(saved) >= 9
    assert max(after - before for before, after in itertools.pairwise([0, *saved])) <= 3 * lag


def test_a_position_that_was_thinned_out_is_covered_by_an_earlier_one() -> None:
    unproven = Unproven(max_positions=4)
    for number in range(1, 9):
        unproven.add(at(number))
    position = unproven.take(7)
    assert position is not None
    assert position.number <= 7


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3))
def test_several_sources_and_sinks(seed: int, sources: int, sinks: int) -> None:
    rng = random.Random(seed)
    sinks_of = {
        f"s{n}": frozenset(rng.sample([f"k{m}" for m in range(sinks)], rng.randint(1, sinks))) for n in range(sources)
    }
    ledger = Ledger(sinks_of)
    for source, names in sinks_of.items():
        for sink in names:
            for number in range(1, 200):
                ledger.sent(sink, at(number, source))
    proven: dict[tuple[str, str], int] = {}
    saved: dict[str, Any] = dict.fromkeys(sinks_of, 0)
    for _ in range(60):
        source = rng.choice(list(sinks_of))
        sink = rng.choice(sorted(sinks_of[source]))
        number = proven.get((sink, source), 0) + rng.randint(0, 3)
        proven[sink, source] = number
        position = ledger.proven(sink, source, number)
        if position is not None:
            assert position.number == min(proven.get((each, source), 0) for each in sinks_of[source])
            assert position.number >= saved[source]
            saved[source] = position.number
