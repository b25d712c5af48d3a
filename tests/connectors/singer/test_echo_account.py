"""The account of a target as a model: random sources, echoes of every shape, crashes; nothing unproven is saved."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamline.connectors.singer.echo_account import WHOLE, EchoAccount
from streamline.flow.items import Position


def at(number: int, source: str = "s") -> Position:
    return Position(source, number, {})


def test_an_echo_proves_what_came_before_its_first_forwarding() -> None:
    account = EchoAccount(frozenset({"a"}))
    account.start({"a": 0})
    account.sent("a")
    assert account.place(at(1), {"a": 1}) == {}
    account.sent("a")
    assert account.place(at(2), {"a": 2}) == {}
    assert account.echo({"a": 1}) == {"s": at(1)}
    assert account.echo({"a": 1}) == {}
    assert account.echo({"a": 2}) == {"s": at(2)}


def test_a_mark_that_comes_again_proves_no_more_than_the_first_time() -> None:
    account = EchoAccount(frozenset({"a"}))
    account.start({"a": 0})
    for number, mark in enumerate((1, 2, 1), start=1):
        account.sent("a")
        account.place(at(number), {"a": mark})
    assert account.echo({"a": 1}) == {"s": at(1)}
    assert account.echo({"a": 1}) == {}


def test_a_sum_of_unclaimed_marks_that_changes_its_meaning_proves_nothing() -> None:
    # From place 2 on `a` is a stream of its own, and `?` is the sum of `x` alone: an echo of place 1 looks like it.
    account = EchoAccount()
    account.start({})
    account.sent("u")
    account.place(at(1), {"x": 1, "a": 5})
    account.sent("u")
    account.sent("a")
    account.place(at(2), {"x": 1, "a": 5})
    account.echo({"x": 1, "a": 5})
    assert account.place(at(3), {"x": 2, "a": 5}) == {}
    assert account.ended() == {"s": at(3)}


def test_a_mark_of_a_stream_that_was_just_sent_proves_no_other_stream() -> None:
    # No catalog: `b` could be another name for `a`, until records of `b` itself are sent.
    account = EchoAccount()
    account.start({})
    account.sent("a")
    assert account.place(at(1), {"b": 0}) == {}
    account.sent("b")
    assert account.echo({"b": 0}) == {}
    assert account.place(at(2), {"b": 0, "a": 2}) == {"s": at(1)}
    assert account.echo({"b": 0, "a": 2}) == {"s": at(2)}


def test_the_echo_of_the_first_state_is_no_progress() -> None:
    account = EchoAccount(frozenset({"a"}))
    account.start({"a": 7})
    account.sent("a")
    assert account.echo({"a": 7}) == {}
    account.place(at(1), {"a": 8})
    assert account.echo({"a": 7}) == {}
    assert account.ended() == {"s": at(1)}


def test_a_composite_proves_only_the_streams_that_it_shows() -> None:
    account = EchoAccount(frozenset({"a", "b"}))
    account.start({"a": 0, "b": 0})
    account.sent("a")
    account.sent("b")
    account.place(at(1), {"a": 1, "b": 1})
    account.sent("a")
    account.place(at(2), {"a": 2, "b": 1})
    assert account.echo({"a": 2, "b": 0}) == {}
    assert account.echo({"a": 2, "b": 1}) == {"s": at(2)}


def test_a_quiet_stream_holds_nothing_up() -> None:
    account = EchoAccount(frozenset({"busy", "quiet"}))
    account.start({"busy": 0, "quiet": 0})
    for number in range(1, 4):
        account.sent("busy")
        account.place(at(number), {"busy": number, "quiet": number})
    assert account.echo({"busy": 3, "quiet": 0}) == {"s": at(3)}


def test_where_nothing_was_sent_the_next_position_is_proven_at_once() -> None:
    account = EchoAccount(frozenset({"a"}))
    account.start({"a": 0})
    assert account.place(at(1), {"a": 1}) == {"s": at(1)}
    account.sent("a")
    assert account.place(at(2), {"a": 2}) == {}
    assert account.place(at(3), {"a": 3}) == {}
    assert account.echo({"a": 2}) == {"s": at(3)}


def test_records_after_their_mark_are_not_proven_by_it() -> None:
    # A composite target that has flushed `a` may show exactly the newest state although rows of `b` wait.
    account = EchoAccount(frozenset({"a", "b"}))
    account.start({"a": 0, "b": 5})
    account.sent("b")
    account.sent("a")
    account.place(at(1), {"a": 1, "b": 5})
    assert account.echo({"a": 1, "b": 5}) == {"s": at(1)}  # b's mark has not moved: a rerun sends its rows again
    assert account.place(at(2), {"a": 1, "b": 6}) == {}  # this would move it
    assert account.echo({"a": 1, "b": 5}) == {}
    assert account.echo({"a": 1, "b": 6}) == {"s": at(2)}


def test_a_state_of_another_shape_is_one_mark() -> None:
    account = EchoAccount()
    account.start({})
    account.sent("x")
    assert account.place(at(1), {WHOLE: 1}) == {}
    account.sent("y")
    assert account.place(at(2), {WHOLE: 2}) == {}
    assert account.echo({WHOLE: 1}) == {"s": at(1)}
    assert account.echo({WHOLE: 9}) == {}
    assert account.ended() == {"s": at(2)}


def test_records_under_an_alias_are_proven_by_the_marks_that_nobody_claims() -> None:
    account = EchoAccount(frozenset({"a"}))
    account.start({"a": 0, "x_1": 0})
    account.sent("x")
    assert account.place(at(1), {"a": 1, "x_1": 1}) == {}
    assert account.echo({"a": 1, "x_1": 0}) == {}
    assert account.echo({"a": 1, "x_1": 1}) == {"s": at(1)}


def test_memory_is_bounded_and_the_newest_position_kept() -> None:
    account = EchoAccount(frozenset({"a"}), max_places=64)
    account.start({"a": 0})
    placed = 0
    for number in range(1, 10_001):
        account.sent("a")
        if account.wants_place() or number == 10_000:
            account.place(at(number), {"a": number})
            placed = number
    assert placed == 10_000
    assert len(account._entries) <= 64
    assert account.ended() == {"s": at(10_000)}


# -- the model


class Target:
    """Buffers rows per stream, flushes some, and echoes in one of the ways that targets do."""

    def __init__(self, manner: str, rng: random.Random) -> None:
        self.manner = manner
        self.rng = rng
        self.buffers: dict[str, list[int]] = {}
        self.durable: dict[str, set[int]] = {}
        self.latest: dict[str, int] | None = None
        self.flushed: dict[str, int] | None = None
        self.pending_exact: dict[str, int] | None = None
        self.emitted: list[dict[str, int]] = []

    def record(self, stream: str, row: int) -> list[dict[str, int]]:
        self.buffers.setdefault(stream, []).append(row)
        return self.maybe_flush()

    def state(self, marks: dict[str, int]) -> list[dict[str, int]]:
        self.latest = dict(marks)
        if self.flushed is None:
            self.flushed = dict(marks)
            if self.manner == "first at once":
                return self.out(dict(marks))
        if self.manner == "exact" and not any(self.buffers.values()):
            return self.out(dict(marks))
        return self.maybe_flush()

    def maybe_flush(self) -> list[dict[str, int]]:
        if self.rng.random() < 0.7 or self.latest is None:
            return []
        if self.manner == "exact":
            # Flushes all, then shows the last state that it got before the rows it flushed ended: only at a state.
            return []
        streams = [stream for stream in self.buffers if self.rng.random() < 0.5]
        for stream in streams:
            self.flush(stream)
            if self.flushed is not None and stream in self.latest:
                self.flushed[stream] = self.latest[stream]
        return self.out(dict(self.flushed or {}))

    def flush(self, stream: str) -> None:
        self.durable.setdefault(stream, set()).update(self.buffers.pop(stream, []))

    def flush_at_state(self) -> list[dict[str, int]]:
        for stream in list(self.buffers):
            self.flush(stream)
        return self.out(dict(self.latest or {}))

    def out(self, marks: dict[str, int]) -> list[dict[str, int]]:
        shown = [marks]
        self.emitted.append(marks)
        if self.rng.random() < 0.2:
            shown.append(self.rng.choice(self.emitted))  # an older one again
        if self.rng.random() < 0.1:
            shown.append({"nonsense": 1})
        return shown


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["exact", "composite", "first at once"]),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([5, 50, 100_000]),
)
@example(seed=194, manner="composite", count=3, catalog_known=False, max_places=5)
@example(seed=4000918292, manner="composite", count=2, catalog_known=False, max_places=5)
def test_no_saved_position_has_an_unproven_record_before_it(
    seed: int, manner: str, count: int, catalog_known: bool, max_places: int
) -> None:
    """Streams' marks name the last row that they cover; a saved mark must cover durable rows only."""
    rng = random.Random(seed)
    streams = [f"t{number}" for number in range(count)]
    marks = dict.fromkeys(streams[: rng.randint(0, count)], 0)
    start = dict(marks)
    saved = dict(marks)
    rows = dict.fromkeys(streams, 0)
    target = Target(manner, rng)
    account = EchoAccount(frozenset(streams) if catalog_known else frozenset(), max_places=max_places)
    account.start(start)
    echoes = target.state(start)
    states: dict[int, dict[str, int]] = {}
    number = 0
    check: list[dict[str, Position]] = []

    def take(result: dict[str, Position]) -> None:
        check.append(result)
        for position in result.values():
            for stream, mark in states[position.number].items():
                # Marks are monotonic here, so a mark covers rows 1..mark.
                missing = (
                    set(range(1, mark + 1)) - target.durable.get(stream, set()) if mark != start.get(stream) else ()
                )
                assert not missing, (stream, mark, missing)
            saved.update(states[position.number])

    for echo in echoes:
        take(account.echo(echo))
    for _ in range(rng.randint(1, 80)):
        if rng.random() < 0.6:
            stream = rng.choice(streams)
            rows[stream] += 1
            account.sent(stream)
            for echo in target.record(stream, rows[stream]):
                take(account.echo(echo))
        else:
            for stream in streams:
                if rng.random() < 0.5:
                    marks[stream] = rows[stream] if rng.random() < 0.8 else marks.get(stream, 0)
            number += 1
            states[number] = dict(marks)
            if not account.wants_place():
                continue
            take(account.place(at(number), dict(marks)))
            for echo in target.state(dict(marks)):
                take(account.echo(echo))
            if manner == "exact" and rng.random() < 0.5:
                for echo in target.flush_at_state():
                    take(account.echo(echo))
    if rng.random() < 0.5:  # else it dies: what is in its buffers is gone, and nothing more is proven
        number += 1
        states[number] = dict(marks)
        take(account.place(at(number), dict(marks)))
        for stream in streams:
            target.flush(stream)
        take(account.ended())
        assert saved == {**saved, **marks}


@pytest.mark.parametrize("shape", ["per stream", "whole"])
def test_death_before_any_echo_saves_nothing(shape: str) -> None:
    account = EchoAccount(frozenset({"a"}))
    account.start({})
    for number in range(1, 20):
        account.sent("a")
        assert account.place(at(number), {"a": number} if shape == "per stream" else {WHOLE: number}) == {}
    assert account.unproven
