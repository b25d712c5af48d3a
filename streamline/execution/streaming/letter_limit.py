"""Ends a run whose messages all become dead letters: a block or a sink is broken then, not the messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from streamline.errors import PipelineFailed
from streamline.flow.items import BadRecord
from streamline.flow.stages.park import PARKED_ERROR
from streamline.telemetry.progress import SourceCounts

LOUD = 100
"""So many dead letters without a delivery are told."""


class _Row(msgspec.Struct):
    """Messages that were refused since the last delivery.

    Args:
        saved: how many there were when a position was saved, and nothing had been delivered.
    """

    count: int = 0
    saved: int = 0
    told: bool = False


class LetterLimit:
    """Counts the dead letters of a source since the last delivery: of each sink those that it has refused, and of all
    sinks those that were refused on the way to them.

    Deliveries are known when a position is saved, so that is when it is decided.

    Args:
        counts: of the source.
        limit: dead letters without a delivery that end the run; None: any number.
        warn: tells the operator, with the block that refuses.
    """

    def __init__(self, counts: SourceCounts, limit: int | None, warn: Callable[[str, str], None]) -> None:
        self._counts = counts
        self._limit = limit
        self._warn = warn
        self._rows: dict[str | None, _Row] = {}
        self._last: dict[str | None, BadRecord] = {}
        self._delivered = self._deliveries()

    def refused(self, records: Sequence[BadRecord]) -> None:
        """Count refused messages. What waits for a message before it (`park: key`) does not count.

        Raises:
            PipelineFailed: they are too many.
        """
        for record in records:
            if record.error == PARKED_ERROR:
                continue
            row = self._rows.setdefault(record.sink, _Row())
            row.count += 1
            self._last[record.sink] = record
            if self._limit is not None and row.saved >= self._limit:
                raise PipelineFailed(
                    f"{row.saved:,} messages have become dead letters, and none was delivered meanwhile; the last one: "
                    f"{record.error}",
                    blocks=[record.sink or record.stage],
                    hint="mend the block, then send them again with `streamline dead-letters retry`; "
                    "`max_dead_letters` sets the limit",
                    code="dead_letter.too_many",
                )

    def saved(self) -> None:
        """Look what was delivered, since a position was saved."""
        if not self._rows:
            return
        delivered = self._deliveries()
        risen = {sink for sink, number in delivered.items() if number > self._delivered.get(sink, 0)}
        for sink in risen:
            self._delivered[sink] = delivered[sink]
        for refusing, row in list(self._rows.items()):
            if refusing in risen or (refusing is None and risen):
                del self._rows[refusing]
                continue
            row.saved = row.count
            if row.count >= LOUD and not row.told:
                row.told = True
                self._tell(refusing, row.count)

    def _tell(self, sink: str | None, count: int) -> None:
        record = self._last[sink]
        limit = f"; the run ends at {self._limit:,} (max_dead_letters)" if self._limit is not None else ""
        self._warn(
            sink or record.stage,
            f"{count:,} messages have become dead letters, and none was delivered meanwhile; the last one: "
            f"{record.error}{limit}",
        )

    def _deliveries(self) -> dict[str, int]:
        """Return how many messages each sink has written."""
        delivered: dict[str, int] = {}
        for sink, _, _, written, _ in self._counts.tables():
            delivered[sink] = delivered.get(sink, 0) + written
        return delivered
