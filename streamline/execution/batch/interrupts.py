"""Signals that interrupt a batch run: in order at first, at once the second time."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from streamline.execution.lifecycle import Interrupted, wanted_signals
from streamline.processes.orphans import end_processes


class Interrupts(Protocol):
    """A run: it notes the signal that interrupts it."""

    signal: int | None


class Stop:
    """Hands a signal that another thread got to the run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[int] = []
        self._to: Callable[[int], object] | None = None

    def __call__(self, number: int) -> None:
        with self._lock:
            if self._to is None:
                self._waiting.append(number)
            else:
                self._to(number)

    def reaches(self, to: Callable[[int], object] | None) -> None:
        """Hand signals to `to`, those that came before as well; None: the run is over."""
        with self._lock:
            self._to = to
            if to is None:
                return
            for number in self._waiting:
                to(number)
            self._waiting.clear()


@contextmanager
def signals(interrupts: Interrupts, run_id: str, interrupt: Callable[[], None], stop: Stop | None) -> Iterator[None]:
    """The first signal asks everything to end in order, the second ends it at once.

    Only in the main thread, and where nobody else handles them: a program that uses the API keeps its own handlers.

    Args:
        interrupts: is told which signal it was.
        run_id: the run, whose processes the second signal ends.
        interrupt: asks everything to end in order.
        stop: brings signals that another thread got.

    Raises:
        Interrupted: the second signal came.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def on_signal(number: int) -> None:
        if interrupts.signal is None:
            interrupts.signal = number
            interrupt()
            return
        end_processes([run_id], seconds=1.0)
        if task is not None:
            task.cancel()

    wanted = [
        number
        for number in wanted_signals()
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler) or is_asyncio(number)
    ]
    added = []
    for number in wanted:
        with suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
            loop.add_signal_handler(number, on_signal, number)
            added.append(number)
    if stop is not None:
        stop.reaches(lambda number: loop.call_soon_threadsafe(on_signal, number))
    try:
        yield
    except asyncio.CancelledError:
        if interrupts.signal is None:
            raise
        raise Interrupted(
            interrupts.signal, "interrupted; --resume goes on from the blocks that had not finished"
        ) from None
    finally:
        if stop is not None:
            stop.reaches(None)
        for number in added:
            loop.remove_signal_handler(number)


def is_asyncio(number: signal.Signals) -> bool:
    # asyncio.run() puts a method of its own on SIGINT, wrapped in a partial, which cancels the main task.
    handler = getattr(signal.getsignal(number), "func", None)
    return number == signal.SIGINT and getattr(handler, "__module__", None) == "asyncio.runners"
