"""The `streamline` command: finds the command, and turns errors into messages and exit codes.

A command's module is imported when the command is used, and not for `streamline --help`.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from streamline.cli import collector
from streamline.cli.app import App
from streamline.cli.terminal import guard_streams
from streamline.errors import DiskFull, StreamlineError, is_disk_full

INTERRUPTED = 130


class Lazy(NamedTuple):
    """A command's import path, and its line in the list of commands."""

    target: str
    help: str


COMMANDS = {
    "init": Lazy("streamline.cli.init:command", "Make a project that runs at once."),
    "demo": Lazy("streamline.cli.demo:command", "Make a project with a shop database, sync it, and show what moved."),
    "create": Lazy("streamline.cli.create:command", "Make a pipeline."),
    "add": Lazy("streamline.cli.add:command", "Add a source, a destination or a block to a pipeline."),
    "rename": Lazy("streamline.cli.edit_blocks:rename", "Rename a block; its positions and outputs go with it."),
    "remove": Lazy("streamline.cli.edit_blocks:remove", "Remove a block from a pipeline."),
    "list": Lazy("streamline.cli.list_pipelines:command", "List the pipelines, each with its last run."),
    "check": Lazy("streamline.cli.check:command", "Validate a pipeline and connect to what it names."),
    "explain": Lazy(
        "streamline.cli.explain:command", "Show the plan: processes, parallelism, delivery grades, and why."
    ),
    "graph": Lazy("streamline.cli.graph:command", "Draw the blocks of a pipeline."),
    "run": Lazy("streamline.cli.run:command", "Run a pipeline."),
    "output": Lazy("streamline.cli.block_output:command", "Show what a block returned when it last completed."),
    "test": Lazy("streamline.cli.test:command", "Run the tests of a pipeline's blocks on their stored outputs."),
    "discover": Lazy("streamline.cli.discover:command", "Show the streams that a source has."),
    "sample": Lazy("streamline.cli.sample:command", "Show some records of a stream."),
    "streams": Lazy("streamline.cli.streams:command", "Show and change the settings of streams."),
    "state": Lazy("streamline.cli.state:command", "Show and change the positions that a pipeline continues from."),
    "dead-letters": Lazy("streamline.cli.dead_letters:command", "Look after records that were refused on the way."),
    "runs": Lazy("streamline.cli.runs:command", "Show what ran, how it went, and its logs."),
    "clean": Lazy("streamline.cli.clean:command", "Delete the logs and files of old runs."),
    "plugin": Lazy("streamline.cli.plugin:command", "Look after the taps and targets of a project."),
}


class LazyGroup(click.Group):
    """A group that imports its commands on use. Commands of missing modules are not listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, lazy in COMMANDS.items() if _exists(lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = COMMANDS.get(cmd_name)
        if lazy is None or not _exists(lazy):
            return None
        from importlib import import_module

        module, _, attribute = lazy.target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command), lazy.target
        accept_global_options(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from streamline.project.suggest import suggestion

            hint = suggestion(args[0], self.list_commands(ctx), what="commands")
            raise click.UsageError(f"No such command '{args[0]}'; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        app = App()
        app.owns_process = args is None
        if app.owns_process:
            collector.while_starting()
        guard_streams()
        try:
            # A command that wants another exit code than 0 calls ctx.exit(code) or returns it.
            code = super().main(args, prog_name or "streamline", complete_var, standalone_mode=False, obj=app, **extra)
            if (lost := _lost_output()) is not None and not code:
                raise lost
        except SystemExit:
            raise
        except BaseException as error:  # the one place where everything ends up
            code = report(error, app)
        finally:
            app.end_children()
            if app.owns_process:
                collector.when_ending()
        sys.exit(code if type(code) is int else 0)


_MACHINE = {
    errno.EACCES: "check who may read and write there, and as whom this runs",
    errno.EPERM: "check who may read and write there, and as whom this runs",
    errno.EROFS: "it is mounted read-only; a project has to be in a folder that can be written",
    errno.ENOSPC: "make space there",
    errno.EDQUOT: "make space there",
    errno.EEXIST: "move what is there out of the way",
    errno.ENOTDIR: "a file stands where a folder is needed: move it out of the way",
}
"""Hints for errors of the machine, which are no bugs."""


def report(error: BaseException, app: App) -> int:
    """Print an error on stderr, with `--json` also as JSON on stdout; return the exit code."""
    if isinstance(error, click.Abort | KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if app.debug:
        import traceback

        click.echo(app.mask("".join(traceback.format_exception(error))), err=True, nl=False)
    if is_disk_full(error) and error.filename is not None:
        error = DiskFull(error.filename)
    if isinstance(error, StreamlineError):
        _say_error(app.mask(str(error)))
        if app.as_json:
            from streamline.cli.output import failure_json, print_json
            from streamline.execution.events import failure_from

            print_json({"error": failure_json(failure_from(error), app.mask)})
        return error.exit_code
    if isinstance(error, OSError) and error.errno in _MACHINE:
        # Files are opened by name: what has none is the output.
        place = app.mask(str(error.filename)) if error.filename is not None else "the output cannot be written"
        _say_error(f"{place}: {error.strerror}\n  {_MACHINE[error.errno]}")
        return 1
    _say_error(
        f"unexpected {type(error).__name__}: {app.mask(str(error))}\n"
        "  This is a bug in Streamline, or something on this machine that it was not ready for.\n"
        "  Run the command again with --debug for the traceback, and report it with that."
    )
    return 1


def _lost_output() -> OSError | None:
    output = sys.modules.get("streamline.cli.output")  # imported by commands that print
    return None if output is None else output.lost_output()


def _say_error(text: str) -> None:
    from streamline.cli.output import has_colour

    label = click.style("Error:", fg="red", bold=True) if has_colour(sys.stderr) else "Error:"
    click.echo(f"{label} {text}", err=True)


def accept_global_options(command: click.Command) -> None:
    """Accept `--project` and `--debug` after the name of a command, too, and of its subcommands."""
    known = {name for parameter in command.params for name in parameter.opts}
    command.params.extend(option for option in _global_options() if not known.intersection(option.opts))
    if isinstance(command, click.Group):
        for below in command.commands.values():
            accept_global_options(below)


def _global_options() -> list[click.Option]:
    def project(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.ensure_object(App).project_dir = value

    def debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(App).debug = True

    return [
        click.Option(
            ["--project"],
            metavar="DIR",
            expose_value=False,
            callback=project,
            help="The project's folder; by default the one that the current folder lies in.",
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=debug, help="Show the traceback of an error."
        ),
    ]


def _exists(lazy: Lazy) -> bool:
    from importlib.util import find_spec

    return find_spec(lazy.target.partition(":")[0]) is not None


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from streamline.version import __version__

        click.echo(f"streamline {__version__}")
        ctx.exit()


main = LazyGroup(
    "streamline",
    help="Run data pipelines built from Singer taps and targets, Python, SQL, R and dbt blocks, and streams.",
    epilog="Exit codes: 0 done, 1 the pipeline failed, 2 wrong use or configuration, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        *_global_options(),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit.",
        ),
    ],
)
