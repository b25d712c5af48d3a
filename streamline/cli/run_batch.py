"""What `streamline run` and `streamline test` show of a batch pipeline."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App
from streamline.cli.output import count, has_colour, is_terminal, print_json, say
from streamline.execution.batch.context import BatchResult, BlockOutcome, Listener
from streamline.execution.run import RunOptions

if TYPE_CHECKING:
    from streamline.execution.batch.plan import BatchPlan
    from streamline.execution.batch.task import Failure
    from streamline.pipeline.model import PipelineModel

_COLOURS = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "upstream_failed": "yellow",
    "skipped": "cyan",
}
LIVE_SECONDS = 0.5
"""How often the line of what works now is drawn anew."""

_MANY_OUTPUTS = 8
_MANY_LINES = 40
"""Lines of a traceback that are shown; of one that recurses for ever the middle says nothing."""


class Display(Listener):
    """Shows a run: a line per block that ends, what blocks print as they print it, and in a terminal what works now.

    Args:
        app: knows the project, and what to mask.
        quiet: stdout is for JSON; what blocks print goes to stderr.
    """

    def __init__(self, app: App, *, quiet: bool = False) -> None:
        self._app = app
        self._quiet = quiet
        self._width = 10
        self._now = Now(live=not quiet and is_terminal())

    def planned(self, plan: BatchPlan, run_id: str, *, resumed: bool) -> None:
        self._width = max((len(uuid) for uuid in plan.blocks), default=10)
        if not self._quiet:
            self._say(f"{plan.model.uuid}: run {run_id}{' goes on' if resumed else ''}")

    def started(self, uuid: str, calls: int | None) -> None:
        self._now.begin(uuid, calls)

    def called(self, uuid: str, *, failed: bool) -> None:
        self._now.count(uuid)

    def line(self, uuid: str, text: str) -> None:
        self._say(f"{uuid:<{self._width}} | {text}", err=self._quiet)

    def retrying(self, uuid: str, child: int | None, failure: Failure, delay: float) -> None:
        who = uuid if child is None else f"{uuid}[{child}]"
        message = failure.message.partition("\n")[0]
        self._say(self._app.mask(f"{who:<{self._width}}   {message}; trying again {_in(delay)}"), err=True)

    def waiting(self, uuid: str, seconds: float) -> None:
        if not self._quiet:
            self._say(f"{uuid:<{self._width}}   not yet; asking again {_in(seconds)}")

    def interrupted(self) -> None:
        self._say("Stopping: blocks have 5 s to clean up; once more ends it at once.", err=True)

    def finished(self, outcome: BlockOutcome) -> None:
        self._now.end(outcome.uuid)
        if self._quiet:
            return
        label = f"{outcome.status:<16}"
        if has_colour(sys.stdout):
            label = click.style(label, fg=_COLOURS.get(outcome.status))
        took = " " * 10 if outcome.seconds is None else f"{outcome.seconds:>8.2f} s"
        said = "as the run before left it" if outcome.reused else self._app.mask(_said(outcome))
        self._say(f"{outcome.uuid:<{self._width}}   {label}{took}  {said}".rstrip())
        for node in outcome.results:
            if isinstance(node, dict) and "resource_type" in node:
                seconds = f"{node.get('seconds') or 0:>8.2f} s"
                self._say(
                    f"{'':<{self._width}}   {node['status']!s:<16}{seconds}  {node['resource_type']} {node['name']}"
                )

    def close(self) -> None:
        """The run is over."""
        self._now.close()

    def _say(self, text: str, *, err: bool = False) -> None:
        with self._now.aside():
            say(text, err=err)


class Now:
    """The last line of a terminal: which blocks work, how long they have, and how many of a fan-out's calls are done.

    Args:
        live: whether there is a terminal; else nothing is shown.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._lock = threading.RLock()
        self._blocks: dict[str, _Working] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, uuid: str, calls: int | None) -> None:
        """A block begins; `calls` of them where it is a dynamic block's child."""
        with self._lock:
            self._blocks[uuid] = _Working(time.monotonic(), calls)
            if self._live and self._thread is None:
                self._thread = threading.Thread(target=self._tick, name="what works now", daemon=True)
                self._thread.start()

    def count(self, uuid: str) -> None:
        """One of its calls has ended."""
        with self._lock:
            if uuid in self._blocks:
                self._blocks[uuid].done += 1

    def end(self, uuid: str) -> None:
        """It has ended."""
        with self._lock:
            self._blocks.pop(uuid, None)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Make room for a line that stays."""
        with self._lock:
            self._erase()
            yield

    def close(self) -> None:
        """Take the line away for good."""
        self._over.set()
        with self._lock:
            self._blocks.clear()
            self._erase()

    def _tick(self) -> None:
        while not self._over.wait(LIVE_SECONDS):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        now = time.monotonic()
        # What is over in the twinkling of an eye needs no line.
        working = [(uuid, one) for uuid, one in self._blocks.items() if now - one.since >= LIVE_SECONDS]
        self._erase()
        if not working or self._over.is_set():
            return
        parts = []
        for uuid, one in working:
            done = "" if one.calls is None else f" {one.done:,}/{one.calls:,}"
            parts.append(f"{uuid}{done} {now - one.since:.0f} s")
        text = " · ".join(parts)
        width = shutil.get_terminal_size().columns - 1
        self._write(click.style(text if len(text) <= width else text[: width - 1] + "…", dim=True))

    def _erase(self) -> None:
        if self._live and self._thread is not None:
            self._write("\r\x1b[2K")

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            sys.stdout.write(text)
            sys.stdout.flush()


@dataclass
class _Working:
    since: float
    calls: int | None
    done: int = 0


def run(app: App, model: PipelineModel, options: RunOptions, *, as_json: bool) -> int:
    """Run a batch pipeline and show it; the exit code."""
    from streamline.execution.batch.run import run_batch

    display = Display(app, quiet=as_json)
    try:
        result = run_batch(app.project, model, options, display)
    finally:
        display.close()
    show(app, model.uuid, options, result, as_json=as_json)
    if result.signal is not None and result.status == "cancelled":
        return 128 + result.signal
    return 0 if result.status == "completed" else 1


def show(app: App, pipeline: str, options: RunOptions, result: BatchResult, *, as_json: bool) -> None:
    """Show how a run ended: warnings, errors, and a last line."""
    if result.nothing_to_resume:
        if as_json:
            print_json({"run_id": result.run_id, "status": result.status, "resumed": False})
        else:
            say(f"Nothing to resume: the newest run, {result.run_id}, completed.")
        return
    for warning in result.warnings:
        say(f"Warning: {warning}".replace(f"{app.project.root}/", ""), err=True)
    for outcome in result.blocks:
        if outcome.failure is not None:
            say(app.mask(error_text(app, outcome.uuid, outcome.failure)), err=True)
    if result.errors or result.status == "cancelled":
        say(f"The whole log: {app.project.shown(Path(result.log))}", err=True)
    if as_json:
        print_json(_as_json(app, result))
        return
    counts: dict[str, int] = {}
    for outcome in result.blocks:
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
    words = ", ".join(f"{number} {status}" for status, number in counts.items())
    say(f"{'interrupted' if result.status == 'cancelled' else result.status}: {words or 'no blocks'}")
    if result.status in ("failed", "cancelled"):
        if options.block is None:
            hint = f"`streamline run {pipeline} --resume` goes on from the blocks that had not finished."
        else:
            hint = f"To repeat it: streamline run {pipeline} --block-uuid {options.block}"
        say(hint, err=True)


def error_text(app: App, uuid: str, failure: Failure) -> str:
    """A block's failure in words, with the user's traceback where there is one."""
    root = f"{app.project.root}/"
    lines = [
        f"Error: {uuid}: {failure.where}: {failure.message}" if failure.where else f"Error: {uuid}: {failure.message}"
    ]
    if failure.hint:
        lines.append(f"  {failure.hint}")
    if failure.trace:
        trace = failure.trace.splitlines()
        if len(trace) > _MANY_LINES:
            half = _MANY_LINES // 2
            trace = [*trace[:half], f"  … {len(trace) - _MANY_LINES:,} more lines …", *trace[-half:]]
        lines += [f"  {line}" for line in trace]
    return "\n".join(lines).replace(root, "")


def _said(outcome: BlockOutcome) -> str:
    """What is worth a word about a block that ended."""
    if outcome.reason is not None:
        return outcome.reason
    said = []
    if outcome.calls is not None and outcome.seconds is not None:
        said.append(count(outcome.calls, "call") + (f", {outcome.failed:,} failed" if outcome.failed else ""))
    outputs = [one for one in outcome.results if isinstance(one, dict) and "rows" in one]
    rows = [one["rows"] for one in outputs if isinstance(one["rows"], int)]
    if outputs and outcome.calls is None:
        chunks = [one["kind"] for one in outputs if str(one.get("kind")).endswith(("chunk", "chunks"))]
        shown = [count(number, "row") for number in rows[:_MANY_OUTPUTS]]
        more = [f"{len(rows) - _MANY_OUTPUTS} more outputs"] if len(rows) > _MANY_OUTPUTS else []
        said += [", ".join([*chunks, *([" + ".join([*shown, *more])] if shown else [])])]
    ran, failed = outcome.tests
    if ran and not failed:
        said.append(f"{count(ran, 'test')} passed")
    if outcome.attempts > 1:
        said.append(count(outcome.attempts, "attempt"))
    if outcome.failure is not None:
        said.append(outcome.failure.message.partition("\n")[0])
    return ", ".join(filter(None, said))


def _in(seconds: float) -> str:
    if seconds <= 0:
        return "at once"
    return f"in {seconds:.1g} s" if seconds < 1 else f"in {seconds:.1f} s".replace(".0 s", " s")


def _as_json(app: App, result: BatchResult) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "status": result.status,
        "resumed": result.resumed,
        "blocks": [
            {
                "uuid": one.uuid,
                "status": one.status,
                "seconds": one.seconds,
                "attempts": one.attempts,
                **({"reason": one.reason} if one.reason is not None else {}),
                "results": one.results,
                **({"calls": one.calls, "failed": one.failed} if one.calls is not None else {}),
            }
            for one in result.blocks
        ],
        "errors": {
            uuid: {
                "message": app.mask(failure.message),
                "where": failure.where,
                "hint": failure.hint,
                "trace": app.mask(failure.trace) if failure.trace else None,
            }
            for uuid, failure in result.errors.items()
        },
        "warnings": result.warnings,
    }
