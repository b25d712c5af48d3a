"""Finds the records of a batch that a transformer's function raises on, by calling it with halves of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from streamline.blocks.python.function import UserError
from streamline.blocks.python.live.messages import CallRequest, Returned
from streamline.flow.bisection import bisect

MAX_RAISED = 1_000
"""Records of one request that the function may raise on; with more, the stream is stopped."""

MAX_RAISED_FIRST = 100
"""The same, where it has taken none of them yet."""


class Bisection:
    """Finds the records of a request that the function raises on.

    Args:
        run: calls the function with a request; its second argument is the number of the first record.
    """

    def __init__(self, run: Callable[[CallRequest, int], list[Returned]], request: CallRequest) -> None:
        self._run = run
        self._request = request
        self._next = 0
        self._raised = 0
        self._passed = False

    def results(self, lines: Sequence[bytes], error: UserError) -> list[Returned]:
        """Return the results of the records that it takes, and refuse the others.

        Args:
            lines: a part of the request that it raised `error` on.

        Raises:
            UserError: it raised on too many records, or on all of many.
        """
        results: list[Returned] = []

        def run(part: Sequence[bytes]) -> UserError | None:
            request = msgspec.structs.replace(self._request, slices=list(part), count=len(part))
            try:
                returned = self._run(request, self._next)
            except UserError as failure:
                return failure
            results.extend(returned)
            self._passed = True
            self._next += len(part) - sum(len(each.refused) for each in returned)
            return None

        def refuse(line: bytes, failure: UserError) -> None:
            self._raised += 1
            if self._raised > MAX_RAISED or (self._raised >= MAX_RAISED_FIRST and not self._passed):
                raise failure
            self._next += 1
            results.append(Returned(refused=[(line, f"{failure.summary} ({failure.where})")]))

        bisect(lines, error, run, refuse)
        return results
