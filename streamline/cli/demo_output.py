"""What the demos print alike."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from streamline.cli.output import cell


def say_title(title: str) -> None:
    """Print a heading."""
    click.echo()
    click.secho(title, bold=True)


def print_commands(folder: Path, commands: Mapping[str, str]) -> None:
    """Print commands and what they do, below those that make them work."""
    # `.venv/bin/streamline demo` works without an active environment; the commands below would not.
    activate = Path(sys.prefix) / "bin" / "activate"
    before = {}
    if shutil.which("streamline") is None and activate.is_file():
        before[f". {shlex.quote(str(activate))}"] = "activate the environment, once per shell"
    lines = {**before, f"cd {shlex.quote(str(folder))}": "", **commands}
    width = max(map(len, lines))
    for line, what in lines.items():
        click.echo(f"  {line.ljust(width)}  {cell(what) if what else ''}".rstrip())
