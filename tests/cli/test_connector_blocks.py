"""The commands about streams, for source and destination blocks of a batch pipeline: without a run, and after one."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from streamline.execution.batch.fanout import Instance
from streamline.execution.batch.output_layout import OutputLayout
from streamline.execution.batch.task import InputRef
from streamline.outputs.store import write_output
from streamline.project.project import Project
from tests.cli.conftest import Shop

METADATA = """\
type: python
blocks:
- {uuid: place, type: data_loader, language: python}
- {uuid: load, type: data_loader, language: yaml, upstream_blocks: [place]}
- {uuid: plain, type: data_loader, language: yaml}
- {uuid: change, type: transformer, language: python, upstream_blocks: [load]}
- {uuid: store, type: data_exporter, language: yaml, upstream_blocks: [change, plain]}
"""
FILES = {
    "pipelines/p/metadata.yaml": METADATA,
    "data_loaders/place.py": "@data_loader\ndef place(*args, **kwargs):\n    return {'path': 'shop.db'}\n",
    "data_loaders/load.yaml": """\
source: sqlite
config:
  path: "{{ block_output('place')['path'] }}"
streams:
  orders: {replication_method: INCREMENTAL, bookmark_properties: [id]}
""",
    "data_loaders/plain.yaml": "source: sqlite\nconfig: {path: shop.db}\n",
    "transformers/change.py": "@transformer\ndef change(orders, *args, **kwargs):\n    return orders\n",
    "data_exporters/store.yaml": "destination: duckdb\nconfig: {path: warehouse.duckdb}\nstreams:\n  '*': {}\n"
    "  change: {destination_table: changed}\n",
}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    for name, text in {"streamline.yaml": "name: shop\n", **FILES}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("create table orders (id integer primary key, total)")
        database.execute("create table people (id integer primary key)")
        database.executemany("insert into orders values (?, ?)", [(1, 2.5), (2, 3)])
    return Shop(tmp_path)


def stored(shop: Shop, block: str, value: object, items: int | None = None) -> None:
    """The output of a block, as a run leaves it."""
    layout = OutputLayout(Project.open(shop.root), "p", "r1")
    write_output(layout.block(block), value, run_id="r1", secrets_key=lambda: b"")
    ref = InputRef(block=block, type="data_loader", folder=str(layout.block(block)))
    layout.remember(block, [Instance(number=0, ref=ref, items=items)], child=False)


@pytest.mark.parametrize(
    "command",
    [
        ("discover", "p", "load"),
        ("sample", "p", "orders", "--block", "load"),
        ("streams", "list", "p", "--block", "load"),
        ("streams", "set", "p", "orders", "columns=id", "--block", "load"),
    ],
)
def test_what_needs_an_output_that_is_not_stored_says_what_to_run(shop: Shop, command: tuple[str, ...]) -> None:
    refused = shop.refuses("block.no_stored_output", *command)
    assert "data_loaders/load.yaml:3" in refused
    assert "streamline run p --block-uuid place" in refused


def test_outputs_that_are_stored_are_used(shop: Shop) -> None:
    stored(shop, "place", {"path": "shop.db"})
    assert [stream["stream"] for stream in shop.json("discover", "p", "load")["streams"]] == ["orders", "people"]
    assert shop.json("sample", "p", "orders", "--block", "load", "-n", "1") == [{"id": 1, "total": 2.5}]
    shop("streams", "select", "p", "people", "--block", "load")
    rows = {row["stream"]: row for row in shop.json("streams", "list", "p", "--block", "load")}
    assert {name: row["selected"] for name, row in rows.items()} == {"orders": True, "people": True}
    assert rows["orders"]["bookmark_properties"] == ["id"]
    assert "block_output('place')" in (shop.root / "data_loaders/load.yaml").read_text()


def test_a_child_of_a_dynamic_block_is_asked_with_the_first_item(shop: Shop) -> None:
    metadata = shop.root / "pipelines/p/metadata.yaml"
    dynamic = "{uuid: place, type: data_loader, language: python, configuration: {dynamic: true}}"
    metadata.write_text(METADATA.replace("{uuid: place, type: data_loader, language: python}", dynamic))
    stored(shop, "place", [[{"path": "shop.db"}, {"path": "other.db"}]], items=2)
    assert [stream["stream"] for stream in shop.json("discover", "p", "load")["streams"]] == ["orders", "people"]


def test_a_block_that_needs_no_output_is_asked_before_any_run(shop: Shop) -> None:
    assert [stream["stream"] for stream in shop.json("discover", "p", "plain")["streams"]] == ["orders", "people"]
    shop("streams", "set", "p", "people", "columns=id", "--block", "plain")
    assert "columns:" in (shop.root / "data_loaders/plain.yaml").read_text()
    assert "'peple'" in shop.refuses("stream.unknown", "streams", "select", "p", "peple", "--block", "plain")


def test_a_destination_of_a_pipeline_without_sources_lists_what_it_exports(shop: Shop) -> None:
    (shop.root / "pipelines/p/metadata.yaml").write_text("""\
