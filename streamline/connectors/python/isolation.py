"""Finds the messages that a user's sink does not write, and tells them from an outage.

An exception may come from one message, or from a system that does not answer. What single messages show decides: where
others are written after them, those that were not are refused. Where nothing is written any more, it pauses and tries
again; in the end it gives up, so that the flow starts again from the last proof. Messages at the end of a topic have
none behind them: `works` tells what else is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streamline.flow.bisection import bisect
from streamline.flow.stages.copies import Snapshot

PAUSES = (0.1, 0.3, 1.0, 3.0)
"""Seconds before the next try, while nothing can be written."""

IN_A_ROW = 3
"""So many messages in a row that are not written look like an outage."""

MAX_IN_A_ROW = 100
"""Messages in a row that are not written, before it gives up."""

MAX_MISUNDERSTOOD = 1_000
"""The same, where they raise what no outage raises."""

MISUNDERSTOOD = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError)
"""What code raises that does not understand a message."""

ATTEMPTS = 4
"""Attempts that failed at the same message, with nothing written before it, until it is taken for a bad one."""

_OF_DATA, _OF_CONNECTIONS = (
    frozenset({"DataError", "IntegrityError"}),
    frozenset({"OperationalError", "InterfaceError"}),
)
"""Names of exceptions that every driver of a database has (PEP 249)."""


class Unwritable(Exception):
    """Nothing can be written any more, for this reason; `many`: none of `MAX_IN_A_ROW` messages or more."""

    def __init__(self, error: Exception, *, many: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.many = many


def misunderstood(error: Exception) -> bool:
    """Return whether an exception is one that no outage raises."""
    return isinstance(error, MISUNDERSTOOD) or not _OF_DATA.isdisjoint(each.__name__ for each in type(error).__mro__)


def of_connections(error: Exception) -> bool:
    """Return whether an exception is one that tells of an outage."""
    names = {each.__name__ for each in type(error).__mro__}
    return isinstance(error, OSError) or not _OF_CONNECTIONS.isdisjoint(names)


class Isolation:
    """Writes the messages of chunks that failed, in order, in parts down to single messages.

    A part may have been written, all or some of it, before its exception came: then it is written twice.

    Args:
        write: writes messages; returns what it raised.
        refuse: called with the number of a message in its chunk, the message, and what it raised.
        pause: waits so many seconds; False: there is no time.
        works: says of the first message of a row that cannot be written (its number in the chunk, and what it raised)
            whether something else shows that it is no outage: a test, or that so many attempts before this one have
            failed at the very same message; None: these show nothing.
        set_aside: messages after one that cannot be written are written. If not, it is refused before.
    """

    def __init__(
        self,
        write: Callable[[list[Any]], Exception | None],
        refuse: Callable[[int, Any, Exception], None],
        pause: Callable[[float], bool],
        works: Callable[[int, Exception, int | None], bool] = lambda number, error, attempts: False,
        *,
        set_aside: bool = True,
    ) -> None:
        self._works = works
        self._wrote = False
        """Anything was written."""
        self._write = write
        self._refuse = refuse
        self._pause = pause
        self._set_aside = set_aside
        self._in_a_row = 0
        """Messages in a row that were not written."""
        self._suspects: list[tuple[int, Exception]] = []
        """The last of them, in this chunk: not refused yet."""
        self._worked = False
        self._before = Snapshot([])

    def written(self) -> None:
        """Note that a whole chunk was written."""
        self._in_a_row, self._wrote = 0, True

    def run(self, before: Snapshot, count: int, error: Exception | None) -> None:
        """Write what can be written of a chunk, and refuse the rest.

        Args:
            before: its messages.
            error: all of them failed together, with this; None: they are written one by one.

        Raises:
            Unwritable: nothing can be written.
        """
        self._before, self._suspects, self._worked = before, [], False
        if error is not None:
            bisect(range(count), error, self._try, self._suspect)
        else:
            for number in range(count):
                failure = self._try([number])
                if failure is not None:
                    self._suspect(number, failure)
        if any(not misunderstood(failure) for _, failure in self._suspects):
            # No message after them shows whether it was an outage.
            self._retry(PAUSES[:2] if self._worked else PAUSES)
            if self._suspects and self._in_a_row >= IN_A_ROW and not self._no_outage(few=True):
                raise Unwritable(self._suspects[-1][1])
        self._refuse_suspects()

    def _try(self, part: Sequence[int]) -> Exception | None:
        failure = self._write(self._before.part(part[0], part[-1] + 1))
        if failure is None:
            self._worked = self._wrote = True
            self._in_a_row = 0
            self._refuse_suspects()
        return failure

    def _refuse_suspects(self) -> None:
        suspects, self._suspects = self._suspects, []
        for number, failure in suspects:
            self._refuse(number, self._before.part(number, number + 1)[0], failure)

    def _suspect(self, number: int, failure: Exception) -> None:
        self._suspects.append((number, failure))
        self._in_a_row += 1
        passes = not misunderstood(failure)
        if self._in_a_row >= MAX_MISUNDERSTOOD:
            raise Unwritable(failure, many=True)
        if passes and self._in_a_row >= MAX_IN_A_ROW:
            if not self._no_outage(few=False):
                raise Unwritable(failure, many=True)
            self._refuse_suspects()
        if passes and len(self._suspects) == (IN_A_ROW if self._set_aside else 1):
            self._retry(PAUSES)
        if not self._set_aside and self._suspects:
            if isinstance(failure, OSError):
                raise Unwritable(failure)
            self._refuse_suspects()

    def _no_outage(self, *, few: bool) -> bool:
        """Return whether something shows that no outage is the reason of the suspects' failures."""
        attempts = 1 if self._wrote else ATTEMPTS if few else None
        return self._works(*self._suspects[0], attempts)

    def _retry(self, pauses: Sequence[float]) -> None:
        """Try the suspects again after pauses, in order, until the first of them is written."""
        for seconds in pauses:
            if not self._pause(seconds):
                raise Unwritable(self._suspects[-1][1])
            number = self._suspects[0][0]
            if self._write(self._before.part(number, number + 1)) is None:
                break
        else:
            return
        # It was an outage.
        rest = [number for number, _ in self._suspects[1:]]
        self._suspects, self._in_a_row, self._worked, self._wrote = [], 0, True, True
        for number in rest:
            failure = self._try([number])
            if failure is not None:
                self._suspect(number, failure)
