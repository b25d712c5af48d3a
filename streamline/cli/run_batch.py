"""What `streamline run` and `streamline test` show of a batch pipeline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App
from streamline.cli.output import count, has_colour, print_json, say
from streamline.execution.batch.context import BatchOptions, BatchResult, BlockOutcome, Listener

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
_MANY_LINES = 40
"""Lines of a traceback that are shown; of one that recurses for ever the middle says nothing."""


class Display(Listener):
    """Shows a run: a line per block that ends, and what blocks print as they print it.

    Args:
        app: knows the project, and what to mask.
        quiet: stdout is for JSON; what blocks print goes to stderr.
    """

    def __init__(self, app: App, *, quiet: bool = False) -> None:
        self._app = app
        self._quiet = quiet
        self._width = 10

    def planned(self, plan: BatchPlan, run_id: str, *, resumed: bool) -> None:
        self._width = max((len(uuid) for uuid in plan.blocks), default=10)
        if not self._quiet:
            say(f"{plan.model.uuid}: run {run_id}{' goes on' if resumed else ''}")

    def line(self, uuid: str, text: str) -> None:
        say(f"{uuid:<{self._width}} | {text}", err=self._quiet)

    def retrying(self, uuid: str, failure: Failure, delay: float) -> None:
        message = failure.message.partition("\n")[0]
        say(self._app.mask(f"{uuid:<{self._width}}   {message}; trying again in {delay:g} s"), err=True)

    def waiting(self, uuid: str, seconds: float) -> None:
        if not self._quiet:
            say(f"{uuid:<{self._width}}   not yet; asking again in {seconds:g} s")

    def finished(self, outcome: BlockOutcome) -> None:
        if self._quiet:
            return
        status = outcome.status
        label = f"{status:<15}"
        if has_colour(sys.stdout):
            label = click.style(label, fg=_COLOURS.get(status))
        took = "" if outcome.seconds is None else f"{outcome.seconds:>8.2f} s  "
        said = "as the run before left it" if outcome.reused else self._app.mask(_said(outcome))
        say(f"{outcome.uuid:<{self._width}}   {label}{took}{said}".rstrip())
        for node in outcome.results:
            if isinstance(node, dict) and "resource_type" in node:
                seconds = f"{node.get('seconds') or 0:>8.2f} s"
                say(f"{'':<{self._width}}   {node['status']!s:<15}{seconds}  {node['resource_type']} {node['name']}")


def run(app: App, model: PipelineModel, options: BatchOptions, *, as_json: bool) -> int:
    """Run a batch pipeline and show it; the exit code."""
    from streamline.execution.batch.run import run_batch

    result = run_batch(app.project, model, options, Display(app, quiet=as_json))
    show(app, result, as_json=as_json)
    if result.signal is not None and result.status == "cancelled":
        return 128 + result.signal
    return 0 if result.status == "completed" else 1


def show(app: App, result: BatchResult, *, as_json: bool) -> None:
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
    if result.errors:
        say(f"The whole log: {app.project.shown(Path(result.log))}", err=True)
    if as_json:
        print_json(_as_json(app, result))
        return
    counts: dict[str, int] = {}
    for outcome in result.blocks:
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
    words = ", ".join(f"{number} {status}" for status, number in counts.items())
    say(f"{'interrupted' if result.status == 'cancelled' else result.status}: {words or 'no blocks'}")
    if result.status == "failed":
        say("After mending it, `streamline run … --resume` goes on from the blocks that had not finished.", err=True)


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
    said = []
    if outcome.calls is not None:
        said.append(count(outcome.calls, "call") + (f", {outcome.failed:,} failed" if outcome.failed else ""))
    rows = [one["rows"] for one in outcome.results if isinstance(one, dict) and isinstance(one.get("rows"), int)]
    if rows and outcome.calls is None:
        said.append(" + ".join(count(number, "row") for number in rows[:8]))
    if outcome.tests[0]:
        ran, failed = outcome.tests
        said.append(f"{failed} of {count(ran, 'test')} failed" if failed else f"{count(ran, 'test')} passed")
    if outcome.attempts > 1:
        said.append(count(outcome.attempts, "attempt"))
    if outcome.failure is not None:
        said.append(outcome.failure.message.partition("\n")[0])
    return ", ".join(said)


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