type: python
blocks:
- {uuid: change, type: transformer}
- {uuid: store, type: data_exporter, language: yaml, upstream_blocks: [change]}
""")
    (row,) = shop.json("streams", "list", "p")
    assert (row["block"], row["stream"]) == ("store", "change")


def test_a_destination_lists_what_it_exports_of_sources_and_other_blocks(shop: Shop) -> None:
    stored(shop, "place", {"path": "shop.db"})
    rows = {row["stream"]: row["settings"] for row in shop.json("streams", "list", "p", "--block", "store")}
    assert list(rows) == ["orders", "people", "change"]
    assert rows["change"]["destination_table"]["value"] == "changed"
    shop("streams", "set", "p", "change", "unique_constraints=id", "--block", "store")
    assert "unique_constraints" in (shop.root / "data_exporters/store.yaml").read_text()


def test_check_connects_to_what_is_known(shop: Shop) -> None:
    found = {(each["what"], each["block"]): each for each in shop.json("check", "p")["checks"]}
    assert "place" in found["source", "load"]["detail"]
    assert found["source", "plain"]["detail"] == "2 streams, 2 selected"
    assert found["destination", "store"]["ok"]
    stored(shop, "place", {"path": "shop.db"})
    found = {(each["what"], each["block"]): each for each in shop.json("check", "p")["checks"]}
    assert found["source", "load"]["detail"] == "2 streams, 1 selected"


def test_check_refuses_streams_that_do_not_exist(shop: Shop) -> None:
    (shop.root / "data_loaders/plain.yaml").write_text(
        "source: sqlite\nconfig: {path: shop.db}\nstreams: {peple: {}}\n"
    )
    found = json.loads(shop("check", "p", "--json", code=2).stdout)["checks"]
    failed = [(each["block"], each["code"], each["problem"]) for each in found if not each["ok"]]
    assert failed == [("plain", "stream.unknown", "configuration")]


PYTHON = """\
@data_integration_source
def source(*args, **kwargs):
    return 'sqlite'


@data_integration_config
def config(place, *args, **kwargs):
    return place


@data_integration_selected_streams
def streams(*args, **kwargs):
    return ['people']


@data_integration_catalog(discover=True)
def catalog(*args, **kwargs):
    catalog = kwargs['catalog']
    for stream in catalog['streams']:
        stream.update(replication_method='INCREMENTAL', bookmark_properties=['id'])
    return catalog
