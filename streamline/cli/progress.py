"""Show a run in the terminal from its events: permanent lines, and what is running now."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from streamline.cli.output import aligned, columns_of, count, cut, has_colour, is_terminal, say
from streamline.cli.screen import LiveCounts, Screen
from streamline.execution.events import (
    AttemptFailed,
    BlockFinished,
    BlockOutcome,
    BlockOutput,
    BlockStarted,
    CallFinished,
    Event,
    ProgressMade,
    RunInterrupted,
    RunPlanned,
    SensorWaiting,
    StreamProgress,
    StreamStopped,
    WarningRaised,
)

if TYPE_CHECKING:
    from streamline.cli.app import App
    from streamline.processes.job import Failure

_COLOURS = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "upstream_failed": "yellow",
    "skipped": "cyan",
}
LINE_SECONDS = 10.0
"""Seconds between two lines of counts if stdout is no terminal."""

LIVE_SECONDS = 0.5
"""Seconds between two updates of the line of running blocks, and after which a block is in it."""

_MANY_OUTPUTS = 8
_MOST_SHOWN = 1_000
_MANY_LINES = 40
"""Lines of a traceback that are shown, without the middle of an endless recursion."""


class Display:
    """Subscribes to a run and shows it.

    Args:
        app: knows what to mask.
        quiet: stdout is for JSON; what blocks print goes to stderr.
    """

    def __init__(self, app: App, *, quiet: bool = False) -> None:
        self._app = app
        self._quiet = quiet
        self._width = 10
        self._flow = False
        self._screen = Screen(live=not quiet and is_terminal() and os.environ.get("TERM") != "dumb")
        self._now = Now(self._screen)
        self._counts = Counts(self._screen)
        self._live = LiveCounts(self._screen)
        self._asked: set[str] = set()
        self._endless = False
        self._shown: set[str] = set()
        self.planned: dict[str, int] = {}
        """The number of streams that each source reads, where it is known."""
        self._show: dict[type, Callable[[Any], None]] = {
            RunPlanned: self._planned,
            BlockStarted: lambda event: self._now.begin(event.block, event.calls),
            CallFinished: lambda event: self._now.count(event.block),
            BlockOutput: lambda event: self._say(f"{event.block:<{self._width}} | {event.text}", err=quiet),
            ProgressMade: self._progress,
            StreamProgress: self._stream_progress,
            WarningRaised: self._warned,
            AttemptFailed: self._attempt_failed,
            StreamStopped: self._stopped,
            SensorWaiting: self._waiting,
            RunInterrupted: self._interrupted,
            BlockFinished: lambda event: self._finished(event.outcome),
        }

    def __call__(self, event: Event) -> None:
        show = self._show.get(type(event))
        if show is not None:
            show(event)

    def close(self) -> None:
        """Remove the live parts of the display."""
        self._now.close()
        with self._screen.aside():
            pass

    def has_shown(self, warning: str) -> bool:
        """Return whether a warning of the result was shown during the run."""
        return warning in self._shown

    def _planned(self, event: RunPlanned) -> None:
        self._width = max((len(uuid) for uuid in event.blocks), default=10)
        self._flow = bool(event.sources)
        self._endless = event.endless
        self.planned = {source.block: source.streams for source in event.sources if source.streams is not None}
        if self._quiet:
            return
        self._say(f"{event.pipeline}: run {event.run_id}{' resumed' if event.resumed else ''}")
        if event.metrics is not None:
            self._say(f"metrics: {event.metrics}")
        for source in event.sources:
            destinations = ", ".join(f"{name} ({plugin})" for name, plugin in source.destinations.items())
            streams = "all that it sends" if source.streams is None else count(source.streams, "stream")
            self._say(f"{source.block} ({source.plugin}): {streams} -> {destinations}")
            for note in source.notes:
                self._say(f"  note: {note}")

    def _progress(self, event: ProgressMade) -> None:
        if not self._quiet:
            self._counts.show(event)

    def _stream_progress(self, event: StreamProgress) -> None:
        if not self._quiet:
            self._live.show(event)

    def _warned(self, event: WarningRaised) -> None:
        """Show a warning of a run that may have no end at once; others come when the run has ended."""
        if self._endless and f"{event.block}: {event.message}" not in self._shown:
            if len(self._shown) > _MOST_SHOWN:
                self._shown.clear()
            self._shown.add(f"{event.block}: {event.message}")
            self._say(self._app.mask(f"{event.block:<{self._width}}   warning: {event.message}"), err=True)

    def _attempt_failed(self, event: AttemptFailed) -> None:
        name = event.block if event.child is None else f"{event.block}[{event.child}]"
        if event.delay is not None:
            self._counts.failed.clear()
        again = "" if event.delay is None else f"; retry {_in(event.delay)}"
        message = event.failure.message.partition("\n")[0]
        more = f" and {len(event.streams) - 1} more" if len(event.streams) > 1 else ""
        streams = f"{event.streams[0]}{more} failed: " if event.streams else ""
        self._say(self._app.mask(f"{name:<{self._width}}   {streams}{message}{again}"), err=True)

    def _stopped(self, event: StreamStopped) -> None:
        self._counts.failed.add((event.block, event.stream))
        message = event.failure.message.partition("\n")[0]
        self._say(self._app.mask(f"{event.block:<{self._width}}   {event.stream} failed: {message}"), err=True)

    def _waiting(self, event: SensorWaiting) -> None:
        if not self._quiet and event.block not in self._asked:  # once is enough
            self._asked.add(event.block)
            self._say(f"{event.block:<{self._width}}   condition not met; checking every {event.seconds:g} s")

    def _interrupted(self, event: RunInterrupted) -> None:
        if not self._flow:
            self._say("Stopping: blocks have 5 s to clean up; a second interrupt kills them at once.", err=True)

    def _finished(self, outcome: BlockOutcome) -> None:
        self._now.end(outcome.uuid)
        if self._quiet or self._flow:  # a flow shows its counts at the end
            return
        label = f"{outcome.status:<16}"
        if has_colour(sys.stdout):
            label = click.style(label, fg=_COLOURS.get(outcome.status))
        took = " " * 10 if outcome.seconds is None else f"{outcome.seconds:>8.2f} s"
        summary = "completed before the run was resumed" if outcome.reused else self._app.mask(_summary(outcome))
        self._say(f"{outcome.uuid:<{self._width}}   {label}{took}  {summary}".rstrip())
        for node in outcome.results:
            if isinstance(node, dict) and "resource_type" in node:
                seconds = f"{node.get('seconds') or 0:>8.2f} s"
                self._say(
                    f"{'':<{self._width}}   {node['status']!s:<16}{seconds}  {node['resource_type']} {node['name']}"
                )

    def _say(self, text: str, *, err: bool = False) -> None:
        with self._screen.aside():
            say(text, err=err)


class Counts:
    """Records read and sent: drawn in a terminal, else a line now and then."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._before = 0
        self._then = time.monotonic()
        self._rate = 0.0
        self.failed: set[tuple[str, str]] = set()
        """Blocks and streams that failed in this attempt."""

    def show(self, event: ProgressMade) -> None:
        """Show new counts."""
        elapsed = time.monotonic() - self._then
        if elapsed >= (1.0 if self._screen.live else LINE_SECONDS):
            self._rate = (event.records - self._before) / elapsed
            self._before, self._then = event.records, time.monotonic()
            if not self._screen.live:
                say(self._total(event))
        if self._screen.live:
            self._screen.draw(self._table(event))

    def _total(self, event: ProgressMade) -> str:
        ago = event.saved_ago
        proof = f"position saved {ago:.0f} s ago" if ago is not None else "no position saved yet"
        failed = f", {len(self.failed):,} failed" if self.failed else ""
        sent = sum(table["sent"] for table in event.tables)
        read = f"{count(event.records, 'record')} read, {sent:,} sent, {self._rate:,.0f}/s"
        return f"{read}, {event.seconds:.0f} s{failed}, {proof}"

    def _table(self, event: ProgressMade) -> list[str]:
        """Return the streams that failed, the busiest and the total, as many lines as the terminal has."""
        size = shutil.get_terminal_size()
        streams = {
            (counts["block"], counts["stream"]): (counts["read"], counts["quarantined"]) for counts in event.streams
        }
        streams = {**dict.fromkeys(self.failed, (0, 0)), **streams}
        order = sorted(streams, key=lambda key: (key not in self.failed, -streams[key][1], -streams[key][0]))
        room = max(1, size.lines - 4)
        rows = [["BLOCK", "STREAM", "READ", "QUARANTINED", ""]]
        for key in order[:room]:
            read, bad = streams[key]
            counts = [f"{number:,}" for number in (read, bad)]
            rows.append([*key, *counts, "failed" if key in self.failed else ""])
        if not any(bad for _, bad in streams.values()):
            rows = [[*row[:3], row[4]] for row in rows]
        # Long names are cut, not the counts behind them.
        counted = sum(2 + max(map(len, column)) for column in list(zip(*rows, strict=True))[2:])
        names = max(8, size.columns - 3 - counted)
        blocks = min(names // 2, max(columns_of(row[0]) for row in rows))
        rows = [[cut(block, blocks), cut(stream, names - blocks), *rest] for block, stream, *rest in rows]
        below = order[room:]
        more = count(sum(streams[key][0] for key in below), "record")
        rest = [f"and {count(len(below), 'more stream')}: {more} read"] if below else []
        return [*(aligned(rows) if order else []), *rest, self._total(event)]


class Now:
    """The running blocks on one line: seconds, and finished calls of a fan-out."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._blocks: dict[str, _Working] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, uuid: str, calls: int | None) -> None:
        """Add a block; `calls` is their number if it is a dynamic block's child."""
        with self._screen.lock:
            self._blocks[uuid] = _Working(time.monotonic(), calls)
            if self._screen.live and self._thread is None:
                self._thread = threading.Thread(target=self._tick, name="running blocks", daemon=True)
                self._thread.start()

    def count(self, uuid: str) -> None:
        """Count a finished call."""
        with self._screen.lock:
            if uuid in self._blocks:
                self._blocks[uuid].done += 1

    def end(self, uuid: str) -> None:
        """Remove a block."""
        with self._screen.lock:
            self._blocks.pop(uuid, None)

    def close(self) -> None:
        """Draw nothing from now on."""
        with self._screen.lock:
            self._over.set()

    def _tick(self) -> None:
        while not self._over.wait(LIVE_SECONDS):
            with self._screen.lock:
                if not self._over.is_set():
                    self._screen.draw(self._line())

    def _line(self) -> list[str]:
        now = time.monotonic()
        parts = []
        for uuid, work in self._blocks.items():
            if now - work.since >= LIVE_SECONDS:  # a block that ends at once needs no line
                done = "" if work.calls is None else f" {work.done:,}/{work.calls:,}"
                parts.append(f"{uuid}{done} {now - work.since:.0f} s")
        return [" · ".join(parts)] if parts else []


@dataclass
class _Working:
    since: float
    calls: int | None
    done: int = 0


def error_text(app: App, uuid: str, failure: Failure) -> str:
    """Format a block's failure, with the user's traceback if there is one."""
    root = f"{app.project.root}/"
    where = f"{failure.where}: " if failure.where and failure.where != uuid else ""
    lines = [f"Error: {uuid}: {where}{failure.message}"]
    if failure.hint:
        lines.append(f"  {failure.hint}")
    if failure.trace:
        trace = failure.trace.splitlines()
        if len(trace) > _MANY_LINES:
            half = _MANY_LINES // 2
            trace = [*trace[:half], f"  … {len(trace) - _MANY_LINES:,} more lines …", *trace[-half:]]
        lines += [f"  {line}" for line in trace]
    return "\n".join(lines).replace(root, "")


def _summary(outcome: BlockOutcome) -> str:
    """Summarise a finished block."""
    if outcome.reason is not None:
        return outcome.reason
    parts = []
    if outcome.calls is not None and outcome.seconds is not None:
        parts.append(count(outcome.calls, "call") + (f", {outcome.failed:,} failed" if outcome.failed else ""))
    outputs = [output for output in outcome.results if isinstance(output, dict) and "rows" in output]
    rows = [output["rows"] for output in outputs if isinstance(output["rows"], int)]
    if outputs and outcome.calls is None:
        chunks = [output["kind"] for output in outputs if str(output.get("kind")).endswith(("chunk", "chunks"))]
        shown = [count(number, "row") for number in rows[:_MANY_OUTPUTS]]
        more = [f"{len(rows) - _MANY_OUTPUTS} more outputs"] if len(rows) > _MANY_OUTPUTS else []
        parts += [", ".join([*chunks, *([" + ".join([*shown, *more])] if shown else [])])]
    results = [result for result in outcome.results if isinstance(result, dict)]
    for made, verb in (("stream", "read"), ("table", "written")):  # of a source, of a destination
        numbers = [result[verb] or 0 for result in results if made in result and verb in result]
        if numbers and outcome.calls is None:
            parts.append(f"{count(sum(numbers), 'record')} {verb}, {count(len(numbers), made)}")
    ran, failed = outcome.tests
    if ran and not failed:
        parts.append(f"{count(ran, 'test')} passed")
    if outcome.attempts > 1:
        parts.append(count(outcome.attempts, "attempt"))
    if outcome.failure is not None:
        parts.append(outcome.failure.message.partition("\n")[0])
    return ", ".join(filter(None, parts))


def _in(seconds: float) -> str:
    if seconds <= 0:
        return "at once"
    return f"in {seconds:.1g} s" if seconds < 1 else f"in {seconds:.1f} s".replace(".0 s", " s")
