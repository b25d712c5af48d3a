"""`streamline demo`: a project that runs at once, and what it moves."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamline.cli.output import cell, print_table
from streamline.errors import PipelineFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

PIPELINE = "shop"
WAREHOUSE = "warehouse.duckdb"


@click.command("demo")
@click.argument("folder", metavar="[DIR]", default="streamline-demo", type=click.Path(path_type=Path))
@click.pass_context
def command(ctx: click.Context, folder: Path) -> None:
    """Make a project with a shop database, sync it into DuckDB, change the shop, sync again.

    DIR is made; it must not be there yet, or be empty. By default it is ./streamline-demo.
    """
    from streamline.demo import shop, warehouse
    from streamline.demo.project_folder import make_project

    make_project(folder)
    _say(f"A project in {folder}")
    purposes = {
        "shop.db": "the shop's database: customers, orders, order lines, products",
        "pipelines/shop/metadata.yaml": "the pipeline: source, transformer, destination",
        "data_loaders/load_shop.yaml": "the source: which tables, and how each is read",
        "transformers/prepare.py": "the transformer: changes rows on their way",
        "data_exporters/export_warehouse.yaml": "the destination: a DuckDB file",
    }
    print_table(["FILE", "WHAT IT IS"], purposes.items())

    _say("The first sync moves everything")
    _sync(folder)
    _show_moved(folder, warehouse.shop_counts(folder / shop.DATABASE))

    _say("A day passes in the shop")
    changes = shop.live(folder / shop.DATABASE)
    click.echo("Added, changed or deleted: " + ", ".join(f"{number} {table}" for table, number in changes.items()))

    _say("The second sync moves what changed (and the products, which are replaced whole)")
    _sync(folder)
    _show_moved(folder, warehouse.shop_counts(folder / shop.DATABASE))

    _say("What the warehouse now holds")
    sales = warehouse.query(folder / WAREHOUSE, warehouse.SALES)
    print_table([name.upper() for name in sales.columns], sales.rows)
    customers = warehouse.query(
        folder / WAREHOUSE, "select id, name, email, country from customers order by id limit 3"
    )
    print_table([name.upper() for name in customers.columns], customers.rows)

    _say("Look around")
    _print_commands(folder)


def _say(title: str) -> None:
    click.echo()
    click.secho(title, bold=True)


def _sync(folder: Path) -> None:
    """Run the pipeline as a user would, its output on ours.

    Raises:
        PipelineFailed: it did not end well.
    """
    click.echo(f"$ streamline run {PIPELINE}")
    sys.stdout.flush()
    ended = subprocess.run([sys.executable, "-m", "streamline", "run", PIPELINE], cwd=folder, check=False)
    if ended.returncode:
        raise PipelineFailed(
            f"the demo's pipeline ended with exit code {ended.returncode}",
            where=str(folder),
            hint=f"look at its logs: cd {shlex.quote(str(folder))} && streamline runs logs",
        )


def _show_moved(folder: Path, counts: Mapping[str, int]) -> None:
    from streamline.demo.warehouse import warehouse_counts

    moved = _moved(folder)
    stored = warehouse_counts(folder / WAREHOUSE)
    rows = [[name, counts[name], moved.get(name, 0), stored[name]] for name in counts]
    print_table(["TABLE", "ROWS IN THE SHOP", "MOVED NOW", "ROWS IN THE WAREHOUSE"], rows)


def _moved(folder: Path) -> dict[str, int]:
    """Records that the newest run read, by stream."""
    from streamline.project.project import Project
    from streamline.state import open_store

    project = Project.open(folder)
    store = open_store(project.state_url, project.root)
    try:
        (run,) = store.runs(PIPELINE, limit=1)
    finally:
        store.close()
    return {stream["stream"]: stream["read"] for stream in run.summary.get("streams", [])}


def _print_commands(folder: Path) -> None:
    # As `.venv/bin/streamline` the demo runs without its environment being active; the commands below would not.
    activate = Path(sys.prefix) / "bin" / "activate"
    commands = {}
    if shutil.which("streamline") is None and activate.is_file():
        commands[f". {shlex.quote(str(activate))}"] = "once in each shell, so that it finds `streamline`"
    commands |= {
        f"cd {shlex.quote(str(folder))}": "",
        f"streamline explain {PIPELINE}": "what runs, and how safely",
        f"streamline state list {PIPELINE}": "where each stream stands",
        "streamline runs show": "what the last run did",
        f"streamline sample {PIPELINE} orders": "some records of a stream",
        f"streamline streams list {PIPELINE}": "how each stream is read and written",
        f"python shop.py && streamline run {PIPELINE}": "another day, another sync",
        f"streamline run {PIPELINE} --full-refresh --stream orders": "one stream once more from the beginning",
    }
    width = max(map(len, commands))
    for line, what in commands.items():
        click.echo(f"  {line.ljust(width)}  {cell(what) if what else ''}".rstrip())
