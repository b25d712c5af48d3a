"""Which messages of a chunk are written, which are refused, and when the writer gives up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.connectors.python.isolation import MAX_IN_A_ROW, MAX_MISUNDERSTOOD, PAUSES, Isolation, Unwritable
from streamline.flow.stages.copies import Snapshot


class Table:
    """A sink: raises for messages that `judge` says so of, and while it is down."""

    def __init__(
        self, judge: Callable[[int], Exception | None] = lambda message: None, *, set_aside: bool = True
    ) -> None:
        self.judge = judge
        self.down = 0
        """Pauses until it is up again."""
        self.rows: list[int] = []
        self.refused: list[int] = []
        self.pauses: list[float] = []
        self.stops = False
        """A refused message ends the run."""
        self._isolation = Isolation(self._write, self._refuse, self._pause, set_aside=set_aside)

    def write(self, messages: list[int]) -> None:
        error = self._write(messages)
        if error is None:
            self._isolation.written()
        else:
            self._isolation.run(Snapshot(messages), len(messages), error)

    def _write(self, messages: list[Any]) -> Exception | None:
        if self.down:
            return ConnectionError("down")
        error = next((error for message in messages if (error := self.judge(message)) is not None), None)
        if error is None:
            self.rows += messages
        return error

    def _refuse(self, number: int, message: Any, error: Exception) -> None:
        self.refused.append(message)
        if self.stops:
            raise KeyError("the run ends")

    def _pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.down = max(0, self.down - 1)
        return True


def raises(kind: type[Exception], bad: set[int]) -> Callable[[int], Exception | None]:
    return lambda message: kind(str(message)) if message in bad else None


# The last of the chunk is written: several at its end that are not would look like an outage.
@given(st.sets(st.integers(0, 28), max_size=12), st.sampled_from([ValueError, RuntimeError]))
def test_what_can_be_written_is_written_in_order_and_the_rest_is_refused(bad: set[int], kind: type[Exception]) -> None:
    table = Table(raises(kind, bad))
    table.write(list(range(30)))
    table.write([30, 31])
    assert table.rows == [number for number in range(32) if number not in bad]
    assert table.refused == sorted(bad)


def test_messages_that_are_wrong_cost_no_time_while_others_are_written() -> None:
    table = Table(raises(RuntimeError, {3, 17}))
    table.write(list(range(20)))
    assert (table.refused, table.pauses) == ([3, 17], [])


@pytest.mark.parametrize("count", [1, 2, 3, 50])
@pytest.mark.parametrize("pauses", [1, 3, len(PAUSES)])
def test_an_outage_that_ends_in_time_costs_nothing_but_time(count: int, pauses: int) -> None:
    table = Table()
    table.down = pauses
    table.write(list(range(count)))
    assert (table.rows, table.refused) == (list(range(count)), [])


def test_an_outage_that_does_not_end_refuses_nothing() -> None:
    table = Table()
    table.down = 1_000
    with pytest.raises(Unwritable):
        table.write(list(range(50)))
    assert table.refused == []


def test_a_message_alone_that_cannot_be_written_is_refused_but_not_many_after_each_other() -> None:
    table = Table(lambda message: RuntimeError("no"))
    for number in (1, 2):
        table.write([number])
    with pytest.raises(Unwritable):
        table.write([3])
    assert table.refused == [1, 2]


def test_many_in_a_row_may_be_wrong_while_one_after_them_is_written() -> None:
    table = Table(raises(RuntimeError, set(range(MAX_IN_A_ROW - 1))))
    table.write(list(range(MAX_IN_A_ROW)))
    assert table.rows == [MAX_IN_A_ROW - 1]
    worse = Table(raises(RuntimeError, set(range(MAX_IN_A_ROW))))
    with pytest.raises(Unwritable):
        worse.write(list(range(MAX_IN_A_ROW + 1)))
    assert worse.refused == []


def test_a_class_that_understands_nothing_is_given_up_later() -> None:
    table = Table(lambda message: ValueError("no"))
    table.write(list(range(MAX_MISUNDERSTOOD - 1)))
    assert (len(table.refused), table.pauses) == (MAX_MISUNDERSTOOD - 1, [])
    with pytest.raises(Unwritable):
        table.write([0])


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_where_nothing_is_set_aside_the_first_is_refused_before_later_ones_are_written(kind: type[Exception]) -> None:
    table = Table(raises(kind, {5}), set_aside=False)
    table.stops = True
    with pytest.raises(KeyError):
        table.write(list(range(10)))
    assert (table.rows, table.refused) == ([0, 1, 2, 3, 4], [5])
