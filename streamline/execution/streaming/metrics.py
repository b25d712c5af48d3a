"""Collects what a streaming run publishes, as metrics in Prometheus' text format and as a health report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from streamline.execution.events import (
    AttemptFailed,
    Event,
    PositionSaved,
    RunInterrupted,
    RunPlanned,
    StreamProgress,
    one_line,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of `Metrics.text`."""

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Subscribes to the events of a run. All methods may be called from any thread.

    Counters only grow: what another attempt reads again counts again.

    Args:
        stalled_after: seconds without a proof, while messages are in flight, after which the run is not healthy.
        clock: seconds, monotonic.
    """

    def __init__(
        self, pipeline: str, run_id: str, stalled_after: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pipeline = pipeline
        self._run_id = run_id
        self._stalled_after = stalled_after
        self._clock = clock
        self._lock = threading.Lock()
        self._started = time.time()
        self._counted = {"read": _Growing(), "dead": _Growing(), "written": _Growing()}
        self._proofs: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self._progress: StreamProgress | None = None
        self._heard = clock()
        self._proven: float | None = None
        self._in_flight_since: float | None = None
        self._backoff: AttemptFailed | None = None
        self._backoff_ends = 0.0
        self._stopping = False

    def __call__(self, event: Event) -> None:
        """Take an event."""
        with self._lock:
            if isinstance(event, StreamProgress):
                self._take_progress(event)
            elif isinstance(event, PositionSaved):
                self._proofs[event.block] = self._proofs.get(event.block, 0) + 1
                self._proven = self._clock()
            elif isinstance(event, AttemptFailed):
                self._failed[event.block] = self._failed.get(event.block, 0) + 1
                self._backoff = event
                self._backoff_ends = self._clock() + (event.delay or 0.0)
            elif isinstance(event, RunInterrupted):
                self._stopping = True
            elif isinstance(event, RunPlanned):
                # They are there from the beginning, so that a first failure is an increase.
                for source in event.sources:
                    self._proofs.setdefault(source.block, 0)
                    self._failed.setdefault(source.block, 0)

    def _take_progress(self, progress: StreamProgress) -> None:
        now = self._clock()
        self._progress, self._heard = progress, now
        if now >= self._backoff_ends:  # before that, it is told of other processes of the run
            self._backoff = None
        if progress.saved_ago is not None:
            self._proven = max(self._proven or 0.0, now - progress.saved_ago)
        if progress.in_flight == 0:
            self._in_flight_since = None
        elif self._in_flight_since is None:
            self._in_flight_since = now
        streams = [((row["block"], row["stream"]), row) for row in progress.streams]
        self._counted["read"].take((key, row["read"]) for key, row in streams)
        self._counted["dead"].take((key, row["quarantined"]) for key, row in streams)
        self._counted["written"].take(((row["block"], row["table"]), row["written"]) for row in progress.tables)

    def text(self) -> str:
        """Return all metrics in Prometheus' text format, version 0.0.4."""
        with self._lock:
            progress = self._progress
            page = _Page(self._pipeline)
            page.add("run_info", "gauge", "The run that these metrics are of.", {(("run_id", self._run_id),): 1})
            page.add("start_time_seconds", "gauge", "When the run started, in seconds since 1970.", {(): self._started})
            page.add("healthy", "gauge", "1 while /health answers with 200.", {(): int(self._reason() is None)})
            for name, counted, second, what in (
                ("messages_read_total", "read", "stream", "Messages that were read."),
                ("messages_written_total", "written", "table", "Messages whose delivery is proven."),
                ("dead_letters_total", "dead", "stream", "Messages that became dead letters."),
            ):
                totals = self._counted[counted].totals
                page.add(
                    name,
                    "counter",
                    what,
                    {(("block", block), (second, other)): number for (block, other), number in totals.items()},
                )
            page.add("proofs_total", "counter", "Positions that were proven and saved.", _by_block(self._proofs))
            page.add("failed_attempts_total", "counter", "Attempts that failed.", _by_block(self._failed))
            if progress is not None:
                page.add(
                    "in_flight_messages",
                    "gauge",
                    "Messages that were read and are not proven yet.",
                    {(): progress.in_flight},
                )
                for name, key, what in (
                    ("lag_messages", "behind", "Messages of a partition that are not read yet."),
                    ("position_offset", "position", "Offset of the next message of a partition."),
                ):
                    page.add(
                        name,
                        "gauge",
                        what,
                        {
                            (("block", lag["block"]), ("partition", lag["name"])): lag[key]
                            for lag in progress.lag
                            if lag.get(key) is not None
                        },
                    )
            if self._proven is not None:
                page.add(
                    "last_proof_timestamp_seconds",
                    "gauge",
                    "When a position was last proven and saved, in seconds since 1970.",
                    {(): time.time() - (self._clock() - self._proven)},
                )
            return page.text()

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the run is healthy, and a report as JSON values; `reason` says why it is not."""
        with self._lock:
            reason = self._reason()
            progress = self._progress
            status = "running" if progress is not None else "starting"
            if reason is not None:
                status = "backoff" if self._backoff is not None else "stalled"
            elif self._stopping:
                status = "stopping"
            report = {
                "status": status,
                "pipeline": self._pipeline,
                "run_id": self._run_id,
                "in_flight": progress.in_flight if progress is not None else 0,
                "dead_letters": sum(self._counted["dead"].totals.values()),
                "failed_attempts": sum(self._failed.values()),
                "last_proof_seconds_ago": round(self._clock() - self._proven, 3) if self._proven is not None else None,
            }
            return reason is None, report if reason is None else {**report, "reason": reason}

    def _reason(self) -> str | None:
        now = self._clock()
        if self._backoff is not None:
            delay = self._backoff.delay
            then = "no other follows" if delay is None else f"the next one starts {delay:g} s after it"
            return f"an attempt failed, {then}: {self._backoff.block}: {one_line(self._backoff.failure)}"
        if self._progress is None:
            return None
        if now - self._heard > self._stalled_after:
            return f"the run has reported nothing for {now - self._heard:.0f} s"
        if self._in_flight_since is not None:
            waiting = now - max(self._in_flight_since, self._proven or 0.0)
            if waiting > self._stalled_after:
                return f"{self._progress.in_flight:,} messages are in flight, and none was proven for {waiting:.0f} s"
        return None


class _Growing:
    """Totals of counts that may fall back when an attempt is repeated, or a process is started again."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], int] = {}
        self.totals: dict[tuple[str, str], int] = {}

    def take(self, counts: Iterable[tuple[tuple[str, str], int]]) -> None:
        """Add what the counts have grown by."""
        last, self._last = self._last, dict(counts)
        for key, number in self._last.items():
            self.totals[key] = self.totals.get(key, 0) + max(0, number - last.get(key, 0))


def _by_block(counts: Mapping[str, int]) -> dict[Labels, float]:
    return {(("block", block),): number for block, number in counts.items()}


class _Page:
    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._lines: list[str] = []

    def add(self, name: str, kind: str, what: str, samples: Mapping[Labels, float]) -> None:
        """Add a metric, with its samples by their labels."""
        if not samples:
            return
        self._lines += [f"# HELP streamline_{name} {what}", f"# TYPE streamline_{name} {kind}"]
        for labels, value in samples.items():
            shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in (("pipeline", self._pipeline), *labels))
            self._lines.append(f"streamline_{name}{{{shown}}} {value:.15g}")

    def text(self) -> str:
        return "\n".join([*self._lines, ""])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
