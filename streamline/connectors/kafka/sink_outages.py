"""Waits for a cluster that does not answer, for ever once a sink has started, and tells the log of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from streamline.connectors.kafka.client import KafkaError
from streamline.connectors.kafka.user_errors import silent_text
from streamline.errors import StreamlineError

T = TypeVar("T")

REQUEST_SECONDS: Final = 5.0
"""Timeout of one request; one that is not answered is made again."""
RETRY_SECONDS: Final = 0.5
FIRST_REQUEST_SECONDS: Final = 2.0
"""Timeout of the first request: a cluster that is away at the start is told soon."""
SILENCE_SECONDS: Final = 3.0
"""The log tells of a cluster that has not answered for so long."""


class StoppedError(Exception):
    """The thread shall end."""


class SinkOutages:
    """Used by the producer's thread alone.

    Args:
        where: the cluster.
        stopping: set if the thread shall end, whatever is going on. Methods then raise `StoppedError`.
        note: writes a text to the run's log, at a level.
    """

    def __init__(self, where: str, stopping: threading.Event, note: Callable[[str, str], None]) -> None:
        self._where = where
        self._stopping = stopping
        self._note = note
        self._startup_timeout = 0.0
        self._deadline: float | None = None
        self._silent_since: float | None = None
        self._told = False

    def starting(self, timeout: float) -> None:
        """From now on the cluster must answer within a timeout, until `started`."""
        self._startup_timeout = timeout
        self._deadline = time.monotonic() + timeout

    def started(self) -> None:
        """From now on wait for as long as it takes."""
        self._deadline = None

    def ask(self, request: Callable[[float], T]) -> T:
        """Make a request, which is called with its timeout in seconds, until the cluster answers it.

        Raises:
            KafkaError: it is refused.
            StreamlineError: the cluster does not answer while the sink is starting.
        """
        while True:
            self.check_stop()
            try:
                first = self._deadline is not None and not self._told
                answer = request(FIRST_REQUEST_SECONDS if first else REQUEST_SECONDS)
            except KafkaError as error:
                if not error.transient or error.fatal or error.fenced:
                    raise
                self.unanswered(error.message)
                self.pause(RETRY_SECONDS)
            else:
                self.answered()
                return answer

    def unanswered(self, reason: str) -> None:
        """Note that a request is not answered."""
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            raise StreamlineError(
                f"no answer within {self._startup_timeout:g} s: {reason}",
                where=self._where,
                hint="check bootstrap_server, and that the brokers run; startup_timeout is in metadata.yaml",
                code="kafka.unreachable",
            )
        if self._silent_since is None:
            self._silent_since = now
        silent = now - self._silent_since
        if self._told or (silent < SILENCE_SECONDS and self._deadline is None):
            return
        self._told = True
        if self._deadline is None:
            self._note(silent_text(self._where, silent, reason), "WARNING")
        else:
            left = f"trying again for {self._deadline - now:.0f} seconds"
            self._note(f"{self._where} does not answer: {reason}; {left}", "WARNING")

    def answered(self) -> None:
        """Note that the cluster answers."""
        if self._told and self._silent_since is not None:
            self._told = False
            silent = time.monotonic() - self._silent_since
            self._note(f"{self._where} answers again, after {silent:.0f} s", "WARNING")
        self._silent_since = None

    def pause(self, seconds: float) -> None:
        """Wait."""
        if self._stopping.wait(seconds):
            raise StoppedError

    def check_stop(self) -> None:
        """Raise `StoppedError` if the thread shall end."""
        if self._stopping.is_set():
            raise StoppedError
