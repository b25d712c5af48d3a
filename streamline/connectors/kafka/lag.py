"""How far a source is behind, and which partitions do not move although there is something to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from streamline.connectors.kafka.assignment import Owned
from streamline.connectors.kafka.client import Partition
from streamline.connectors.stream_connector import Lag


class _Seen(msgspec.Struct):
    next: int
    since: float
    reported: bool = False


class LagWatch:
    """Compares positions with the ends of partitions, each time these are looked up.

    Args:
        stall_seconds: a partition that is read, is behind, and does not move for so long has stalled.
    """

    def __init__(self, stall_seconds: float, clock: Callable[[], float]) -> None:
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._seen: dict[Partition, _Seen] = {}

    def stalled(self, owned: Sequence[Owned], *, reading: bool) -> list[Owned]:
        """Return the partitions that have stalled, each once until it moves again.

        Args:
            reading: nothing holds back all partitions now.
        """
        now = self._clock()
        before, self._seen = self._seen, {}
        stalled = []
        for each in owned:
            assert each.next is not None
            seen = before.get(each.partition)
            if seen is None or seen.next != each.next or not reading or not behind(each):
                seen = _Seen(each.next, now)
            elif now - seen.since >= self._stall_seconds and not seen.reported:
                seen.reported = True
                stalled.append(each)
            self._seen[each.partition] = seen
        return stalled


def behind(owned: Owned) -> int | None:
    """Return how many offsets a partition is behind."""
    if owned.next is None or owned.end is None:
        return None
    return max(0, owned.end - owned.next)


def lags(owned: Sequence[Owned]) -> list[Lag]:
    """Return the lag of each partition."""
    return [Lag(each.key, behind(each), each.next) for each in owned]
