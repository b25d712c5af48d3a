"""Source and destination blocks in Python, in whole runs: what arrives, and what is refused before anything starts."""

from __future__ import annotations

import sqlite3
from typing import Any

import duckdb
import pytest

from tests.support.batch import BatchProject, failed

CREDENTIALS = """
@data_loader
def credentials(*args, **kwargs):
    return {'path': 'shop.db', 'password': 'hunter2x'}
"""
SOURCE = """
@data_integration_source
def source(*args, **kwargs):
    return 'sqlite'

@data_integration_config
def config(credentials, *args, **kwargs):
    return {'path': credentials['path']}
"""
DESTINATION = """
@data_integration_destination
def destination(*args, **kwargs):
    return 'duckdb'

@data_integration_config
def config(*args, **kwargs):
    return {'path': 'out.duckdb'}
"""


@pytest.fixture
def shop(project: BatchProject) -> BatchProject:
    """A project with a SQLite file of two tables, and a block that knows where it is."""
    with sqlite3.connect(project.root / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INTEGER, day DATE)")
        connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", [(n, n % 2, "2026-01-02") for n in range(10)])
        connection.executemany("INSERT INTO users VALUES (?, ?)", [(0, "ada"), (1, "bob")])
    connection.close()
    project.block("credentials", CREDENTIALS, type="data_loader")
    return project


def rows(project: BatchProject, query: str) -> list[Any]:
    with duckdb.connect(str(project.root / "out.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


CHOOSE = """
@data_integration_selected_streams(discover_streams=True)
def selected_streams(*args, **kwargs):
    return [name for name in kwargs['selected_streams'] if name != 'users']

@data_integration_catalog
async def catalog(*args, **kwargs):
    catalog = kwargs['discover_func']()
    orders = next(each for each in catalog['streams'] if each['stream'] in kwargs['selected_streams'])
    orders.update(replication_method='INCREMENTAL', bookmark_properties=['id'])
    return catalog
"""
CHANGE = """
@transformer
def change(data, *args):
    return [dict(zip(data['columns'], row)) for row in data['rows']]
"""
TABLE = """
@data_integration_catalog
def catalog(*args, **kwargs):
    (data, catalog), *_ = args
    for stream in catalog['streams']:
        stream.update(destination_table='copied', unique_constraints=['id'])
    return catalog
"""


def chain(project: BatchProject, **credentials: Any) -> None:
    project.block("load", SOURCE + CHOOSE, type="data_loader", upstream=["credentials"])
    project.block("change", CHANGE)
    inputs = {"change": {"catalog": True}, "credentials": credentials}
    project.block(
        "export",
        DESTINATION + TABLE,
        type="data_exporter",
        upstream=["change", "credentials"],
        configuration={"data_integration": {"inputs": inputs}},
    )


def test_streams_settings_and_tables_from_functions(shop: BatchProject) -> None:
    chain(shop, input_only=True)
    shop.run().expect(0)
    assert rows(shop, "SELECT id FROM copied ORDER BY id") == [(number,) for number in range(10)]
    output = shop.output("load")
    assert output["stream"]["bookmark_properties"] == ["id"]
    # The next run has no new rows, and a list of no rows has no columns that could be exported.
    shop.run().expect(0)
    assert (shop.output("load")["rows"], shop.output("change")) == ([], [])
    assert rows(shop, "SELECT count(*), count(DISTINCT id) FROM copied") == [(10, 10)]


def test_an_output_that_is_no_stream_is_told_with_what_to_do(shop: BatchProject) -> None:
    chain(shop)
    failed(shop.run(), "credentials.*input_only")
    assert shop.statuses()["export"] == "failed"
    assert not (shop.root / "out.duckdb").exists()


def test_a_destination_that_does_not_read_its_arguments_is_fed_as_the_source_reads(shop: BatchProject) -> None:
    shop.block("load", "source: sqlite\nconfig: {path: shop.db}\n", type="data_loader", language="yaml", upstream=[])
    shop.block("export", DESTINATION, type="data_exporter", upstream=["load"])
    shop.run().expect(0)
    assert rows(shop, "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM users)") == [(10, 2)]
    assert not (shop.root / ".streamline/data/p/load").exists()


def test_outputs_of_blocks_in_the_config_of_yaml(shop: BatchProject) -> None:
    path = "|\n    {{ block_output('credentials', parse=lambda data, variables: data['path']) }}"
    load = f"source: sqlite\nconfig:\n  path: {path}\nstreams: [users]\n"
    shop.block("load", load, type="data_loader", language="yaml", upstream=["credentials"])
    shop.run().expect(0)
    assert shop.output("load")["rows"] == [[0, "ada"], [1, "bob"]]


def test_a_password_in_a_config_is_shown_nowhere(shop: BatchProject) -> None:
    source = SOURCE.replace("{'path': credentials['path']}", "credentials")  # which the tap refuses
    shop.block("load", source, type="data_loader", upstream=["credentials"])
    completed = failed(shop.run(), "password")
    assert "hunter2x" not in completed.text
    assert all("hunter2x" not in log.read_text() for log in shop.root.rglob("run.log"))


@pytest.mark.parametrize(
    ("source", "destination", "place"),
    [
        (SOURCE.replace("'sqlite'", "'sqlit'"), DESTINATION, "data_loaders/load.py:4"),
        (SOURCE, DESTINATION.replace("'duckdb'", "'duckd'"), "data_exporters/export.py:4"),
        (SOURCE.partition("\n\n")[0], DESTINATION, "data_loaders/load.py"),
        (SOURCE, DESTINATION.replace("_config", "_config(discover=True)"), "data_exporters/export.py:6"),
        (SOURCE, SOURCE, "data_exporters/export.py:2"),
    ],
)
def test_what_a_file_shows_to_be_wrong_starts_nothing(
    shop: BatchProject, source: str, destination: str, place: str
) -> None:
    shop.block("load", source, type="data_loader", upstream=["credentials"])
    shop.block("export", destination, type="data_exporter")
    for command in ("run", "check"):
        completed = shop.command(command, "p")
        assert completed.code == 2, completed
        assert place in completed.text
    assert not (shop.root / ".streamline/data/p").exists()


def test_a_stream_that_the_source_does_not_have(shop: BatchProject) -> None:
    text = SOURCE + "\n@data_integration_selected_streams\ndef selected_streams(*args):\n    return ['order']\n"
    shop.block("load", text, type="data_loader", upstream=["credentials"])
    failed(shop.run(), r"data_loaders/load\.py:10.*order")
    assert not (shop.root / ".streamline/data/p/load").exists()


def test_a_destination_exports_the_streams_that_its_function_names(shop: BatchProject) -> None:
    shop.block("load", SOURCE, type="data_loader", upstream=["credentials"])
    names = "\n@data_integration_selected_streams\ndef selected_streams(*args):\n    return args and ['{name}']\n"
    shop.block("export", DESTINATION + names.format(name="users"), type="data_exporter")
    shop.run().expect(0)
    assert rows(shop, "SELECT table_name FROM information_schema.tables WHERE table_name IN ('users', 'orders')") == [
        ("users",)
    ]
    shop.write("data_exporters/export.py", DESTINATION + names.format(name="user"))
    failed(shop.run(), r"data_exporters/export\.py:10.*user.*users")
