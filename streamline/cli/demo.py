"""`streamline demo`: create and run a demo project."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamline.cli.demo_output import print_commands, say_title
from streamline.cli.output import print_table
from streamline.errors import PipelineFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

PIPELINE = "shop"
WAREHOUSE = "warehouse.duckdb"


@click.command("demo")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--streaming", is_flag=True, help="Show a streaming pipeline instead; no Kafka needs to be installed.")
def command(folder: Path | None, streaming: bool) -> None:
    """Create a project with a shop database, sync it to DuckDB, change the shop and sync again.

    DIR must be empty or not exist. The default is ./streamline-demo, or ./streamline-streaming-demo.
    """
    if streaming:
        from streamline.cli.demo_streaming import show

        show(folder or Path("streamline-streaming-demo"))
        return
    folder = folder or Path("streamline-demo")
    from streamline.demo import shop, warehouse
    from streamline.demo.project_folder import make_project

    make_project(folder)
    say_title(f"Created a project in {folder}")
    purposes = {
        "shop.db": "the shop's database: customers, orders, order lines, products",
        "pipelines/shop/metadata.yaml": "the pipeline: source, transformer, destination",
        "data_loaders/load_shop.yaml": "the source: the tables, and how each is replicated",
        "transformers/prepare.py": "the transformer: changes rows before they are written",
        "data_exporters/export_warehouse.yaml": "the destination: a DuckDB file",
    }
    print_table(["FILE", "DESCRIPTION"], purposes.items())

    say_title("The first sync copies everything")
    _sync(folder)
    _show_moved(folder, warehouse.shop_counts(folder / shop.DATABASE))

    say_title("A day passes in the shop")
    changes = shop.live(folder / shop.DATABASE)
    click.echo("Added, changed or deleted: " + ", ".join(f"{number} {table}" for table, number in changes.items()))

    say_title("The second sync copies the changes (and replaces the products table)")
    _sync(folder)
    _show_moved(folder, warehouse.shop_counts(folder / shop.DATABASE))

    say_title("The data in the warehouse")
    sales = warehouse.query(folder / WAREHOUSE, warehouse.SALES)
    print_table([name.upper() for name in sales.columns], sales.rows)
    customers = warehouse.query(folder / WAREHOUSE, warehouse.CUSTOMERS)
    print_table([name.upper() for name in customers.columns], customers.rows)

    say_title("Next steps")
    _print_next(folder)


def _sync(folder: Path) -> None:
    """Run the pipeline as a user would, in a process of its own.

    Raises:
        PipelineFailed: the run failed.
    """
    click.echo(f"$ streamline run {PIPELINE}")
    sys.stdout.flush()
    process = subprocess.run([sys.executable, "-P", "-m", "streamline", "run", PIPELINE], cwd=folder, check=False)
    if process.returncode:
        raise PipelineFailed(
            f"the demo's pipeline failed with exit code {process.returncode}",
            where=str(folder),
            hint=f"show its log: cd {shlex.quote(str(folder))} && streamline runs logs",
        )


def _show_moved(folder: Path, counts: Mapping[str, int]) -> None:
    from streamline.demo.warehouse import warehouse_counts

    moved = _moved(folder)
    stored = warehouse_counts(folder / WAREHOUSE)
    rows = [[name, counts[name], moved.get(name, 0), stored[name]] for name in counts]
    print_table(["TABLE", "ROWS IN THE SHOP", "COPIED NOW", "ROWS IN THE WAREHOUSE"], rows)


def _moved(folder: Path) -> dict[str, int]:
    """Return the number of records that the last run read, by stream."""
    from streamline.project.project import Project
    from streamline.state import project_store

    with project_store(Project.open(folder)) as store:
        (run,) = store.runs(PIPELINE, limit=1)
    return {stream["stream"]: stream["read"] for stream in run.summary.get("streams", [])}


def _print_next(folder: Path) -> None:
    commands = {
        f"streamline explain {PIPELINE}": "show the plan and its delivery guarantees",
        f"streamline state list {PIPELINE}": "show the bookmark of each stream",
        "streamline runs show": "show the last run",
        f"streamline sample {PIPELINE} orders": "show records of a stream",
        f"streamline streams list {PIPELINE}": "show how each stream is read and written",
        f"python shop.py && streamline run {PIPELINE}": "change the shop and sync again",
        f"streamline run {PIPELINE} --full-refresh --stream orders": "read a stream again from the beginning",
    }
    print_commands(folder, commands)
