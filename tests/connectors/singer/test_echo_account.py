"""The account of a target as a model: random sources, echoes of every shape, crashes; nothing unproven is saved."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamline.connectors.singer.echo_account import SERIAL, WHOLE, EchoAccount
from streamline.flow.items import Position


def at(number: int, source: str = "s") -> Position:
    return Position(source, number, {})


def sent(account: EchoAccount, stream: str, parents: Sequence[str] = ()) -> None:
    account.sent("s", stream, [stream], parents)


def test_an_echo_proves_what_came_before_its_first_forwarding() -> None:
    account = EchoAccount()
    account.start({"a": 0})
    sent(account, "a")
    assert account.place(at(1), {"a": 1}) == {}
    sent(account, "a")
    assert account.place(at(2), {"a": 2}) == {}
    assert account.echo({"a": 1}) == {"s": at(1)}
    assert account.echo({"a": 1}) == {}
    assert account.echo({"a": 2}) == {"s": at(2)}


def test_a_mark_that_comes_again_proves_no_more_than_the_first_time() -> None:
    account = EchoAccount()
    account.start({"a": 0})
    for number, mark in enumerate((1, 2, 1), start=1):
        sent(account, "a")
        account.place(at(number), {"a": mark})
    assert account.echo({"a": 1}) == {"s": at(1)}
    assert account.echo({"a": 1}) == {}


def test_a_mark_of_a_stream_that_was_just_sent_proves_no_other_stream() -> None:
    # `b` could be another name for `a`, until the first mark of `a` itself.
    account = EchoAccount()
    account.start({})
    sent(account, "a")
    assert account.place(at(1), {"b": 0}) == {}
    sent(account, "b")
    assert account.echo({"b": 0}) == {}
    assert account.place(at(2), {"b": 0, "a": 2}) == {"s": at(1)}
    assert account.echo({"b": 0, "a": 2}) == {"s": at(2)}


def test_the_echo_of_the_first_state_is_no_progress() -> None:
    account = EchoAccount()
    account.start({"a": 7})
    sent(account, "a")
    assert account.echo({"a": 7}) == {}
    account.place(at(1), {"a": 8})
    assert account.echo({"a": 7}) == {}
    assert account.ended() == {"s": at(1)}


def test_a_composite_proves_only_the_streams_that_it_shows() -> None:
    account = EchoAccount()
    account.start({"a": 0, "b": 0})
    sent(account, "a")
    sent(account, "b")
    account.place(at(1), {"a": 1, "b": 1})
    sent(account, "a")
    account.place(at(2), {"a": 2, "b": 1})
    assert account.echo({"a": 2, "b": 0}) == {}
    assert account.echo({"a": 2, "b": 1}) == {"s": at(2)}


def test_a_quiet_stream_holds_nothing_up() -> None:
    account = EchoAccount()
    account.start({"busy": 0, "quiet": 0})
    for number in range(1, 4):
        sent(account, "busy")
        account.place(at(number), {"busy": number, "quiet": number})
    assert account.echo({"busy": 3, "quiet": 0}) == {"s": at(3)}


def test_where_nothing_was_sent_the_next_position_is_proven_at_once() -> None:
    account = EchoAccount()
    account.start({"a": 0})
    assert account.place(at(1), {"a": 1}) == {"s": at(1)}
    sent(account, "a")
    assert account.place(at(2), {"a": 2}) == {}
    assert account.place(at(3), {"a": 3}) == {}
    assert account.echo({"a": 2}) == {"s": at(3)}


def test_records_after_their_mark_are_not_proven_by_it() -> None:
    # A composite target that has flushed `a` may show exactly the newest state although rows of `b` wait.
    account = EchoAccount()
    account.start({"a": 0, "b": 5})
    sent(account, "b")
    sent(account, "a")
    account.place(at(1), {"a": 1, "b": 5})
    assert account.echo({"a": 1, "b": 5}) == {"s": at(1)}  # b's mark has not moved: a rerun sends its rows again
    assert account.place(at(2), {"a": 1, "b": 6}) == {}  # this would move it
    assert account.echo({"a": 1, "b": 5}) == {}
    assert account.echo({"a": 1, "b": 6}) == {"s": at(2)}


def test_a_state_of_another_shape_is_one_mark() -> None:
    account = EchoAccount()
    account.start({})
    sent(account, "x")
    assert account.place(at(1), {WHOLE: 1}) == {}
    sent(account, "y")
    assert account.place(at(2), {WHOLE: 2}) == {}
    assert account.echo({WHOLE: 1}) == {"s": at(1)}
    assert account.echo({WHOLE: 9}) == {}
    assert account.ended() == {"s": at(2)}


def test_records_without_a_bookmark_of_their_own_are_proven_by_a_serial_alone() -> None:
    # `x` is an alias, or a child of `a`: a composite that has flushed `a` looks like the state that it was sent.
    account = EchoAccount()
    account.start({"a": 0})
    sent(account, "a")
    sent(account, "x")
    assert account.serial == 1
    marks = {"a": 1, SERIAL: 1}
    assert account.place(at(1), marks) == {}
    assert account.echo({"a": 1}) == {}
    assert account.echo(marks) == {"s": at(1)}
    assert account.serial is None


def test_a_composite_of_a_later_place_with_an_old_serial_proves_nothing_more() -> None:
    account = EchoAccount()
    account.start({"a": 0})
    sent(account, "x")
    account.place(at(1), {"a": 1, SERIAL: 1})
    sent(account, "x")
    account.place(at(2), {"a": 2, SERIAL: 2})
    assert account.echo({"a": 2, SERIAL: 1}) == {}
    assert account.echo({"a": 1, SERIAL: 1}) == {"s": at(1)}
    assert account.ended() == {"s": at(2)}


def test_an_idle_bookmark_is_saved_though_records_without_one_are_unproven() -> None:
    account = EchoAccount()
    account.start({"a": 1})
    sent(account, "x")
    assert account.place(at(1), {"a": 1, SERIAL: 1}) == {"s": at(1)}
    assert account.place(at(2), {"a": 2, SERIAL: 2}) == {}


def test_a_child_with_a_bookmark_that_never_moves_waits_for_its_parents() -> None:
    account = EchoAccount()
    account.start({"orders": 0, "items": 7})
    sent(account, "items", parents=["orders"])
    sent(account, "orders")
    assert account.place(at(1), {"orders": 1, "items": 7, SERIAL: 1}) == {}
    assert account.echo({"orders": 1, "items": 7, SERIAL: 0}) == {}
    assert account.echo({"orders": 1, "items": 7, SERIAL: 1}) == {"s": at(1)}


def test_a_child_whose_parent_has_no_mark_yet_waits_for_any_mark_of_its_source() -> None:
    account = EchoAccount()
    account.start({"items": 7})
    sent(account, "items", parents=["orders"])
    assert account.place(at(1), {"items": 7, "shop-orders": 1, SERIAL: 1}) == {}
    assert account.echo({"items": 7, "shop-orders": 1, SERIAL: 1}) == {"s": at(1)}


def test_where_a_state_was_one_mark_all_later_ones_are() -> None:
    account = EchoAccount()
    account.start({WHOLE: 1})
    sent(account, "a")
    assert account.place(at(1), {"a": 1, "b": 1}) == {}
    assert account.echo({"a": 1}) == {}
    assert account.echo({"a": 1, "b": 1}) == {"s": at(1)}


def test_a_bookmark_may_stand_under_another_of_its_streams_names() -> None:
    account = EchoAccount()
    account.start({"shop-orders": 0})
    account.sent("s", "orders", ["shop-orders", "orders"])
    account.place(at(1), {"shop-orders": 0, "orders": 1})
    assert account.echo({"shop-orders": 0, "orders": 1}) == {"s": at(1)}


def test_records_of_one_source_do_not_hold_up_the_bookmarks_of_another() -> None:
    account = EchoAccount()
    account.start({})
    account.sent("other", "x", ["x"])
    sent(account, "a")
    account.place(at(1), {"a": 1, SERIAL: 1})
    assert account.echo({"a": 1, SERIAL: 0}) == {"s": at(1)}


def test_a_bookmark_that_is_no_longer_withheld_waits_for_what_was_sent_before_it() -> None:
    account = EchoAccount()
    account.start({"a": 0})
    sent(account, "a")
    account.place(at(1), {"a": 1})
    assert account.echo({"a": 1}) == {"s": at(1)}
    sent(account, "a")  # the ACTIVATE_VERSION for which `a` was withheld
    assert account.place(at(2), {"a": 1}, released=["a"]) == {}
    assert account.echo({"a": 1}) == {}
    assert account.ended() == {"s": at(2)}


def test_it_waits_also_while_an_earlier_place_of_it_is_unproven() -> None:
    account = EchoAccount()
    account.start({"a": 0})
    sent(account, "a")
    account.place(at(1), {"a": 1})
    sent(account, "a")
    assert account.place(at(2), {"a": 1}, released=["a"]) == {}
    assert account.echo({"a": 1}) == {"s": at(1)}
    assert account.echo({"a": 1}) == {}
    assert account.ended() == {"s": at(2)}


def test_only_states_that_were_forwarded_are_recognised() -> None:
    account = EchoAccount()
    account.start({"a": 0})
    account.place(at(1), {"a": 1, "b": 1, SERIAL: 1})
    assert [account.recognises(marks) for marks in ({"a": 0, "b": 1}, {"a": 1, SERIAL: 9})] == [True, True]
    assert [account.recognises(marks) for marks in ({"a": 2}, {"a": 1, "c": 1})] == [False, False]


def test_memory_is_bounded_and_the_newest_position_kept() -> None:
    account = EchoAccount(max_places=64)
    account.start({"a": 0})
    placed = 0
    for number in range(1, 10_001):
        sent(account, "a")
        if account.wants_place() or number == 10_000:
            account.place(at(number), {"a": number})
            placed = number
    assert placed == 10_000
    assert len(account._entries) <= 64
    assert account.ended() == {"s": at(10_000)}


def test_the_echo_of_the_first_state_is_no_progress_after_many_marks() -> None:
    account = EchoAccount(max_places=2)
    account.start({"a": 0})
    for number in (1, 2, 3):
        sent(account, "a")
        account.place(at(number), {"a": number})
        assert account.echo({"a": number}) == {"s": at(number)}
    sent(account, "a")
    account.place(at(4), {"a": 0})
    assert account.echo({"a": 0}) == {}


@pytest.mark.parametrize(("max_places", "max_bytes"), [(4, 100), (100, 4)], ids=["count", "bytes"])
def test_positions_are_skipped_only_while_too_many_wait(max_places: int, max_bytes: int) -> None:
    account = EchoAccount(max_places=max_places, max_position_bytes=max_bytes)
    account.start({"a": 0})
    placed = []
    for number in range(1, 7):
        sent(account, "a")
        if account.wants_place():
            account.place(Position("s", number, {"a": b"x"}), {"a": number})
            placed.append(number)
    assert placed == [1, 2, 3, 4, 6]
    assert [position.number for position in account.echo({"a": 3}).values()] == [2]
    assert account.wants_place()
    account.place(Position("s", 7, {"a": b"x"}), {"a": 7})
    assert account.wants_place()


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


class Stream:
    """A stream whose rows are covered by the bookmark `family`: its own, its parent's, or one of another name."""

    def __init__(self, source: str, name: str, family: str, parents: Sequence[str]) -> None:
        self.source, self.name, self.family, self.parents = source, name, family, parents


