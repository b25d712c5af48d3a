"""Calls into client libraries that may hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from streamline.connectors.kafka.client import Unavailable

Result = TypeVar("Result")


class Call(Generic[Result]):
    """A call that goes on in a thread that nobody has to wait for, not even the end of the process.

    Args:
        request: what is asked, as in `cannot <request>: no answer within 5 seconds`.
    """

    def __init__(self, request: str, call: Callable[[], Result]) -> None:
        self._request = request
        self._call = call
        self._results: list[Result] = []
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name=f"kafka {request}", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the call has returned or raised."""
        return bool(self._results or self._errors)

    def result(self, timeout: float) -> Result:
        """Return what the call returns, or raise what it raises; may be asked again.

        Args:
            timeout: seconds.

        Raises:
            Unavailable: it has not ended in time.
        """
        self._thread.join(max(0.0, timeout))
        if self._results:
            return self._results[0]
        if self._errors:
            raise self._errors[0]
        raise Unavailable(
            f"cannot {self._request}: no answer within {timeout:g} seconds",
            kafka_code="_TIMED_OUT",
            transient=True,
            code="kafka.unavailable",
        )

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:
            self._errors.append(error)


def within(timeout: float, request: str, call: Callable[[], Result]) -> Result:
    """Return what a call returns, or raise what it raises, or `Unavailable` past the deadline; see `Call`."""
    return Call(request, call).result(timeout)
