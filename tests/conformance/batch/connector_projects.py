"""Projects with source and destination blocks in batch pipelines."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

import duckdb
import pytest

from tests.support.batch import BatchProject
from tests.support.project import fake

INCREMENTAL = "orders: {replication_method: INCREMENTAL, bookmark_properties: [day]}"
CHANGE = """
import pandas as pd
@transformer
def change(data, **kwargs):
    return pd.DataFrame(data['rows'], columns=data['columns'])
"""


@pytest.fixture
def shop(project: BatchProject) -> BatchProject:
    """A project with a SQLite file of 25 orders, five of each day."""
    insert(project, ((number, f"2026-01-{1 + number // 5:02d}") for number in range(25)))
    return project


def insert(project: BatchProject, rows: Iterable[tuple[int, str | None]]) -> None:
    """Add orders to shop.db."""
    with sqlite3.connect(project.root / "shop.db") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, day DATE)")
        connection.executemany("INSERT INTO orders VALUES (?, ?)", rows)
    connection.close()


def source(load: str = INCREMENTAL, path: str = "shop.db") -> str:
    """Return the file of a source block that reads these streams."""
    return f"source: sqlite\nconfig: {{path: {json.dumps(path)}}}\nstreams:\n  {load}\n"


def destination(stream: str, path: str = "out.duckdb", *, append: bool = False) -> str:
    """Return the file of a destination block that writes a stream to the table `orders`."""
    settings = "load_method: append" if append else "unique_constraints: [id]"
    return (
        f"destination: duckdb\nconfig: {{path: {json.dumps(path)}}}\n"
        f"streams:\n  {stream}: {{destination_table: orders, {settings}}}\n"
    )


def chain(project: BatchProject, *, load: str = INCREMENTAL, change: str = CHANGE, append: bool = False) -> None:
    """Add a source, a transformer and a destination."""
    project.block("load", source(load), type="data_loader", language="yaml")
    project.block("change", change)
    export = destination('"*"', append=append)
    project.block("export", export, type="data_exporter", language="yaml")


def pipe(project: BatchProject, *, path: str = "out.duckdb", append: bool = False) -> None:
    """Add a source and a destination that writes what it reads."""
    project.block("load", source(), type="data_loader", language="yaml")
    export = destination("orders", path, append=append)
    project.block("export", export, type="data_exporter", language="yaml", upstream=["load"])


def items(project: BatchProject, *keys: str, path: str = "shop.db") -> None:
    """Add a dynamic block with items of these keys, and a source with a child for each."""
    listed = [{"key": key} for key in keys]
    code = f"@data_loader\ndef load():\n    return [{listed!r}]\n"
    project.block("items", code, type="data_loader", configuration={"dynamic": True})
    project.block("load", source(path=path), type="data_loader", language="yaml", upstream=["items"])


def slow(project: BatchProject, *, piped: bool, tap: str = "rows", **config: Any) -> None:
    """Add a source that waits for a file after its first page, and a destination."""
    plugins = {f"tap-{tap}": fake(f"tap_{tap}"), "target-keyed": fake("target_keyed")}
    project.settings["plugins"] = plugins
    project.write("streamline.yaml", json.dumps({"name": "shop", "plugins": plugins}))
    settings = {"numbers": {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}}
    streams = {"numbers": {"properties": {"id": "integer"}, "replication_key": "id", "rows": 20}}
    source = {"source": f"tap-{tap}", "config": {"streams": streams, "wait_for": "go", **config}, "streams": settings}
    project.block("load", json.dumps(source), type="data_loader", language="yaml")
    if not piped:
        project.block("change", "@transformer\ndef change(data):\n    return data\n")
    target = json.dumps({"destination": "target-keyed", "config": {"path": "out.db", "log": "log.jsonl"}})
    project.block("export", target, type="data_exporter", language="yaml")


def rows(
    project: BatchProject, query: str = "SELECT id FROM orders ORDER BY id", file: str = "out.duckdb"
) -> list[Any]:
    """Query what was written to a DuckDB file."""
    with duckdb.connect(str(project.root / file), read_only=True) as connection:
        return connection.execute(query).fetchall()


def saved(project: BatchProject) -> dict[str, Any]:
    """Return the saved bookmarks of the pipeline by block and stream."""
    listed = json.loads(project.command("state", "list", "p", "--json").expect(0).out)
    return {(each["block"], each["stream"]): each for each in listed}
