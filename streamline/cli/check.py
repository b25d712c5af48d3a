"""`streamline check`: whether a pipeline would run, without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamline.cli.app import App, pass_app
from streamline.cli.output import has_colour, json_option, masked_values, print_json

if TYPE_CHECKING:
    from streamline.execution.checklist import Checked

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
    metavar="JSON|@FILE|KEY=VALUE",
    help="Variables that a run of a batch pipeline will be given; may be given several times.",
)
@json_option
@pass_app
def command(app: App, pipeline: str, timeout: float, runtime_vars: tuple[str, ...], as_json: bool) -> int:
    """Validate PIPELINE, render its templates, and connect to what it names.

    Of an integration pipeline each source is asked for its streams (one without discovery is started and stopped
    after its first message); each destination is started with its config and given nothing to write. Of a batch
    pipeline each block's file is looked at, its imports are looked for, the databases of its SQL blocks are asked
    for an answer, and its sources and destinations are connected to as above, with the outputs that upstream blocks
    stored last. Of a streaming pipeline each transformer's file is looked at, and each source and sink is connected
    to. No block runs (of sources and destinations in Python only the functions that say what they read or
    write); no record and no position moves.

    Exit codes: 0 all is well; 1 something can't be connected to; 2 something is wrong with the configuration.
    """
    from streamline.cli.run import read_variables
    from streamline.execution.checklist import Checklist
    from streamline.execution.engine import engine_of
    from streamline.execution.run import RunOptions

    model = app.load_pipeline(pipeline)
    checklist = Checklist(
        app.project.secrets.masker,
        report=(lambda checked: None) if as_json else _show,
        notify=lambda text: click.echo(text, err=True),
        timeout=timeout,
    )
    options = RunOptions(variables=read_variables(runtime_vars), debug=app.debug)
    engine_of(model).check(app.project, model, options, checklist)
    results = checklist.results
    problems = [each.problem for each in results if each.problem is not None]
    if as_json:
        import msgspec

        items = [{"ok": each.ok, **msgspec.to_builtins(each)} for each in results]
        print_json({"pipeline": model.uuid, "ok": not problems, "checks": masked_values(items)})
    else:
        click.echo(f"{len(results) - len(problems)} of {len(results)} ok")
    if not problems:
        return 0
    return 2 if "configuration" in problems else 1


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
