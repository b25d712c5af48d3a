"""Windows against a model that keeps everything, over restarts, evictions and flushes at any point."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.blocks.python.file import UserError
from streamline.blocks.python.messages.keyed_state import BlockState
from streamline.blocks.python.messages.window_settings import Window, WindowSettings, window_settings
from streamline.blocks.python.messages.windows import Windows
from streamline.errors import ConfigError, StreamlineError
from streamline.flow.items import BadRecord, MessageBatch, Origin
from streamline.flow.keyed_state import Place
from tests.blocks.python.messages.test_stateful import MemoryStore

PLACE = Place("t", 0)
Row = tuple[str, int, int, Any]
"""Key, start and end of a window that has closed (seconds), and what the function got."""


class Function:
    """The block's function; `state` is changed by it."""

    def __init__(self, state: BlockState) -> None:
        self.state = state
        self.failures = 0

    def close_window(self, key: str, window: Window, contents: Any, stream: str) -> list[Any]:
        start, end = (int(each.timestamp()) for each in (window.start, window.end))
        self.state.calls.set(key, self.state.calls.get(key, 0) + 1)
        return [(key, start, end, contents)]

    def error(self, error: BaseException) -> UserError:
        return UserError(repr(error), "trace", "block.py:1")

    def worked(self) -> None:
        self.failures = 0

    def raised(self, error: UserError) -> None:
        self.failures += 1


class Cook:
    """Windows of one partition, whose messages are numbered."""

    def __init__(self, settings: WindowSettings, store: MemoryStore | None = None) -> None:
        self.settings = settings
        self.store = store or MemoryStore()
        self.rows: list[Row] = []
        self.refused: list[BadRecord] = []
        self._next = 0
        self._position = 0
        self.restart()

    def restart(self) -> None:
        """Go on from what is saved."""
        self.store.log = {key: value for key, value in self.store.values.items() if value is not None}
        self.state = BlockState(self.store)
        self.windows = Windows(self.settings, self.state, "b", Function(self.state))

    def take(self, *messages: tuple[str, Any]) -> None:
        """Take messages: key and data (a time: it gets a number)."""
        data, origins = [], []
        for key, value in messages:
            data.append(value if value is None or isinstance(value, dict) else {"at": value, "id": self._next})
            origins.append(Origin("t", 0, self._next, key.encode(), None))
            self._next += 1
        batch = MessageBatch("t", data, origins)
        self.state.open(batch)
        for item in self.windows.run(batch):
            if isinstance(item, BadRecord):
                self.refused.append(item)
            else:
                assert isinstance(item, MessageBatch)
                self.rows += item.data

    def save(self) -> None:
        """Prove and save a position."""
        self._position += 1
        self.state.propose("s", self._position, [PLACE], "log")
        self.state.saved("s", self._position, [str(PLACE)])

    def write(self) -> None:
        """Write what is saved to the store."""
        self.save()
        self.state._write()

    @property
    def late(self) -> list[int]:
        return [origin.offset for bad in self.refused if (origin := bad.origin) is not None]


def settings(**arguments: Any) -> WindowSettings:
    return window_settings((), {"time": "at", **arguments}, "b.py:1")


# -- the model


def fixed(size: int, step: int) -> Callable[[int], list[tuple[int, int]]]:
    def of(at: int) -> list[tuple[int, int]]:
        return [
            (start, start + size)
            for start in range(at - size - step, at + 1)
            if start % step == 0 and start + size > at
        ]

    return of


def expected_fixed(
    events: Sequence[tuple[str, int]], lateness: int, windows_of: Callable[[int], list[tuple[int, int]]]
) -> tuple[list[Row], list[int]]:
    open_windows: dict[tuple[str, int, int], list[int]] = {}
    closed: list[Row] = []
    late: list[int] = []
    highest: int | None = None
    for number, (key, at) in enumerate(events):
        theirs = [each for each in windows_of(at) if highest is None or each[1] > highest - lateness]
        if not theirs:
            late.append(number)
            continue
        for each in theirs:
            open_windows.setdefault((key, *each), []).append(number)
        highest = at if highest is None else max(highest, at)
        for key_, start, end in sorted(open_windows, key=lambda each: (each[2], each[1], each[0])):
            if end <= highest - lateness:
                closed.append((key_, start, end, open_windows.pop((key_, start, end))))
    return closed, late


def expected_sessions(events: Sequence[tuple[str, int]], lateness: int, gap: int) -> tuple[list[Row], list[int]]:
    open_sessions: dict[str, list[list[tuple[int, int]]]] = {}
    closed: list[Row] = []
    late: list[int] = []
    highest: int | None = None
    for number, (key, at) in enumerate(events):
        theirs = open_sessions.setdefault(key, [])
        near = [each for each in theirs if any(abs(time - at) < gap for time, _ in each)]
        if not near and highest is not None and at + gap <= highest - lateness:
            late.append(number)
            continue
        open_sessions[key] = [each for each in theirs if each not in near]
        open_sessions[key].append([*(message for each in near for message in each), (at, number)])
        highest = at if highest is None else max(highest, at)
        ended = [
            (max(time for time, _ in each) + gap, key_, each)
            for key_, sessions in open_sessions.items()
            for each in sessions
            if max(time for time, _ in each) + gap <= highest - lateness
        ]
        for end, key_, each in sorted(ended, key=lambda session: session[:2]):
            open_sessions[key_].remove(each)
            closed.append((key_, min(each)[0], end, sorted(number for _, number in each)))
    return closed, late


