"""`streamline check`: whether a pipeline would run, without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamline.cli.app import App, pass_app
from streamline.cli.output import has_colour, json_option, print_json

if TYPE_CHECKING:
    from streamline.execution.checked import Checked, Report
    from streamline.pipeline.model import PipelineModel

COLOURS = {True: "green", False: "red"}


@click.command("check")
@click.argument("pipeline")
@click.option(
    "--timeout",
    default=300.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that a tap or target may take to answer.",
)
@click.option(
    "--runtime-vars",
    multiple=True,
    metavar="JSON|KEY=VALUE",
    help="Variables that a run of a batch pipeline will be given; may be given several times.",
)
@json_option
@pass_app
def command(app: App, pipeline: str, timeout: float, runtime_vars: tuple[str, ...], as_json: bool) -> int:
    """Validate PIPELINE, render all that it says, and connect to what it names.

    Of an integration pipeline each source is asked for its streams (one without discovery is started and stopped
    after its first message); each destination is started with its config and given nothing to write. Of a batch
    pipeline each block's file is looked at, its imports are looked for, and the databases of its SQL blocks are asked
    for an answer. No block runs; no record and no position moves.

    Exit codes: 0 all is well; 1 something can't be connected to; 2 something is wrong with the configuration.
    """
    from streamline.cli.blocks import load_model
    from streamline.pipeline.model import BATCH_TYPES

    model = load_model(app, pipeline)
    for warning in (*app.project.warnings, *model.warnings):
        click.echo(f"Warning: {warning}", err=True)

    def report(checked: Checked) -> None:
        if not as_json:
            _show(checked)

    if model.type in BATCH_TYPES:
        from streamline.cli.run import read_variables
        from streamline.execution.batch.check import check_batch

        checked = check_batch(
            app.project,
            model,
            report,
            lambda text: click.echo(text, err=True),
            read_variables(runtime_vars),
        )
    else:
        checked = _integration(app, model, report, timeout)
    problems = [each.problem for each in checked if each.problem is not None]
    if as_json:
        import msgspec

        items = [{"ok": each.ok, **msgspec.to_builtins(each)} for each in checked]
        print_json({"pipeline": model.uuid, "ok": not problems, "checks": items})
    else:
        click.echo(f"{len(checked) - len(problems)} of {len(checked)} ok")
    if not problems:
        return 0
    return 2 if "configuration" in problems else 1


def _integration(app: App, model: PipelineModel, report: Report, timeout: float) -> list[Checked]:
    import anyio

    from streamline.blocks.connector.source import private_folder
    from streamline.execution.integration.check import check_pipeline
    from streamline.execution.run import RunOptions, open_run

    async def run() -> list[Checked]:
        return await check_pipeline(context, model, report, timeout=timeout)

    with (
        app.store() as store,
        private_folder(app.project, "check") as folder,
        open_run(app.project, store, model.uuid, folder.name, RunOptions(debug=app.debug), run_dir=folder) as context,
    ):
        holder = store.lease_holder(model.uuid)
        if holder is not None:
            click.echo(f"Warning: run {holder.run_id} of it goes on; what it has locked can't be opened now", err=True)
        return anyio.run(run)


def _show(checked: Checked) -> None:
    import sys

    word = "ok" if checked.ok else "failed"
    label = word.ljust(6)
    if has_colour(sys.stdout):
        label = click.style(label, fg=COLOURS[checked.ok], bold=True)
    name = " ".join([checked.what, *([checked.block] if checked.block else [])])
    plugin = f" ({checked.plugin})" if checked.plugin else ""
    place = f"{checked.where}: " if checked.where and checked.where not in (checked.plugin, checked.block) else ""
    click.echo(f"{label}  {name}{plugin}: {place}{checked.detail}")
    if checked.hint:
        click.echo("\n".join(f"          {line}" for line in checked.hint.splitlines()))