"""


@pytest.fixture
def in_python(shop: Shop) -> Shop:
    (shop.root / "data_loaders/load.yaml").unlink()
    (shop.root / "data_loaders/load.py").write_text(PYTHON)
    metadata = shop.root / "pipelines/p/metadata.yaml"
    metadata.write_text(
        metadata.read_text().replace(
            "load, type: data_loader, language: yaml", "load, type: data_loader, language: python"
        )
    )
    return shop


def test_a_source_in_python_is_asked_by_its_functions(in_python: Shop) -> None:
    assert "--block-uuid place" in in_python.refuses("block.no_stored_output", "discover", "p", "load")
    stored(in_python, "place", {"path": "shop.db"})
    assert [stream["stream"] for stream in in_python.json("discover", "p", "load")["streams"]] == ["orders", "people"]
    rows = {row["stream"]: row for row in in_python.json("streams", "list", "p", "--block", "load")}
    assert [name for name, row in rows.items() if row["selected"]] == ["people"]
    assert rows["people"]["bookmark_properties"] == ["id"]
    assert in_python.json("sample", "p", "orders", "--block", "load", "-n", "1") == [{"id": 1, "total": 2.5}]
    found = {(each["what"], each["block"]): each for each in in_python.json("check", "p")["checks"]}
    assert found["source", "load"]["detail"] == "2 streams, 1 selected"


def test_the_settings_of_a_block_in_python_are_edited_by_hand(in_python: Shop) -> None:
    refused = in_python.refuses(
        "setting.not_editable", "streams", "set", "p", "orders", "columns=id", "--block", "load"
    )
    assert "@data_integration_catalog" in refused


def test_explain_says_what_is_known_without_running_code(shop: Shop) -> None:
    blocks = {block["block"]: block for block in shop.json("explain", "p")["blocks"]}
    assert (blocks["load"]["engine"], blocks["load"]["reads"]) == ("tap-sqlite", "orders")
    assert blocks["plain"]["reads"] == "the streams that it selects itself"
    assert (blocks["store"]["engine"], blocks["store"]["connector"]) == ("target-duckdb", "destination")
    assert "change to changed" in blocks["store"]["writes"]
    shop("streams", "select", "p", "orders", "--block", "plain")
    blocks = {block["block"]: block for block in shop.json("explain", "p")["blocks"]}
    assert blocks["plain"]["reads"] == "orders, and the streams that it selects itself"
    (shop.root / "data_loaders/load.yaml").write_text("source: \"{{ block_output('place')['system'] }}\"\nconfig: {}\n")
    blocks = {block["block"]: block for block in shop.json("explain", "p")["blocks"]}
    assert "known when it runs" in blocks["load"]["engine"]


def test_explain_and_graph_know_blocks_in_python(in_python: Shop) -> None:
    blocks = {block["block"]: block for block in in_python.json("explain", "p")["blocks"]}
    assert (blocks["load"]["engine"], blocks["load"]["connector"]) == ("tap-sqlite", "source")
    assert "source (python)" in in_python("graph", "p").stdout


def test_explain_shows_a_pipe(shop: Shop) -> None:
    (shop.root / "pipelines/p/metadata.yaml").write_text(
        "type: python\nblocks:\n- {uuid: plain, type: data_loader, language: yaml}\n"
        "- {uuid: store, type: data_exporter, language: yaml, upstream_blocks: [plain]}\n"
    )
    blocks = {block["block"]: block for block in shop.json("explain", "p")["blocks"]}
    assert (blocks["plain"]["pipes_into"], blocks["plain"]["output"]) == ("store", None)


def test_state_is_that_of_source_blocks(shop: Shop) -> None:
    assert "plain" in shop.refuses("block.ambiguous", "state", "get", "p")
    assert "change" not in shop.refuses("block.not_found", "state", "get", "p", "--block", "chang")
    shop("state", "set", "p", "orders", '{"id": 2}', "--block", "load")
    shop.save("r1", block="load:north", pipeline="p", orders='{"id": 3}')
    rows = shop.json("state", "list", "p", "--block", "load")
    assert [(row["block"], row["value"]) for row in rows] == [("load", {"id": 2}), ("load:north", {"id": 3})]
    shop("state", "reset", "p", "--block", "load")
    assert shop.json("state", "list", "p") == []
