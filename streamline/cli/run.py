"""`streamline run`: run a pipeline."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamline.cli import collector
from streamline.cli.app import App, pass_app
from streamline.cli.output import count, failure_json, is_terminal, json_option, print_json, say
from streamline.errors import ConfigError
from streamline.execution.engine import ENGINES, engine_of, refuse_options, run_pipeline, takes, types_taking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streamline.execution.run import RunResult
    from streamline.pipeline.model import PipelineModel

_STDOUT = re.compile(r"^\s*(connector_type|destination)\s*:\s*[\"']?stdout[\"']?\s*(#.*)?$", re.MULTILINE)


class _OfType(click.Option):
    """An option that only some types of pipelines take; `--help` groups it so."""

    @property
    def group(self) -> str:
        """The title of its group."""
        types = types_taking(self.name or "")
        if len(types) == len(ENGINES):
            return "Options"
        *most, last = types
        return f"Options for {', '.join(most)} and {last} pipelines" if most else f"Options for {last} pipelines"


class _Grouped(click.Command):
    """Lists options that only some types of pipelines take in groups of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


_option = functools.partial(click.option, cls=_OfType)


@click.command("run", cls=_Grouped)
@click.argument("names", nargs=-1, metavar="[PROJECT] PIPELINE")
@click.option(
    "--runtime-vars",
    multiple=True,
    metavar="JSON|@FILE|KEY=VALUE",
    help="Variables for this run; may be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Plan and check everything, move nothing.")
@json_option
@_option(
    "--block-uuid",
    "block",
    multiple=True,
    metavar="U",
    help="Run only this block, and its tests, on what its upstream blocks stored.",
)
@_option("--test", "tests", is_flag=True, help="Run the blocks' tests as well; a failed test fails its block.")
@_option("--resume", is_flag=True, help="Resume the newest unfinished run.")
@_option("--stream", "streams", multiple=True, metavar="S", help="Only this stream, by name or glob.")
@_option("--full-refresh", is_flag=True, help="Read from the start; the old positions count until the new ones do.")
@_option("--bookmark", "bookmarks", multiple=True, metavar="S.COLUMN=VALUE", help="Start a stream from this value.")
@_option("--accept-gap", is_flag=True, help="Run even if a destination lacks records before the saved positions.")
@_option("--refresh-catalog", is_flag=True, help="Discover the taps' streams again.")
@_option(
    "--until-caught-up", is_flag=True, help="End when everything that there was at the start is delivered and proven."
)
@_option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    metavar="N",
    help="Serve /metrics (for Prometheus) and /health on this port of 127.0.0.1.",
)
@pass_app
def command(
    app: App,
    /,
    names: tuple[str, ...],
    runtime_vars: tuple[str, ...],
    block: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **choices: Any,
) -> int:
    """Run a pipeline until it is done.

    Exit codes: 0 completed; 1 the pipeline or a part of it failed, or another run of it is in progress; 2 something
    was wrong before anything moved; 130 or 143 interrupted.
    """
    from streamline.execution.run import RunOptions

    pipeline = _pipeline(app, names)
    if len(block) > 1:
        raise click.UsageError(f"--block-uuid: give one, not {len(block)}: {', '.join(block)}")
    options = RunOptions(
        variables=read_variables(runtime_vars), block=block[0] if block else None, debug=app.debug, **choices
    )
    model = app.load_pipeline(pipeline)
    refuse_options(model, options)
    if options.block is not None:
        if options.resume:
            raise click.UsageError("--block-uuid and --resume: a run of one block cannot be resumed")
        from msgspec.structs import replace

        # As in Mage, a block that runs alone is tested in any case.
        options = replace(options, tests=True)
    if dry_run:
        from streamline.cli.explain import show_plan

        show_plan(app, engine_of(model).explain(app.project, model, options, dry_run=True), as_json=as_json)
        return 0
    from streamline.cli.progress import Display

    streaming = takes(model, "until_caught_up")  # messages are moved
    with contextlib.ExitStack() as stack:
        if streaming and _writes_stdout(model):
            from streamline.connectors.stdio.sink import OUTPUT

            OUTPUT.fd = stack.enter_context(_prints_on_stderr())
        with (
            _prints_on_stderr() if as_json else contextlib.nullcontext(),
            contextlib.closing(Display(app, quiet=as_json)) as display,
        ):
            result = run_pipeline(app.project, model, options, display, collector.when_planned)
        result.warnings = [warning for warning in result.warnings if as_json or not display.has_shown(warning)]
        show_result(app, result, as_json=as_json, planned=display.planned, streaming=streaming)
    if result.signal is not None and result.status == "cancelled":
        return 128 + result.signal
    return 0 if result.status == "completed" else 1