EVENTS = st.lists(st.tuples(st.sampled_from(["a", "b", "a\x00b", "\xff"]), st.integers(-40, 120)), max_size=40)
LATENESS = st.integers(0, 30)
WHAT = st.lists(st.sampled_from(["", "", "", "save", "write", "restart", "evict"]), min_size=40, max_size=40)
FOLD = {"fold": lambda ids, message: [*ids, message["id"]], "initial": [], "merge": lambda one, other: one + other}


def played(arguments: dict[str, Any], events: Sequence[tuple[str, int]], what: Sequence[str], fold: bool) -> Cook:
    cook = Cook(settings(**arguments, **(FOLD if fold else {})))
    for event, does in zip(events, what, strict=False):
        cook.take(event)
        if does == "save":
            cook.save()
        elif does:
            cook.write()
        if does == "restart":
            cook.state.close()
            cook.restart()
        elif does == "evict":
            for partition in cook.state.indexes.values():
                for window in getattr(partition, "_windows", {}).values():
                    window.release()
    return cook


def ids(rows: Sequence[Row], *, in_order: bool = True) -> list[Row]:
    found: list[Row] = []
    for key, start, end, contents in rows:
        numbers = [each["id"] if isinstance(each, dict) else each for each in contents]
        found.append((key, start, end, numbers if in_order else sorted(numbers)))
    return found


@given(EVENTS, LATENESS, WHAT, st.integers(1, 20), st.booleans())
def test_tumbling(events: list[tuple[str, int]], lateness: int, what: list[str], size: int, fold: bool) -> None:
    cook = played({"tumbling": size, "lateness": lateness}, events, what, fold)
    assert (ids(cook.rows), cook.late) == expected_fixed(events, lateness, fixed(size, size))


