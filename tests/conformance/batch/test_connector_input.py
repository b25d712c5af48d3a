"""Wrong input of source and destination blocks is refused before any block runs."""

from __future__ import annotations

import json
import re

import pytest

from tests.conformance.batch.connector_projects import chain, destination, saved, shop, source
from tests.support.batch import BatchProject, failed
from tests.support.project import fake

__all__ = ["shop"]

LOAD, EXPORT, CATALOG = "data_loaders/load.yaml", "data_exporters/export.yaml", "pipelines/p/load/catalog.json"


@pytest.mark.parametrize(
    ("file", "text", "where"),
    [
        (LOAD, "source: nosuch\n", f"{LOAD}:1"),
        (LOAD, "source: sqlite\nconfig: {pth: shop.db}\n", LOAD),
        (LOAD, source("nosuch: {}"), f"{LOAD}:4"),
        (LOAD, source("orders: {bookmark_properties: [nosuch]}"), f"{LOAD}:4"),
        (CATALOG, '{"no": "streams"}', CATALOG),
        (EXPORT, "destination: duckdb\nconfig: {pth: out.duckdb}\n", EXPORT),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(shop: BatchProject, file: str, text: str, where: str) -> None:
    chain(shop, change="@transformer\ndef change(data):\n    open('ran', 'w')\n")
    shop.write(file, text)
    shop.run().expect(2, re.escape(where))
    assert not (shop.root / "ran").exists()
    assert saved(shop) == {}


@pytest.mark.parametrize("options", [["--bookmark", "nosuch.day=2026-01-01"], ["--bookmark", "orders.nosuch=1"]])
def test_a_bookmark_that_no_source_reads_is_refused(shop: BatchProject, options: list[str]) -> None:
    chain(shop)
    shop.run(*options).expect(2)
    assert not (shop.root / "out.duckdb").exists()


def test_several_bookmark_properties_need_a_tap_that_knows_them(project: BatchProject) -> None:
    project.write("streamline.yaml", json.dumps({"name": "shop", "plugins": {"tap-rows": fake("tap_rows")}}))
    streams = {"numbers": {"properties": {"id": "integer", "at": "integer"}, "replication_key": "id", "rows": 3}}
    settings = {"numbers": {"replication_method": "INCREMENTAL", "bookmark_properties": ["at", "id"]}}
    text = json.dumps({"source": "tap-rows", "config": {"streams": streams}, "streams": settings})
    project.block("load", text, type="data_loader", language="yaml")
    project.run().expect(2)


def test_a_destination_that_needs_no_output_is_checked_first(shop: BatchProject) -> None:
    shop.block("other", "@data_loader\ndef load():\n    open('ran', 'w')\n    return []\n", type="data_loader")
    export = destination("other").replace("path:", "pth:")
    shop.block("export", export, type="data_exporter", language="yaml")
    shop.run().expect(2)
    assert not (shop.root / "ran").exists()


def test_a_source_below_another_block_is_asked_for_its_streams_when_that_has_run(shop: BatchProject) -> None:
    code = """
    import sqlite3
    @data_loader
    def make():
        with sqlite3.connect("shop.db") as db:
            db.execute("CREATE TABLE made AS SELECT * FROM orders")
        db.close()
    """
    shop.block("make", code, type="data_loader")
    shop.block("load", source("made: {}"), type="data_loader", language="yaml", upstream=["make"])
    shop.run().expect(0)
    assert len(shop.output("load")["rows"]) == 25


def test_a_tap_that_cannot_discover_fails_its_block(shop: BatchProject) -> None:
    chain(shop)
    shop.write(LOAD, source(path="gone.db"))
    failed(shop.run())
    assert shop.statuses()["load"] == "failed"
    assert saved(shop) == {}


@pytest.mark.parametrize("command", ["run", "discover"])
def test_objects_of_user_code_are_not_read_by_the_command_itself(shop: BatchProject, command: str) -> None:
    code = """
    import os
    class Path(str):
        def __setstate__(self, state):
            self.__dict__.update(state)
            with open("read.txt", "a") as file:
                print(os.getpid(), file=file)
    @data_loader
    def make():
        path = Path("shop.db")
        path.note = "kept"
        return {"path": path}
    """
    shop.block("make", code, type="data_loader")
    path = "{{ block_output('make', parse=lambda data: data['path']) }}"
    shop.block("load", source("orders: {}", path), type="data_loader", language="yaml", upstream=["make"])
    shop.run("--block-uuid", "make").expect(0)
    running = shop.start(command, "p")
    assert running.finish(30).code == 0
    assert shop.lines("read.txt")
    assert str(running.process.pid) not in shop.lines("read.txt")


@pytest.mark.parametrize("schema", [{}, {"schema": {"type": "object", "properties": {"id": {"type": "integer"}}}}])
def test_a_bookmark_column_that_a_function_made_up_is_refused(shop: BatchProject, schema: dict[str, object]) -> None:
    stream = {"tap_stream_id": "orders", "stream": "orders", "replication_method": "INCREMENTAL", **schema}
    catalog = {"streams": [{**stream, "bookmark_properties": ["dya"]}]}
    text = (
        "@data_integration_source\ndef source(*args, **kwargs):\n    return 'sqlite'\n\n\n"
        "@data_integration_config\ndef config(*args, **kwargs):\n    return {'path': 'shop.db'}\n\n\n"
        f"@data_integration_catalog\ndef catalog(*args, **kwargs):\n    return {catalog!r}\n"
    )
    shop.block("load", text, type="data_loader")
    shop.run().expect(1, r"data_loaders/load\.py:11")
