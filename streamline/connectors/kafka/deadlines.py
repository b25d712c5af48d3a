"""Calls into client libraries that may hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from streamline.connectors.kafka.client import Unavailable

Result = TypeVar("Result")


def within(
    timeout: float, request: str, call: Callable[[], Result], *, on_late: Callable[[], None] | None = None
) -> Result:
    """Return what a call returns, or raise what it raises; past the deadline it goes on in a thread that nobody waits
    for, not even the end of the process.

    Args:
        timeout: seconds.
        request: what is asked, as in `cannot <request>: no answer within 5 seconds`.
        on_late: called in that thread when a call that was given up has ended.

    Raises:
        Unavailable: it did not end in time.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    lock = threading.Lock()
    ended = threading.Event()
    given_up = False

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)
        with lock:
            ended.set()
            late = given_up
        if late and on_late is not None:
            on_late()

    threading.Thread(target=run, name=f"kafka {request}", daemon=True).start()
    if not ended.wait(max(0.0, timeout)):
        with lock:
            given_up = not ended.is_set()
    if not ended.is_set():
        raise Unavailable(
            f"cannot {request}: no answer within {timeout:g} seconds",
            kafka_code="_TIMED_OUT",
            transient=True,
            code="kafka.unavailable",
        )
    if errors:
        raise errors[0]
    return results[0]