@contextlib.contextmanager
def _prints_on_stderr() -> Iterator[int]:
    """Redirect what is printed, in any process, to stderr; gives a descriptor of stdout."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield kept
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _writes_stdout(model: PipelineModel) -> bool:
    """Return whether a block writes messages to stdout, which is for nothing else then."""
    files = [
        block.file.read_text(errors="replace") if block.file is not None else block.content or ""
        for block in model.blocks.values()
        if block.type == "data_exporter" and block.language == "yaml"
    ]
    return any(_STDOUT.search(text) for text in files)


def _pipeline(app: App, names: tuple[str, ...]) -> str:
    if not names:
        pipelines = app.project.pipelines()
        known = f"pipelines: {', '.join(pipelines)}" if pipelines else "there is none yet: streamline create NAME"
        raise click.UsageError(f"Missing argument 'PIPELINE'; {known}.")
    if len(names) > 2:
        raise click.UsageError("one pipeline at a time: streamline run [PROJECT] PIPELINE")
    if len(names) == 2:
        app.project_dir = names[0]
    return names[-1]


def read_variables(texts: tuple[str, ...]) -> dict[str, Any]:
    """Read variables from JSON objects, `@FILE` (a JSON object in a file) and `key=value`; later ones win.

    A value that is JSON keeps its type.
    """
    import json

    variables: dict[str, Any] = {}
    for text in texts:
        if text.startswith("@"):
            variables.update(_variables_in(Path(text[1:])))
            continue
        if text.lstrip().startswith("{"):
            try:
                decoded = json.loads(text)
            except ValueError as error:
                raise ConfigError(
                    f"invalid JSON in --runtime-vars: {error}", hint="use key=value", code="option.invalid"
                ) from None
            variables.update(decoded)
            continue
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"--runtime-vars {text}: expected a JSON object, @FILE or key=value", code="option.invalid"
            )
        try:
            variables[key.strip()] = json.loads(value)
        except ValueError:
            variables[key.strip()] = value
    return variables


def show_result(
    app: App, result: RunResult, *, as_json: bool, planned: Mapping[str, int], streaming: bool = False
) -> None:
    """Show how a run ended: counts, warnings, errors, and a last line.

    Args:
        planned: the number of streams that each source reads.
        streaming: what it counts are messages and dead letters.
    """
    from streamline.cli.progress import error_text

    if result.nothing_to_resume:
        if as_json:
            print_json({"run_id": result.run_id, "status": result.status, "resumed": False})
        else:
            say(f"Nothing to resume: the newest run, {result.run_id}, completed.")
        return
    summary, noun = result.summary, "message" if streaming else "record"

    def refused(number: int) -> str:
        return count(number, "dead letter") if streaming else f"{count(number, 'record')} quarantined"

    if not as_json:
        streams = summary.get("streams", ())
        shown, more = _fitting(streams, "read")
        for stream in shown:
            bad = f", {refused(stream['quarantined'])}" if stream["quarantined"] else ""
            failed = ", failed" if stream.get("failed") else ""
            say(f"{stream['block']}  {stream['stream']}: {count(stream['read'], noun)} read{bad}{failed}")
        if more:
            say(f"and {count(len(more), 'more stream')}: {count(sum(each['read'] for each in more), noun)} read")
        for block, number in planned.items():
            idle = number - sum(stream["block"] == block for stream in streams)
            if idle > 0:
                say(f"{block}  {count(idle, 'stream')}: nothing new")
        shown, more = _fitting(summary.get("tables", ()), "sent")
        for table in shown:
            say(f"{table['block']}  {table['table']}: {_written(table, noun)}")
        if more:
            total = {name: sum(table[name] for table in more) for name in ("sent", "written")}
            say(f"and {count(len(more), 'more table')}: {_written(total, noun)}; `streamline runs show` lists all")
    for warning in result.warnings:
        say(f"Warning: {warning}".replace(f"{app.project.root}/", ""), err=True)
    for name, failure in result.errors.items():
        say(app.mask(error_text(app, name, failure)), err=True)
    if result.errors or result.status == "cancelled":
        say(f"The whole log: {app.project.shown(Path(result.log))}", err=True)
    if as_json:
        print_json(_as_json(app, result))
        return
    if "records" in summary:
        written, sent = (sum(table[name] for table in summary["tables"]) for name in ("written", "sent"))
        words = f"{count(summary['records'], noun)} read, {written:,} written"
        words += f", {sent - written:,} sent, not confirmed" if sent > written else ""
        bad = summary["quarantined"]
        words += f", {refused(bad)}" if streaming else f", {bad:,} quarantined"
        if "seconds" in summary:
            words += f", {summary['seconds']:.1f} s"
    else:
        words = ", ".join(f"{number} {status}" for status, number in summary["blocks"].items()) or "no blocks"
        if summary.get("quarantined"):
            words += f"; {count(summary['quarantined'], 'record')} quarantined"
    say(f"{'interrupted' if result.status == 'cancelled' else result.status}: {words}")
    if result.hint is not None:
        say(result.hint, err=True)


def _fitting(counts: Sequence[dict[str, Any]], size: str) -> tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]]:
    """Return which counts are shown, and the rest: in a terminal those that failed and the largest, as many as fit."""
    room = max(5, (shutil.get_terminal_size().lines - 8) // 2)
    if not is_terminal() or len(counts) <= room:
        return counts, []
    order = sorted(counts, key=lambda each: (not each.get("failed"), -each["quarantined"], -each[size]))
    return order[:room], order[room:]


def _written(table: Mapping[str, Any], noun: str) -> str:
    """Format the counts of a table; what its target has not confirmed may or may not have been written."""
    unconfirmed = table["sent"] - table["written"]
    rest = f", {unconfirmed:,} sent, not confirmed" if unconfirmed else ""
    return f"{count(table['written'], noun)} written{rest}"


def _as_json(app: App, result: RunResult) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "status": result.status,
        "resumed": result.resumed,
        **{key: value for key, value in result.summary.items() if key != "blocks"},
        "blocks": [
            {
                "uuid": outcome.uuid,
                "status": outcome.status,
                "seconds": outcome.seconds,
                "attempts": outcome.attempts,
                **({"reason": outcome.reason} if outcome.reason is not None else {}),
                "results": outcome.results,
                **({"calls": outcome.calls, "failed": outcome.failed} if outcome.calls is not None else {}),
            }
            for outcome in result.blocks
        ],
        "errors": {name: failure_json(failure, app.mask) for name, failure in result.errors.items()},
        "warnings": result.warnings,
    }


def _variables_in(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file: what stands in a command line, other users of the machine can see."""
    import json

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"--runtime-vars @{file}: {error.strerror or error}", code="variable.file_unreadable"
        ) from None
    except ValueError as error:
        raise ConfigError(f"--runtime-vars @{file}: invalid JSON: {error}", code="variable.file_unreadable") from None
    if not isinstance(content, dict):
        raise ConfigError(f"--runtime-vars @{file}: expected a JSON object", code="variable.file_unreadable")
    return content
