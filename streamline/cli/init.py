"""`streamline init`: create a project with example pipelines."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--empty", is_flag=True, help="Without the example pipelines.")
def command(folder: Path, empty: bool) -> None:
    """Create a project in DIR with example pipelines that can run immediately. Overwrites no files."""
    from streamline.project.starter_project import PIPELINES, make_project

    files = make_project(folder, examples=not empty)
    click.echo(f"Created a project in {folder}:")
    for path in files:
        if path.name not in ("__init__.py", "requirements.txt"):
            click.echo(f"  {path}")
    click.echo("Next:")
    if folder.absolute() != Path.cwd():
        click.echo(f"  cd {shlex.quote(str(folder))}")
    if empty:
        click.echo("  streamline create NAME")
        return
    width = max(map(len, PIPELINES))
    for name, what in PIPELINES.items():
        click.echo(f"  streamline run {name:<{width}}  # {what}")