@given(EVENTS, LATENESS, WHAT, st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_sliding(
    events: list[tuple[str, int]], lateness: int, what: list[str], size: int, step: int, fold: bool
) -> None:
    step = min(size, step)
    cook = played({"sliding": (size, step), "lateness": lateness}, events, what, fold)
    assert (ids(cook.rows), cook.late) == expected_fixed(events, lateness, fixed(size, step))


@given(EVENTS, LATENESS, WHAT, st.integers(1, 20), st.booleans())
def test_sessions(events: list[tuple[str, int]], lateness: int, what: list[str], gap: int, fold: bool) -> None:
    cook = played({"session": gap, "lateness": lateness}, events, what, fold)
    assert (ids(cook.rows, in_order=False), cook.late) == expected_sessions(events, lateness, gap)


def _message(key: str, at: int, kind: str) -> tuple[str, dict[str, Any] | None]:
    time = dt.datetime.fromtimestamp(at, dt.UTC)
    data: dict[str, Any] = {"at": time.isoformat(), "user": key}
    changed: dict[str, dict[str, Any] | None] = {
        "tombstone": None,
        "no time": {"user": key},
        "wrong time": {**data, "at": "yesterday"},
        "another key": {**data, "user": key + "b"},
        "a number": {**data, "at": at},
        "with metadata": {"data": data, "metadata": {}},
    }
    return key, changed.get(kind, data)


KINDS = [*["usual"] * 20, "tombstone", "no time", "wrong time", "another key", "a number", "with metadata"]
MESSAGES = st.builds(_message, st.sampled_from(["a", "ä", "a\x00b"]), st.integers(0, 60), st.sampled_from(KINDS))


@given(
    st.lists(st.lists(MESSAGES, max_size=8), max_size=8),
    st.sampled_from([{"tumbling": 7}, {"sliding": (9, 4)}, {"session": 5}]),
    st.booleans(),
)
def test_messages_of_a_batch_are_taken_as_single_ones_are(
    batches: list[list[tuple[str, Any]]], kind: dict[str, Any], fold: bool
) -> None:
    count = {"fold": lambda number, message: number + 1, "initial": 0, "merge": lambda one, other: one + other}
    arguments = {**kind, "key": "user", "lateness": 3, **(count if fold else {})}
    together, single = Cook(settings(**arguments)), Cook(settings(**arguments))
    for batch in filter(None, batches):
        together.take(*batch)
        for message in batch:
            single.take(message)
    assert together.rows == single.rows
    assert [(bad.origin, bad.error) for bad in together.refused] == [(bad.origin, bad.error) for bad in single.refused]


@given(EVENTS, st.sampled_from([{"tumbling": 7}, {"sliding": (9, 4)}, {"session": 5}]), st.booleans(), WHAT)
def test_closed_windows_leave_nothing_in_the_state(
    events: list[tuple[str, int]], arguments: dict[str, Any], fold: bool, what: list[str]
) -> None:
    cook = played(arguments, events, what, fold)
    cook.take(("z", 1_000), ("y", 2_000))
    cook.write()
    left = {name for name, value in cook.store.values.items() if value is not None and name[:2] == b"\x00x"}
    assert all(name.endswith(b"y") or b"y" in name for name in left)
    cook.take(("z", 3_000))
    cook.write()
    closed = {key for key, *_ in cook.rows}
    own = {name for name, value in cook.store.values.items() if value is not None and name[:2] == b"\x00u"}
    assert own == {b"\x00u" + key.encode() for key in closed}


# -- single cases


def test_messages_larger_than_an_entry_of_the_state_are_split() -> None:
    store = MemoryStore()
    store.max_bytes = 400
    cook = Cook(settings(tumbling=60), store)
    cook.take(*[("a", {"at": 1, "text": "x" * 100}) for _ in range(10)], ("a", {"at": 2, "text": "x" * 400}))
    cook.write()
    assert max(len(value) for value in store.values.values() if value is not None) < 400
    assert len(cook.refused) == 1
    cook.restart()
    cook.take(("a", 100))
    assert [len(contents) for *_, contents in cook.rows] == [10]


@pytest.mark.parametrize("value", [None, float("nan"), 2**70, {"$x": 1}, "\ud800", [1, [2.5, {"a": None}]]])
def test_messages_come_back_as_they_were(value: Any) -> None:
    cook = Cook(settings(tumbling=60))
    cook.take(("a", {"at": 1, "value": value}))
    cook.write()
    cook.restart()
    cook.take(("a", 100))
    ((*_, (message,)),) = cook.rows
    assert repr(message) == repr({"at": 1, "value": value})


def test_a_message_that_fold_raises_on_is_refused_and_changes_nothing() -> None:
    def add(totals: dict[str, int], message: dict[str, Any]) -> dict[str, int]:
        totals["n"] += 1
        totals["sum"] += message["x"]
        return totals

    cook = Cook(settings(sliding=(60, 30), fold=add, initial={"n": 0, "sum": 0}))
    cook.take(("a", {"at": 31, "x": 1}), ("a", {"at": 31}), ("a", {"at": 31, "x": 2}), ("a", {"at": 200, "x": 3}))
    assert [contents for *_, contents in cook.rows] == [{"n": 2, "sum": 3}] * 2
    (bad,) = cook.refused
    assert (bad.trace, bad.origin and bad.origin.offset) == ("trace", 1)


@pytest.mark.parametrize(("made", "code"), [(object(), "window.value_invalid"), ("x" * 500, "window.value_too_large")])
def test_a_value_that_the_state_cannot_keep_is_an_error(made: Any, code: str) -> None:
    store = MemoryStore()
    store.max_bytes = 400
    cook = Cook(settings(tumbling=60, fold=lambda value, message: made), store)
    cook.take(("a", 1))
    with pytest.raises(StreamlineError) as caught:
        cook.write()
    assert caught.value.code == code


def test_open_windows_of_another_form_are_an_error() -> None:
    cook = Cook(settings(tumbling=60))
    cook.take(("a", 1))
    cook.write()
    cook.settings = settings(tumbling=60, fold=lambda count, message: count + 1, initial=0)
    cook.restart()
    with pytest.raises(StreamlineError) as caught:
        cook.take(("a", 2))
    assert caught.value.code == "window.form_changed"


def test_windows_of_another_size_close_as_they_were_opened() -> None:
    cook = Cook(settings(tumbling=60))
    cook.take(("a", 1))
    cook.write()
    cook.settings = settings(tumbling=10)
    cook.restart()
    cook.take(("a", 2), ("a", 100))
    assert ids(cook.rows) == [("a", 0, 10, [1]), ("a", 0, 60, [0])]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1970-01-01T00:00:05", 5),
        ("1970-01-01T01:00:05+01:00", 5),
        (5, 5),
        (dt.datetime(1970, 1, 1, 0, 0, 5, tzinfo=dt.UTC), 5),
        (True, None),
        ("yesterday", None),
        (float("nan"), None),
        (1_796_082_300_000, None),  # milliseconds
        (None, None),
    ],
)
def test_times(value: Any, seconds: int | None) -> None:
    cook = Cook(settings(tumbling=1))
    cook.take(("a", {"at": value}), ("a", 10))
    assert [start for _, start, _, _ in cook.rows] == ([] if seconds is None else [seconds])
    assert len(cook.refused) == (seconds is None)


@pytest.mark.parametrize(
    "arguments",
    [
        {"tumbling": 0},
        {"tumbling": 1, "session": 1},
        {"sliding": 5},
        {"sliding": (5, 6)},
        {"tumbling": 1, "initial": 0},
        {"tumbling": 1, "fold": "count"},
        {"session": 1, "fold": max},
        {"tumbling": 1, "fold": max, "initial": object()},
        {"tumbling": 1, "unknown": 1},
    ],
)
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**arguments)
    assert caught.value.code == "window.invalid"