def some_streams(rng: random.Random, source: str) -> list[Stream]:
    streams: list[Stream] = []
    for number in range(rng.randint(1, 3)):
        name = f"{source}{number}"
        streams.append(Stream(source, name, rng.choice([name, name, f"{name}_1"]), ()))
        if rng.random() < 0.4:
            # A child whose catalog names its parent, or does not.
            parent = streams[-1]
            parents = [parent.family] if rng.random() < 0.5 else []
            streams.append(Stream(source, f"{name}_child", parent.family, parents))
    return streams


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["exact", "composite", "first at once"]),
    st.integers(1, 2),
    st.sampled_from([5, 50, 100_000]),
)
def test_no_saved_position_has_an_unproven_record_before_it(
    seed: int, manner: str, sources: int, max_places: int
) -> None:
    """A bookmark is the number of the last row of its family that it covers; what is saved covers durable rows only."""
    rng = random.Random(seed)
    streams = [stream for source in "st"[:sources] for stream in some_streams(rng, source)]
    families = list(dict.fromkeys(stream.family for stream in streams))
    marks = {family: 0 for family in families if rng.random() < 0.5}
    # Some taps write a bookmark for a child that never moves.
    marks |= {stream.name: -1 for stream in streams if stream.parents and rng.random() < 0.5}
    saved = dict(marks)
    last = dict.fromkeys(families, 0)
    rows: list[tuple[Stream, int, int]] = []  # stream, its number in the family, a number of its own
    target = Target(manner, rng)
    account = EchoAccount(max_places=max_places)
    account.start(dict(marks))
    states: dict[int, tuple[dict[str, int], set[str], int]] = {}
    withheld: set[str] = set()
    before: dict[str, set[str]] = {}

    def take(result: dict[str, Position]) -> None:
        for position in result.values():
            state, held, count = states[position.number]
            moved = {key: mark for key, mark in state.items() if key not in held and saved.get(key) != mark}
            saved.update(moved)
            for family, mark in moved.items():
                for stream, number, row in rows[:count]:
                    if stream.family == family and number <= mark:
                        assert row in target.durable.get(stream.name, ()), (family, mark, stream.name, number)

    def echoed(echoes: list[dict[str, int]]) -> None:
        for echo in echoes:
            take(account.echo(echo))

    def send(stream: Stream, number: int) -> None:
        rows.append((stream, number, len(rows)))
        account.sent(stream.source, stream.name, [stream.name], stream.parents)
        echoed(target.record(stream.name, len(rows) - 1))

    def place(source: str, *, last_one: bool = False) -> None:
        position = at(len(states) + 1, source)
        # A position is of its own source's bookmarks; the target is sent those of all.
        own = {stream.family for stream in streams if stream.source == source}
        held = withheld & own
        states[position.number] = {key: mark for key, mark in marks.items() if key in own}, held, len(rows)
        if not account.wants_place() and not last_one:
            return
        serial = account.serial
        shown = {**marks, **({SERIAL: serial} if serial is not None else {})}
        released = before.get(source, set()) - held
        before[source] = held
        take(account.place(position, shown, released))
        echoed(target.state(shown))
        if manner == "exact" and rng.random() < 0.5:
            echoed(target.flush_at_state())

    echoed(target.state(dict(marks)))
    for _ in range(rng.randint(1, 80)):
        stream = rng.choice(streams)
        choice = rng.random()
        if choice < 0.6:
            last[stream.family] += 1
            send(stream, last[stream.family])
        elif choice < 0.7 and withheld:
            # What a bookmark was withheld for is sent, and counts as covered by it.
            family = rng.choice(sorted(withheld))
            withheld.discard(family)
            parent = next(each for each in streams if each.family == family)
            send(parent, marks.get(family, 0))
            place(parent.source)
        else:
            for family in {each.family for each in streams if each.source == stream.source}:
                if rng.random() < 0.5:
                    marks[family] = last[family] if rng.random() < 0.8 else rng.randint(0, last[family])
                if rng.random() < 0.1 and any(each.name == family for each in streams):
                    withheld.add(family)
            place(stream.source)
    if rng.random() < 0.5:  # else it dies: what is in its buffers is gone, and nothing more is proven
        withheld.clear()
        for source in "st"[:sources]:
            place(source, last_one=True)
        for stream in streams:
            target.flush(stream.name)
        take(account.ended())
        assert saved == {**saved, **{key: mark for key, mark in marks.items() if mark >= 0}}


@pytest.mark.parametrize("shape", ["per stream", "whole"])
def test_death_before_any_echo_saves_nothing(shape: str) -> None:
    account = EchoAccount()
    account.start({})
    for number in range(1, 20):
        sent(account, "a")
        assert account.place(at(number), {"a": number} if shape == "per stream" else {WHOLE: number}) == {}
    assert account.unproven
