"""`streamline run`: run a pipeline."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, pass_app
from streamline.cli.output import count, json_option, print_json, say
from streamline.errors import ConfigError, StreamlineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamline.execution.integration.run import Result
    from streamline.pipeline.model import PipelineModel


class _OfOneType(click.Option):
    """An option that means something for pipelines of one type only; `--help` groups it so."""

    group = ""


class _OfBatch(_OfOneType):
    group = "Options for batch pipelines (python, dbt)"


class _OfIntegration(_OfOneType):
    group = "Options for integration pipelines"


class _Grouped(click.Command):
    """Lists the options of each type of pipeline by themselves."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


_batch_option = functools.partial(click.option, cls=_OfBatch)
_integration_option = functools.partial(click.option, cls=_OfIntegration)


@click.command("run", cls=_Grouped)
@click.argument("names", nargs=-1, required=True, metavar="[PROJECT] PIPELINE")
@click.option(
    "--runtime-vars",
    multiple=True,
    metavar="JSON|KEY=VALUE",
    help="Variables for this run; may be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Plan and check everything, move nothing.")
@json_option
@_batch_option(
    "--block-uuid",
    "blocks",
    multiple=True,
    metavar="U",
    help="Run this block alone, and its tests, on what its upstream blocks stored.",
)
@_batch_option("--test", "tests", is_flag=True, help="Run the blocks' tests as well; a failure fails its block.")
@_batch_option("--resume", is_flag=True, help="Go on with the newest unfinished run.")
@_integration_option("--stream", "streams", multiple=True, metavar="S", help="Only this stream, by name or glob.")
@_integration_option(
    "--full-refresh", is_flag=True, help="Read from the start; the old positions count until the new ones do."
)
@_integration_option(
    "--bookmark", "bookmarks", multiple=True, metavar="S.COLUMN=VALUE", help="Start a stream from this value."
)
@_integration_option(
    "--accept-gap", is_flag=True, help="Go on although a destination lacks what lies before the positions."
)
@_integration_option("--refresh-catalog", is_flag=True, help="Ask the taps for their streams again.")
@pass_app
def command(
    app: App,
    names: tuple[str, ...],
    runtime_vars: tuple[str, ...],
    blocks: tuple[str, ...],
    tests: bool,
    resume: bool,
    streams: tuple[str, ...],
    full_refresh: bool,
    bookmarks: tuple[str, ...],
    accept_gap: bool,
    refresh_catalog: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run a pipeline until it is done.

    Exit codes: 0 done; 1 the pipeline, or a part of it, failed, or another run of it goes on; 2 something was wrong
    before anything moved; 130 or 143 interrupted.
    """
    pipeline = _pipeline(app, names)
    if len(blocks) > 1:
        raise click.UsageError(f"--block-uuid: give one, not {len(blocks)}: {', '.join(blocks)}")
    block = blocks[0] if blocks else None
    from streamline.pipeline.model import load_pipeline

    variables = read_variables(runtime_vars)
    model = load_pipeline(app.project, pipeline)
    for warning in (*app.project.warnings, *model.warnings):
        say(f"Warning: {warning}", err=True)
    if model.type in ("python", "dbt"):
        given = {
            "--stream": streams, "--full-refresh": full_refresh, "--bookmark": bookmarks, "--accept-gap": accept_gap,
            "--refresh-catalog": refresh_catalog,
        }  # fmt: skip
        _refuse(model, given)
        if block is not None and resume:
            raise click.UsageError("--block-uuid and --resume: one block alone is no run that could be gone on with")
        return _run_batch(app, model, variables, block, tests=tests, resume=resume, dry_run=dry_run, as_json=as_json)
    # A run of an integration pipeline always goes on where the last one stood: --resume changes nothing.
    _refuse(model, {"--block-uuid": block, "--test": tests})
    from streamline.execution.run import RunOptions

    options = RunOptions(
        variables=variables,
        streams=streams,
        full_refresh=full_refresh,
        bookmarks=bookmarks,
        accept_gap=accept_gap,
        refresh_catalog=refresh_catalog,
        debug=app.debug,
    )
    if dry_run:
        from streamline.cli.explain import show_plan

        return show_plan(app, model, options, as_json=as_json)
    from streamline.cli.progress import Display
    from streamline.execution.integration.run import run_integration

    with _prints_on_stderr() if as_json else contextlib.nullcontext():
        result = run_integration(app.project, model, options, Display(quiet=as_json))
    _show(app, result, as_json=as_json)
    if result.signal is not None:
        return 128 + result.signal
    return 0 if result.status == "completed" else 1


def _refuse(model: PipelineModel, given: dict[str, Any]) -> None:
    """Refuse options that mean nothing for this type of pipeline."""
    for option, value in given.items():
        if value:
            raise ConfigError(
                f"{option} means nothing for a pipeline of type {model.type}", where=model.uuid, hint="leave it out"
            )


def _run_batch(
    app: App,
    model: PipelineModel,
    variables: dict[str, Any],
    block: str | None,
    *,
    tests: bool,
    resume: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    if dry_run:
        from streamline.cli.explain import show_batch_plan
        from streamline.execution.batch.templates import check_templates

        check_templates(app.project, model, variables, block)
        return show_batch_plan(app, model, variables, as_json=as_json)
    from streamline.cli.run_batch import run
    from streamline.execution.run import RunOptions

    # A block alone is tested in any case, as it is in the reference product: it is run to see whether it works.
    options = RunOptions(
        variables=variables, block=block, tests=tests or block is not None, resume=resume, debug=app.debug
    )
    return run(app, model, options, as_json=as_json)


@contextlib.contextmanager
def _prints_on_stderr() -> Iterator[None]:
    """What blocks print, here or in processes of their own, goes to stderr: stdout is for the JSON alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _pipeline(app: App, names: tuple[str, ...]) -> str:
    if len(names) > 2:
        raise click.UsageError("one pipeline at a time: streamline run [PROJECT] PIPELINE")
    if len(names) == 2:
        app.project_dir = names[0]
    return names[-1]


def read_variables(texts: tuple[str, ...]) -> dict[str, Any]:
    """Variables from JSON objects and `key=value`; later ones win. A value that is JSON keeps its type."""
    import json

    found: dict[str, Any] = {}
    for text in texts:
        if text.lstrip().startswith("{"):
            try:
                given = json.loads(text)
            except ValueError as error:
                raise ConfigError(f"--runtime-vars is no JSON: {error}", hint="or give them as key=value") from None
            found.update(given)
            continue
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--runtime-vars {text}: a JSON object or key=value is needed")
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value
    return found


def _show(app: App, result: Result, *, as_json: bool) -> None:
    if as_json:
        errors = {name: app.mask(str(error)) for name, error in result.errors.items()}
        print_json({"run_id": result.run_id, "status": result.status, **result.summary, "errors": errors})
    else:
        tables = result.summary["tables"]
        for stream in result.summary["streams"]:
            bad = f", {count(stream['quarantined'], 'record')} quarantined" if stream["quarantined"] else ""
            say(f"{stream['block']}  {stream['stream']}: {count(stream['read'], 'record')} read{bad}")
        for table in tables:
            say(f"{table['block']}  {table['table']}: {count(table['written'], 'record')} written")
    for warning in result.warnings:
        say(f"Warning: {warning}", err=True)
    for name, error in result.errors.items():
        words = str(error) if isinstance(error, StreamlineError) else f"unexpected {type(error).__name__}: {error}"
        say(app.mask(f"Error: {name}: {words}"), err=True)
        if app.debug:
            import traceback

            say(app.mask("".join(traceback.format_exception(error))), err=True)
    if result.errors:
        say(f"The whole log: {result.log}", err=True)
    if not as_json:
        records, bad = result.summary["records"], result.summary["quarantined"]
        words = "interrupted" if result.status == "cancelled" else result.status
        say(f"{words}: {count(records, 'record')} read, {bad:,} quarantined")
