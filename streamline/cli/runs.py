"""`streamline runs`: what ran, how it went, and its logs."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from streamline.cli.app import App, pass_app, require_pipeline
from streamline.cli.output import count, cut, is_terminal, json_option, moment, print_json, print_table, print_text
from streamline.errors import ConfigError, StreamlineError
from streamline.state.store import current_run

if TYPE_CHECKING:
    from pathlib import Path

    from streamline.state.store import RunInfo, Store

RETRIED = "retried_dead_letters"
"""What the summary of a retry of dead letters has, and no other."""

_MANY_RETRIES = 50

run_argument = click.argument("run", required=False, metavar="[RUN|PIPELINE]")
pipeline_option = click.option("--pipeline", "-p", metavar="PIPELINE", help="Only runs of this pipeline.")


@click.group("runs")
def command() -> None:
    """Show what ran, how it went, and its logs."""


@command.command("list")
@click.argument("pipeline", required=False)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="Only the newest so many.")
@click.option(
    "--status", metavar="STATUS", help="Only runs with this status: completed, failed, cancelled, killed or running."
)
@click.option("--since", metavar="D", help="Only runs that started in this time: 90s, 12h, 7d.")
@json_option
@pass_app
def list_(app: App, pipeline: str | None, limit: int, status: str | None, since: str | None, as_json: bool) -> None:
    """List runs, the newest first."""
    oldest = _moment_before(since) if since is not None else None
    with app.store() as store:
        if pipeline is not None:
            require_pipeline(app, store, pipeline)
        candidates = store.runs(pipeline, limit if status is None and oldest is None else sys.maxsize)
        runs = [run for run in (current_run(store, run) for run in candidates) if status in (None, run.status)]
    runs = [run for run in runs if oldest is None or datetime.fromisoformat(run.started) >= oldest][:limit]
    if as_json:
        print_json([_as_json(run) for run in runs])
        return
    print_table(
        ["RUN", "PIPELINE", "STATUS", "STARTED", "SECONDS", "ERROR"],
        [
            (run.run_id, run.pipeline, run.status, moment(run.started), _seconds(run.seconds), _short(run.error))
            for run in runs
        ],
        empty="Nothing has run yet.",
    )


def _moment_before(since: str) -> datetime:
    from streamline.blocks.connector.spec import duration

    try:
        return datetime.now(UTC) - timedelta(seconds=duration(since))
    except ValueError as error:
        raise ConfigError(f"--since: {error}", code="duration.invalid") from None


def _short(error: str | None) -> str:
    """Return the first line of an error, and what fits of it in a terminal: `runs show` prints all of it."""
    line = (error or "").partition("\n")[0]
    return cut(line, shutil.get_terminal_size().columns - 12) if is_terminal() else line


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
        print_text(f"  error: {info.error}")
    names = {"quarantined": "dead letters"} if _streams(app, info.pipeline) else {}
    for key, value in info.summary.items():
        if key != "blocks" and not isinstance(value, list | dict):
            click.echo(f"  {names.get(key, key).replace('_', ' ')}: {_words(value)}")
    if blocks:
        click.echo()
        print_table(
            ["BLOCK", "STATUS", "SECONDS", "ATTEMPTS"],
            [
                [block["uuid"], block["status"], _seconds(block.get("seconds")), block.get("attempts", 1)]
                for block in blocks
            ],
        )
    _print_results(info, blocks, names)


@command.command("logs")
@run_argument
@pipeline_option
@click.option("--tail", metavar="N", type=click.IntRange(min=1), help="Only the last N lines.")
@click.option("--follow", "-f", is_flag=True, help="Print what is added, until the run ends.")
@pass_app
def logs(app: App, run: str | None, pipeline: str | None, tail: int | None, follow: bool) -> None:
    """Print the logs of a run; by default the latest."""
    with app.store() as store:
        info = _find(store, run, pipeline)
        folder = app.project.work_dir / "runs" / info.run_id
        if follow:
            _follow(store, info, folder, tail)
            return
    files = sorted(folder.glob("*.log"))
    if not files:
        raise _no_logs(info, folder)
    for number, path in enumerate(files):
        if len(files) > 1:
            click.echo(("\n" if number else "") + f"==> {path.name} <==")
        _print_file(path, tail)


def _find(store: Store, run: str | None, pipeline: str | None) -> RunInfo:
    """Find a run by its id or a prefix of it, or the latest of a pipeline of that name; without one, the latest.

    Retries of dead letters are runs, too, but only found by their ids, unless there is no other.

    Raises:
        ConfigError: there is none, or the prefix is ambiguous.
    """
    exact = store.run(run) if run is not None else None
    if exact is not None:
        return exact
    if run is not None and pipeline is None and store.runs(run, limit=1):
        run, pipeline = None, run
    if run is None:
        latest = store.runs(pipeline, limit=_MANY_RETRIES)
        if not latest:
            raise ConfigError(
                "nothing has run yet",
                where=pipeline,
                hint=f"run it: streamline run {pipeline or 'PIPELINE'}",
                code="run.not_found",
            )
        return next((info for info in latest if RETRIED not in info.summary), latest[0])
    begin = [info for info in store.runs(pipeline, limit=10_000) if info.run_id.startswith(run)]
    if len(begin) == 1:
        return begin[0]
    if begin:
        raise ConfigError(
            f"{count(len(begin), 'run')} begin with '{run}'",
            hint=f"one is {begin[0].run_id}, another {begin[1].run_id}",
            code="run.ambiguous",
        )
    raise ConfigError(f"there is no run '{run}'", hint="`streamline runs list` lists them.", code="run.not_found")


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


def _streams(app: App, pipeline: str) -> bool:
    """Return whether a pipeline is a streaming one, as far as it can still be read."""
    from streamline.pipeline.reader import load_pipeline

    try:
        return load_pipeline(app.project, pipeline).type == "streaming"
    except StreamlineError:
        return False


def _print_results(run: RunInfo, blocks: list[dict[str, Any]], names: Mapping[str, str]) -> None:
    """Print the blocks' results (dbt's nodes, records by stream and table, outputs), a table for each kind.

    Args:
        names: other names of columns.
    """
    results = [
        {"block": block["uuid"], **{key: value for key, value in result.items() if key != "unique_id"}}
        for block in blocks
        for result in block.get("results") or []
        if isinstance(result, dict)
    ]
    # Blocks that a failure ended have none; the run counted all the same.
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for result in results or [*run.summary.get("streams", ()), *run.summary.get("tables", ())]:
        tables.setdefault(tuple(result), []).append([_words(value) for value in result.values()])
    for columns, rows in tables.items():
        click.echo()
        print_table([names.get(name, name).upper() for name in columns], rows)


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
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file if tail is None else deque(file, tail):
            click.echo(line.rstrip("\n"))


_POLL_SECONDS = 0.2


def _follow(store: Store, run: RunInfo, folder: Path, tail: int | None) -> None:
    """Print a run's logs, and what is added to them while it runs; of several logs each line after its log's name."""
    followed: dict[Path, tuple[BinaryIO, bytearray]] = {}
    with ExitStack() as stack:
        while True:
            # Asked before the last lines are read: those of a run that has ended are all there.
            running = current_run(store, store.run(run.run_id) or run).status == "running"
            for path in sorted(folder.glob("*.log")):
                new = path not in followed
                if new:
                    followed[path] = (stack.enter_context(path.open("rb")), bytearray())
                lines: Iterable[str] = _added_lines(*followed[path], ended=not running)
                for line in deque(lines, tail) if new and tail is not None else lines:
                    click.echo((f"{path.stem}: " if len(followed) > 1 else "") + line)
            if not running:
                break
            time.sleep(_POLL_SECONDS)
    if not followed:
        raise _no_logs(run, folder)


def _added_lines(file: BinaryIO, rest: bytearray, *, ended: bool) -> Iterator[str]:
    """Return the lines that were added to a file. `rest` keeps the beginning of one that is still being written."""
    while chunk := file.read(1 << 16):
        *lines, last = (bytes(rest) + chunk).split(b"\n")
        rest[:] = last
        for line in lines:
            yield line.decode("utf-8", "replace")
    if ended and rest:
        yield rest.decode("utf-8", "replace")


def _no_logs(run: RunInfo, folder: Path) -> ConfigError:
    return ConfigError(
        f"the run {run.run_id} has left no logs",
        where=str(folder),
        hint="they may have been cleaned away",
        code="run.no_logs",
    )
