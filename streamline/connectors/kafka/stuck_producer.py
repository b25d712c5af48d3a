"""Tells a producer that is stuck from a cluster that is away, which is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from streamline.connectors.kafka.client import KafkaError

LOOK_SECONDS: Final = 10.0
STUCK_SECONDS: Final = 300.0
"""How long a cluster may answer other requests, and acknowledge nothing of a flush."""


class StuckProducer:
    """Used by the producer's thread alone.

    Args:
        ask: makes another request to the cluster.
    """

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self.flushing()

    def flushing(self) -> None:
        """Note that a flush begins."""
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._answering_since: float | None = None

    def check(self) -> None:
        """Look from time to time whether the cluster answers while a flush does not end.

        Raises:
            KafkaError: it does, and has for so long that another producer is better than more patience.
        """
        if time.monotonic() < self._next_look:
            return
        try:
            self._ask()
        except KafkaError:
            self._answering_since = None
        else:
            if self._answering_since is None:
                self._answering_since = time.monotonic()
            elif time.monotonic() - self._answering_since >= STUCK_SECONDS:
                raise KafkaError(
                    f"no messages were acknowledged for {STUCK_SECONDS:g} seconds, while the cluster answers",
                    kafka_code="_TIMED_OUT",
                    transient=True,
                    fatal=True,
                    code="kafka.unavailable",
                )
        self._next_look = time.monotonic() + LOOK_SECONDS
