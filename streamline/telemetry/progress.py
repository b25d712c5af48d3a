"""Counts of a run, and their display: live in a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec


class StreamCount(msgspec.Struct):
    """Records of one stream of a source block: read, and refused on the way."""

    read: int = 0
    bad: int = 0


class Progress:
    """Counts by block and stream."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.streams: dict[tuple[str, str], StreamCount] = {}
        self.tables: dict[tuple[str, str], int] = {}
        """Records written, by destination block and the name that its target sees."""
        self.on_saved: Callable[[str], object] = lambda source: None
        self.saved: dict[str, float] = {}
        """When a position of a source was last saved (monotonic)."""

    def _count(self, source: str, stream: str) -> StreamCount:
        key = (source, stream)
        count = self.streams.get(key)
        if count is None:
            count = self.streams[key] = StreamCount()
        return count

    def read(self, source: str, stream: str, records: int) -> None:
        """Count records that came from a source block."""
        self._count(source, stream).read += records

    def written(self, sink: str, table: str, records: int) -> None:
        """Count records that were written to a target of a destination block."""
        self.tables[sink, table] = self.tables.get((sink, table), 0) + records

    def refused(self, source: str, stream: str, records: int) -> None:
        """Count records that went to the dead letters."""
        self._count(source, stream).bad += records

    def position_saved(self, source: str) -> None:
        """Count a saved position of a source block."""
        self.saved[source] = time.monotonic()
        self.on_saved(source)

    @property
    def total_read(self) -> int:
        """Records read so far."""
        return sum(count.read for count in self.streams.values())

    @property
    def total_bad(self) -> int:
        """Records refused so far."""
        return sum(count.bad for count in self.streams.values())

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def summary(self) -> dict[str, Any]:
        """Return JSON values for the run's record."""
        return {
            "records": self.total_read,
            "quarantined": self.total_bad,
            "streams": [
                {"block": block, "stream": stream, "read": count.read, "quarantined": count.bad}
                for (block, stream), count in self.streams.items()
            ],
            "tables": [
                {"block": block, "table": table, "written": written} for (block, table), written in self.tables.items()
            ],
        }
