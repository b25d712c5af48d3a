"""`streamline runs`: what ran, how it went, and its logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, pass_app, require_pipeline
from streamline.cli.output import (
    aligned,
    cell,
    columns_of,
    count,
    cut,
    has_colour,
    is_terminal,
    json_option,
    moment,
    print_json,
    print_table,
)
from streamline.errors import ConfigError
from streamline.state.store import current_run

if TYPE_CHECKING:
    from pathlib import Path

    from streamline.state.store import RunInfo, Store

run_argument = click.argument("run", required=False)
pipeline_option = click.option("--pipeline", "-p", metavar="PIPELINE", help="Only runs of this pipeline.")


@click.group("runs")
def command() -> None:
    """Show what ran, how it went, and its logs."""


@command.command("list")
@click.argument("pipeline", required=False)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="Only the newest so many.")
@json_option
@pass_app
def list_(app: App, pipeline: str | None, limit: int, as_json: bool) -> None:
    """List runs, the newest first."""
    with app.store() as store:
        if pipeline is not None:
            require_pipeline(app, store, pipeline)
        runs = [current_run(store, run) for run in store.runs(pipeline, limit)]
    if as_json:
        print_json([_as_json(run) for run in runs])
        return
    if is_terminal() and runs:
        _print_runs(runs)
        return
    print_table(
        ["RUN", "PIPELINE", "STATUS", "STARTED", "SECONDS", "ERROR"],
        [[run.run_id, run.pipeline, run.status, moment(run.started), run.seconds, run.error or ""] for run in runs],
        empty="Nothing has run yet.",
    )


def _print_runs(runs: list[RunInfo]) -> None:
    """Print runs in a terminal: nothing is wrapped, and errors are cut, on the line below their run."""
    import shutil
    import sys

    width = shutil.get_terminal_size().columns
    names = ["RUN", "PIPELINE", "STATUS", "STARTED", "SECONDS"]
    rows = [
        [cell(value) for value in (run.run_id, run.pipeline, run.status, moment(run.started), run.seconds)]
        for run in runs
    ]
    for number in range(len(names), 2, -1):  # what has no room is in `runs show`
        head, *lines = aligned([row[:number] for row in (names, *rows)])
        if max(map(columns_of, (head, *lines))) <= width:
            break
    colour = has_colour(sys.stdout)
    click.echo(click.style(head, bold=True) if colour else head)
    for run, line in zip(runs, lines, strict=True):
        click.echo(line)
        if run.error:
            error = cut(f"  {cell(run.error)}", width)
            click.echo(click.style(error, fg="red") if colour else error)


@command.command("show")
@run_argument
@pipeline_option
@json_option
@pass_app
def show(app: App, run: str | None, pipeline: str | None, as_json: bool) -> None:
    """Show a run and its blocks; by default the latest."""
    with app.store() as store:
        info = current_run(store, _find(store, run, pipeline))
        blocks = _blocks(store, info)
    if as_json:
        print_json({**_as_json(info), **_rest(info), "blocks": blocks})
        return
    click.echo(f"{info.run_id}  {info.pipeline}  {info.status}")
    took = "" if info.seconds is None else f", took {info.seconds:,.1f} s"
    click.echo(f"  started {moment(info.started)}{took}")
    if info.error:
        click.echo(f"  error: {info.error}")
    tables: list[list[dict[str, Any]]] = []
    for key, value in info.summary.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            tables.append(value)
        elif isinstance(value, dict) and value and all(isinstance(row, dict) for row in value.values()):
            tables.append([{key: name, **row} for name, row in value.items()])
        elif key != "blocks" and value not in ([], {}):
            click.echo(f"  {key}: {_words(value)}")
    for rows in tables:
        click.echo()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        print_table(
            [name.upper() for name in columns], [[_words(row.get(column)) for column in columns] for row in rows]
        )
    if blocks:
        click.echo()
        print_table(
            ["BLOCK", "STATUS", "SECONDS", "ATTEMPTS"],
            [
                [block["uuid"], block["status"], _seconds(block.get("seconds")), block.get("attempts", 1)]
                for block in blocks
            ],
        )
        _print_results(blocks)


@command.command("logs")
@run_argument
@pipeline_option
@click.option("--tail", metavar="N", type=click.IntRange(min=1), help="Only the last N lines.")
@pass_app
def logs(app: App, run: str | None, pipeline: str | None, tail: int | None) -> None:
    """Print the logs of a run; by default the latest."""
    with app.store() as store:
        info = _find(store, run, pipeline)
    folder = app.project.work_dir / "runs" / info.run_id
    files = sorted(folder.glob("*.log"))
    if not files:
        raise ConfigError(
            f"the run {info.run_id} has left no logs", where=str(folder), hint="they may have been cleaned away"
        )
    for number, path in enumerate(files):
        if len(files) > 1:
            click.echo(("\n" if number else "") + f"==> {path.name} <==")
        _print_file(path, tail)


def _find(store: Store, run: str | None, pipeline: str | None) -> RunInfo:
    """Find a run by its id or a prefix of it; without one, the latest.

    Raises:
        ConfigError: there is none, or the prefix is ambiguous.
    """
    if run is None:
        latest = store.runs(pipeline, limit=1)
        if not latest:
            raise ConfigError(
                "nothing has run yet", where=pipeline, hint=f"run it: streamline run {pipeline or 'PIPELINE'}"
            )
        return latest[0]
    exact = store.run(run)
    if exact is not None:
        return exact
    begin = [info for info in store.runs(pipeline, limit=10_000) if info.run_id.startswith(run)]
    if len(begin) == 1:
        return begin[0]
    if begin:
        raise ConfigError(
            f"{count(len(begin), 'run')} begin with '{run}'",
            hint=f"one is {begin[0].run_id}, another {begin[1].run_id}",
        )
    raise ConfigError(f"there is no run '{run}'", hint="`streamline runs list` lists them.")


def _blocks(store: Store, run: RunInfo) -> list[dict[str, Any]]:
    from msgspec.structs import asdict

    blocks = [asdict(block) for block in store.block_runs(run.run_id)]
    if run.status != "running":
        for block in blocks:
            if block["status"] == "running":  # the run was killed under it
                block["status"] = "cancelled"
    return blocks or list(run.summary.get("blocks", []))


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:,.2f}"


def _print_results(blocks: list[dict[str, Any]]) -> None:
    """Print the blocks' results: dbt's nodes, records by stream and table, outputs."""
    tables: dict[tuple[str, ...], list[list[Any]]] = {}
    for block in blocks:
        for result in block.get("results") or []:
            if isinstance(result, dict):
                shown = {key: value for key, value in result.items() if key != "unique_id"}
                tables.setdefault(tuple(shown), []).append([block["uuid"], *map(_words, shown.values())])
    for names, rows in tables.items():
        click.echo()
        print_table(["BLOCK", *(name.upper() for name in names)], rows)


def _as_json(run: RunInfo) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline,
        "status": run.status,
        "started": run.started,
        "seconds": run.seconds,
    }


def _rest(run: RunInfo) -> dict[str, Any]:
    summary = {key: value for key, value in run.summary.items() if key != "blocks"}
    return {
        "finished": run.finished,
        "pid": run.pid,
        "host": run.host,
        "error": run.error,
        "code": run.code,
        "summary": summary,
    }


def _words(value: Any) -> str:
    """Format a JSON value on one line: `orders 25, users 3`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(_words(item) for item in value) or "-"
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _print_file(path: Path, tail: int | None) -> None:
    from collections import deque

    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file if tail is None else deque(file, tail):
            click.echo(line.rstrip("\n"))
