"""Counts of a run: records read, quarantined, sent and written, each record once over all attempts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MAX_PLACES = 10_000
"""Unsaved positions that a count keeps; more are thinned out, and counts of repeated attempts become too low."""


class Tally:
    """A number of records that falls back to the last saved position when an attempt is repeated."""

    __slots__ = ("_places", "records", "saved")

    def __init__(self) -> None:
        self.records = 0
        self.saved = 0
        """Records before the last saved position: no other attempt reads them again."""
        self._places: deque[tuple[int, int]] = deque()
        """Numbers of positions, and the records before each."""

    @property
    def pending(self) -> bool:
        """Whether it waits for a position to be saved."""
        return bool(self._places)

    def mark(self, position: int) -> None:
        """Note that a position comes after the records counted so far."""
        last, before = self._places[-1] if self._places else (0, self.saved)
        if before == self.records or position < last:
            return  # an earlier position says the same; or another way to a destination is behind
        self._places.append((position, self.records))
        if len(self._places) > MAX_PLACES:
            self._places = deque(list(self._places)[::2])

    def save(self, position: int) -> None:
        """Note that a position was saved."""
        while self._places and self._places[0][0] <= position:
            self.saved = self._places.popleft()[1]

    def rewind(self) -> None:
        """Return to the saved position."""
        self.records = self.saved
        self._places.clear()


class SourceCounts:
    """Counts of one source process, by stream, and by destination block and table."""

    def __init__(self, block: str) -> None:
        self.block = block
        self._read: dict[str, Tally] = {}
        self._refused: dict[tuple[str, str | None, str], Tally] = {}
        self._sent: dict[tuple[str, str], Tally] = {}
        self._written: dict[tuple[str, str], int] = {}
        self._returned: dict[tuple[str, str], Tally] = {}
        """What was sent to a destination, and refused by it."""
        self._unmarked: dict[str | None, set[Tally]] = {}

    def _add(self, tally: Tally, records: int, sink: str | None) -> None:
        tally.records += records
        self._unmarked.setdefault(sink, set()).add(tally)

    def read(self, stream: str, records: int) -> None:
        """Count records that came from the source."""
        self._add(self._read.setdefault(stream, Tally()), records, None)

    def refused(self, stream: str, records: int, sink: str | None = None, table: str = "") -> None:
        """Count records that went to the dead letters: on the way to one destination, or to all of them."""
        self._refused.setdefault((stream, sink, table), Tally()).records += records

    def returned(self, sink: str, table: str, records: int) -> None:
        """Count records that were sent to a sink that confirms nothing by itself, and that it refused."""
        self._returned.setdefault((sink, table), Tally()).records += records

    def sent(self, sink: str, table: str, records: int) -> None:
        """Count records that were sent to a target of a destination block."""
        self._add(self._sent.setdefault((sink, table), Tally()), records, sink)

    def written(self, sink: str, table: str, records: int) -> None:
        """Count records that a target has confirmed."""
        self._written[sink, table] = self._written.get((sink, table), 0) + records

    def position_read(self, number: int) -> None:
        """Note that the source gave a position."""
        self._mark(number, None)

    def position_sent(self, sink: str, number: int) -> None:
        """Note that a destination was sent a position, and all that comes before it."""
        self._mark(number, sink)
        for (_, refused_by, _), tally in self._refused.items():
            if refused_by in (None, sink):
                tally.mark(number)
        for (returned_by, _), tally in self._returned.items():
            if returned_by == sink:
                tally.mark(number)

    def _mark(self, number: int, sink: str | None) -> None:
        for tally in self._unmarked.pop(sink, ()):
            tally.mark(number)

    def saved(self, number: int, covers: Callable[[str], bool], stream_of: Callable[[str, str], str]) -> None:
        """Note that a position was saved.

        Args:
            covers: whether it moved the bookmark that a stream is read from again.
            stream_of: the stream that is written to a table of a destination block.
        """
        tallies = [
            *self._read.items(),
            *((stream, tally) for (stream, _, _), tally in self._refused.items()),
            *((stream_of(sink, table), tally) for (sink, table), tally in self._sent.items()),
            *((stream_of(sink, table), tally) for (sink, table), tally in self._returned.items()),
        ]
        for stream, tally in tallies:
            if tally.pending and covers(stream):
                tally.save(number)

    def saved_is_written(self) -> None:
        """Note that what is before the last saved position is written: its sinks confirm nothing by themselves."""
        for key, tally in self._sent.items():
            # Of what comes later some is refused already; what was written stays written.
            self._written[key] = max(self._written.get(key, 0), tally.saved - self._returned_by(key))

    @property
    def unsaved(self) -> int:
        """Records that were read since the last saved position."""
        return sum(tally.records - tally.saved for tally in self._read.values())

    def rewind(self) -> None:
        """Forget what the next attempt reads again."""
        tallies = (self._read, self._refused, self._sent, self._returned)
        for tally in (tally for each in tallies for tally in each.values()):
            tally.rewind()
        # What is saved is confirmed.
        self._written = {key: tally.records - self._returned_by(key) for key, tally in self._sent.items()}
        self._unmarked.clear()

    def streams(self) -> list[tuple[str, int, int]]:
        """Return stream, records read and records quarantined."""
        names = dict.fromkeys([*self._read, *(stream for stream, _, _ in self._refused)])
        return [
            (
                name,
                self._read[name].records if name in self._read else 0,
                sum(tally.records for (stream, _, _), tally in self._refused.items() if stream == name),
            )
            for name in names
        ]

    def tables(self) -> list[tuple[str, str, int, int, int]]:
        """Return destination block, table, records sent, written, and quarantined for this destination alone."""
        refused: dict[tuple[str, str], int] = {}
        for (_, sink, table), tally in self._refused.items():
            if sink is not None:
                refused[sink, table] = refused.get((sink, table), 0) + tally.records
        rows = []
        for key in dict.fromkeys([*self._sent, *refused]):
            sent = self._sent[key].records - self._returned_by(key) if key in self._sent else 0
            rows.append((*key, sent, self._written.get(key, 0), refused.get(key, 0)))
        return rows

    def _returned_by(self, key: tuple[str, str]) -> int:
        return self._returned[key].records if key in self._returned else 0


class Progress:
    """Counts of a run by source process.

    Args:
        mask: masks the names of tables, which may be rendered from secrets.
    """

    def __init__(self, mask: Callable[[str], str] = str) -> None:
        self._mask = mask
        self.started = time.monotonic()
        self._sources: dict[str, SourceCounts] = {}
        self._others: list[Mapping[str, Any]] = []
        self.on_saved: Callable[[str], object] = lambda source: None
        self.saved: dict[str, float] = {}
        """When a position of a source was last saved (monotonic)."""

    def of(self, process: str, block: str = "") -> SourceCounts:
        """Return the counts of a source process of a block; by default the process has the block's name."""
        counts = self._sources.get(process)
        if counts is None:
            counts = self._sources[process] = SourceCounts(block or process)
        return counts

    @property
    def unsaved(self) -> int:
        """Records that were read since the last saved positions."""
        return sum(counts.unsaved for counts in self._sources.values())

    def records_read(self, block: str, stream: str) -> int:
        """Return the records of a stream that a source block's processes have read."""
        return sum(
            read
            for counts in self._sources.values()
            if counts.block == block
            for name, read, _ in counts.streams()
            if name == stream
        )

    def add(self, summary: Mapping[str, Any]) -> None:
        """Add the summary of another process of the run."""
        self._others.append(summary)

    def position_saved(self, source: str) -> None:
        """Count a saved position of a source block."""
        self.saved[source] = time.monotonic()
        self.on_saved(source)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def summary(self) -> dict[str, Any]:
        """Return JSON values for the run's record."""
        own = self._own_summary()
        return merged([own, *self._others]) if self._others else own

    def _own_summary(self) -> dict[str, Any]:
        streams: dict[tuple[str, str], dict[str, Any]] = {}
        tables: dict[tuple[str, str], dict[str, Any]] = {}
        for counts in self._sources.values():
            for stream, read, quarantined in counts.streams():
                values = {"block": counts.block, "stream": stream, "read": 0, "quarantined": 0}
                total = streams.setdefault((counts.block, stream), values)
                total["read"] += read
                total["quarantined"] += quarantined
            for block, name, sent, written, quarantined in counts.tables():
                table = self._mask(name)
                values = {"block": block, "table": table, "sent": 0, "written": 0, "quarantined": 0}
                total = tables.setdefault((block, table), values)
                total["sent"] += sent
                total["written"] += written
                total["quarantined"] += quarantined
        return {
            "records": sum(stream["read"] for stream in streams.values()),
            "quarantined": sum(stream["quarantined"] for stream in streams.values()),
            "streams": list(streams.values()),
            "tables": list(tables.values()),
        }


def merged(summaries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of several summaries of counts (`Progress.summary`)."""
    total: dict[str, Any] = {"records": 0, "quarantined": 0}
    rows: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {"streams": {}, "tables": {}}
    for summary in summaries:
        for name in ("records", "quarantined"):
            total[name] += summary.get(name, 0)
        for kind, name in (("streams", "stream"), ("tables", "table")):
            for row in summary.get(kind, ()):
                into = rows[kind].setdefault((row["block"], row[name]), {**row, **dict.fromkeys(_counts(row), 0)})
                for count in _counts(row):
                    into[count] += row[count]
    return {**total, **{kind: list(by_key.values()) for kind, by_key in rows.items()}}


def _counts(row: Mapping[str, Any]) -> list[str]:
    return [name for name, value in row.items() if isinstance(value, int)]
