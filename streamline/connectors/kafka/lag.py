"""How far a source is behind, and which partitions do not move although there is something to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from streamline.connectors.kafka.assignment import Assignment, Owned
from streamline.connectors.kafka.client import Consumer, KafkaError, Partition
from streamline.connectors.kafka.membership import REQUEST_SECONDS
from streamline.connectors.kafka.settings import KafkaSourceSettings
from streamline.connectors.kafka.source_outages import SourceOutages
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


class LagMeter:
    """Looks up the ends of the partitions that a member owns. Used by the consumer's thread alone."""

    def __init__(
        self,
        consumer: Consumer,
        assignment: Assignment,
        outages: SourceOutages,
        settings: KafkaSourceSettings,
        clock: Callable[[], float],
    ) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._outages = outages
        self._stall_seconds = settings.stall_seconds
        self._watch = LagWatch(settings.stall_seconds, clock)

    def look_up_ends(self) -> bool:
        """Look up where the partitions end now; False: the cluster does not answer."""
        owned = self._assignment.placed
        try:
            ranges = self._consumer.range([each.partition for each in owned], REQUEST_SECONDS) if owned else {}
        except KafkaError as error:
            self._outages.wait_out("range", error)
            return False
        if owned:
            # Idle topics are read without an answer that could be seen.
            self._outages.answered("range", "poll")
        for each in owned:
            if each.partition in ranges:
                each.end = ranges[each.partition][1]
        return True

    def measure(self, *, reading: bool) -> tuple[list[Lag], list[tuple[Partition, str]]]:
        """Return the lag of each partition, and the partitions that have stalled, with what to tell of them.

        Args:
            reading: see `LagWatch.stalled`.
        """
        owned = self._assignment.placed
        stalled = [
            (
                each.partition,
                f"{each.key} is assigned, {(each.end or 0) - (each.next or 0)} messages wait in it, and its position "
                f"{each.next} has not moved for {self._stall_seconds:.0f} seconds",
            )
            for each in self._watch.stalled(owned, reading=reading)
        ]
        return lags(owned), stalled


def behind(owned: Owned) -> int | None:
    """Return how many offsets a partition is behind."""
    if owned.next is None or owned.end is None:
        return None
    return max(0, owned.end - owned.next)


def lags(owned: Sequence[Owned]) -> list[Lag]:
    """Return the lag of each partition."""
    return [Lag(each.key, behind(each), each.next) for each in owned]
