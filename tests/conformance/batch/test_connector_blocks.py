"""Source and destination blocks in batch pipelines: rows in the target, positions that are saved or not."""

from __future__ import annotations

import json
import sqlite3

import pytest

from tests.conformance.batch.connector_projects import (
    CHANGE,
    chain,
    destination,
    insert,
    pipe,
    rows,
    saved,
    shop,
    source,
)
from tests.support.batch import BatchProject, failed

__all__ = ["shop"]

LOAD = source()


def test_a_source_is_read_into_blocks_and_on_to_a_destination(shop: BatchProject) -> None:
    chain(shop)
    shop.run().expect(0)
    assert rows(shop) == [(number,) for number in range(25)]
    output = shop.output("load")
    assert output["stream"]["stream"] == "orders"
    assert output["stream"]["replication_method"] == "INCREMENTAL"
    assert output["columns"] == ["id", "day"]
    assert output["rows"][0] == [0, "2026-01-01"]
    ((block, stream),) = saved(shop)
    assert (block, stream) == ("load", "orders")
    assert saved(shop)["load", "orders"]["sinks"] == ["export"]
    # The next run reads what is new, also at the last value.
    insert(shop, [(100, "2026-01-05"), (101, "2026-01-06")])
    shop.run().expect(0)
    assert rows(shop) == [(number,) for number in [*range(25), 100, 101]]
    assert len(shop.output("load")["rows"]) == 2


def test_positions_wait_for_all_blocks_downstream(shop: BatchProject) -> None:
    chain(shop, change=f"import os\nassert os.path.exists('mended'), 'broken'\n{CHANGE}")
    failed(shop.run())
    assert saved(shop) == {}
    (shop.root / "mended").touch()
    (shop.root / "shop.db").rename(shop.root / "gone.db")  # what was read before is used
    shop.run("--resume").expect(0)
    assert len(rows(shop)) == 25
    assert list(saved(shop)) == [("load", "orders")]


def test_a_run_that_is_not_resumed_reads_the_rows_again(shop: BatchProject) -> None:
    chain(shop, change=f"import os\nassert os.path.exists('mended'), 'broken'\n{CHANGE}")
    failed(shop.run())
    (shop.root / "mended").touch()
    shop.run().expect(0)
    assert len(rows(shop)) == 25


@pytest.mark.parametrize(("advance", "streams"), [(False, []), (True, [("load", "orders")])])
def test_a_block_that_is_skipped_has_not_dealt_with_the_rows(
    shop: BatchProject, advance: bool, streams: list[tuple[str, str]]
) -> None:
    configuration = {"configuration": {"advance_on_skip": True}} if advance else {}
    shop.block("load", LOAD, type="data_loader", language="yaml", **configuration)
    shop.block("change", CHANGE)
    shop.block(
        "never", "@condition\ndef never(*args, **kwargs):\n    return False\n", type="conditional", upstream=["change"]
    )
    shop.run().expect(0)
    assert shop.statuses()["change"] == "skipped"
    assert list(saved(shop)) == streams


def test_a_block_that_runs_alone_saves_no_position(shop: BatchProject) -> None:
    chain(shop)
    shop.run("--block-uuid", "load").expect(0)
    assert len(shop.output("load")["rows"]) == 25
    assert saved(shop) == {}


def test_with_nothing_downstream_the_stored_output_is_enough(shop: BatchProject) -> None:
    shop.block("load", LOAD, type="data_loader", language="yaml")
    shop.run().expect(0)
    assert list(saved(shop)) == [("load", "orders")]
    shop.run().expect(0)
    assert shop.output("load")["rows"] == []


def test_a_source_and_its_only_neighbour_are_one_pipe(shop: BatchProject) -> None:
    pipe(shop)
    shop.run().expect(0)
    assert rows(shop) == [(number,) for number in range(25)]
    assert shop.statuses() == {"load": "completed", "export": "completed"}
    assert list(saved(shop)) == [("load", "orders")]
    assert not (shop.root / ".streamline/data/p/load").exists()


def test_a_destination_that_fails_in_a_pipe_saves_nothing(shop: BatchProject) -> None:
    pipe(shop, path="none/out.duckdb")
    (shop.root / "none").touch()
    failed(shop.run())
    assert shop.statuses()["export"] == "failed"
    assert saved(shop) == {}


def test_a_source_that_fails_in_a_pipe_is_the_one_that_failed(shop: BatchProject) -> None:
    shop.block("load", source(path="gone.db"), type="data_loader", language="yaml")
    shop.block(
        "export",
        "destination: duckdb\nconfig: {path: out.duckdb}\n",
        type="data_exporter",
        language="yaml",
        upstream=["load"],
    )
    failed(shop.run())
    assert shop.statuses() == {"load": "failed", "export": "upstream_failed"}


def test_callbacks_of_a_pipe_whose_source_failed(shop: BatchProject) -> None:
    target = "destination: duckdb\nconfig: {path: out.duckdb}\n"
    told = "@callback('failure')\ndef told(output, **kwargs):\n    print('told of', kwargs['parent_block_uuid'])\n"
    shop.block("load", source(path="gone.db"), type="data_loader", language="yaml")
    shop.block("export", target, type="data_exporter", language="yaml", upstream=["load"])
    shop.block("told", told, type="callback", upstream=["load", "export"])
    text = failed(shop.run()).text
    assert "told of load" in text
    assert "told of export" not in text
    assert shop.statuses() == {"load": "failed", "export": "upstream_failed"}


def test_outputs_of_blocks_are_exported_with_their_types(project: BatchProject) -> None:
    project.block(
        "frame",
        """
        import datetime, decimal
        import pandas as pd
        @data_loader
        def load():
            return pd.DataFrame({
                "id": [1, 2],
                "day": [datetime.date(2026, 1, 2), None],
                "price": [decimal.Decimal("1.10"), decimal.Decimal("2.25")],
                "tags": [["a"], ["b", "c"]],
            })
        """,
        type="data_loader",
    )
    project.block(
        "records",
        "@data_loader\ndef load():\n    return [{'id': 1, 'name': 'x', 'more': {}}, {'id': 2, 'name': None}]\n",
        type="data_loader",
    )
    project.block(
        "shaped",
        """
        @data_loader
        def load():
            return [
                {
                    "stream": {"stream": "users", "schema": {"properties": {"id": {"type": "integer"}}}},
                    "columns": ["id", "added"],
                    "rows": [[1, "a"], [2, "b"], [3, None]],
                },
                {"stream": "items", "columns": ["id", "n"], "rows": []},
            ]
        """,
        type="data_loader",
    )
    project.block(
        "frames",
        "import pandas as pd\n@data_loader\ndef load():\n"
        "    return {'days': pd.DataFrame({'id': [1, 2]}), 'weeks': pd.DataFrame({'n': [1]})}\n",
        type="data_loader",
    )
    project.block(
        "export",
        "destination: duckdb\nconfig: {path: out.duckdb}\n",
        type="data_exporter",
        language="yaml",
        upstream=["frame", "records", "shaped", "frames"],
    )
    project.run().expect(0)
    types = rows(
        project,
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'frame' "
        "AND column_name IN ('day', 'price') ORDER BY 1",
    )
    assert types == [("day", "DATE"), ("price", "DECIMAL(38,2)")]
    assert rows(project, "SELECT CAST(price AS VARCHAR) FROM frame ORDER BY id") == [("1.10",), ("2.25",)]
    assert rows(project, "SELECT id, name, more FROM records ORDER BY id") == [(1, "x", "{}"), (2, None, None)]
    assert rows(project, "SELECT id, added FROM users ORDER BY id") == [(1, "a"), (2, "b"), (3, None)]
    assert rows(project, "SELECT id FROM days ORDER BY id") == [(1,), (2,)]
    assert rows(project, "SELECT n FROM weeks") == [(1,)]


def test_a_secret_output_is_exported_and_a_destination_may_be_secret(project: BatchProject) -> None:
    secret = {"configuration": {"secret_output": True}}
    project.block("load", "@data_loader\ndef load():\n    return [{'id': 1}]\n", type="data_loader", **secret)
    export = "destination: duckdb\nconfig: {path: out.duckdb}\n"
    project.block("export", export, type="data_exporter", language="yaml", **secret)
    project.run().expect(0)
    assert rows(project, "SELECT id FROM load") == [(1,)]
    assert not list((project.root / ".streamline").rglob("*.parquet"))


def test_an_output_that_is_no_stream_writes_nothing(project: BatchProject) -> None:
    project.block("good", "@data_loader\ndef load():\n    return [{'id': 1}]\n", type="data_loader")
    project.block("bad", "@data_loader\ndef load():\n    return 'text'\n", type="data_loader")
    project.block(
        "export",
        "destination: duckdb\nconfig: {path: out.duckdb}\n",
        type="data_exporter",
        language="yaml",
        upstream=["good", "bad"],
    )
    failed(project.run(), "bad")
    (block,) = [each for each in project.shown()["blocks"] if each["uuid"] == "export"]
    assert block["code"] == "output.not_a_stream"
    assert not (project.root / "out.duckdb").exists()


def test_a_destination_that_moved_is_not_continued(shop: BatchProject) -> None:
    chain(shop)
    shop.run().expect(0)
    shop.write("data_exporters/export.yaml", destination('"*"', "other.duckdb"))
    insert(shop, [(100, "2026-01-09")])
    failed(shop.run())
    assert "2026-01-05" in str(saved(shop)["load", "orders"]["value"])
    shop.run("--full-refresh").expect(0)
    assert len(rows(shop, file="other.duckdb")) == 26
    shop.write("data_exporters/export.yaml", destination('"*"', "third.duckdb"))
    shop.run("--accept-gap").expect(0)
    shop.run().expect(0)


def test_credentials_come_from_an_upstream_block(shop: BatchProject) -> None:
    shop.block("where", "@data_loader\ndef load():\n    return {'path': 'shop.db'}\n", type="data_loader")
    shop.block(
        "load",
        """
        source: sqlite
        config:
          path: "{{ block_output('where', parse='lambda data: data[\\"path\\"]') }}"
        """,
        type="data_loader",
        language="yaml",
        upstream=["where"],
    )
    shop.run().expect(0)
    assert len(shop.output("load")["rows"]) == 25


def test_a_bookmark_is_for_a_stream_that_some_source_reads(shop: BatchProject) -> None:
    shop.block("where", "@data_loader\ndef load():\n    return {'path': 'shop.db'}\n", type="data_loader")
    load = LOAD.replace('{path: "shop.db"}', "\"{{ block_output('where') }}\"")
    shop.block("load", load, type="data_loader", language="yaml", upstream=["where"])
    failed(shop.run("--bookmark", "order.day=2026-01-02"))
    (block,) = [block for block in shop.shown()["blocks"] if block["uuid"] == "load"]
    assert block["code"] == "stream.unknown"
    assert saved(shop) == {}
    shop.run("--bookmark", "orders.day=2026-01-05").expect(0)
    assert len(shop.output("load")["rows"]) == 5


def test_children_of_a_dynamic_block_have_positions_of_their_own(shop: BatchProject) -> None:
    items = (
        "@data_loader\ndef load():\n    return [[{'key': 'a', 'path': 'shop.db'}, {'key': 'b', 'path': 'shop.db'}]]\n"
    )
    shop.block("items", items, type="data_loader", configuration={"dynamic": True})
    shop.block(
        "load",
        source(path="{{ block_output('items', parse='lambda item: item[\"path\"]') }}"),
        type="data_loader",
        language="yaml",
        upstream=["items"],
    )
    shop.run().expect(0)
    assert set(saved(shop)) == {("load:a", "orders"), ("load:b", "orders")}
    shop.run().expect(0)
    assert [len(child["rows"]) for child in shop.children("load")] == [0, 0]


def test_options_about_sources_need_a_source(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load():\n    return 1\n", type="data_loader")
    project.run("--full-refresh").expect(2)


def test_records_that_a_destination_refuses_are_kept_and_sent_again(project: BatchProject) -> None:
    project.block(
        "load",
        "@data_loader\ndef load():\n    return [{'id': 1, 'n': 1}, {'id': None, 'n': 2}, {'id': 3, 'n': 3}]\n",
        type="data_loader",
    )
    export = "destination: duckdb\nconfig: {path: out.duckdb}\non_bad_record: quarantine\n"
    keyed = f"{export}streams:\n  load: {{unique_constraints: [id]}}\n"
    project.block("export", keyed, type="data_exporter", language="yaml", upstream=["load"])
    project.run().expect(0, "1 record quarantined")
    assert rows(project, "SELECT n FROM load ORDER BY n") == [(1,), (3,)]
    project.command("dead-letters", "retry", "p").expect(1)
    project.write("data_exporters/export.yaml", f"{export}streams:\n  load: {{load_method: append}}\n")
    project.command("dead-letters", "retry", "p").expect(0)
    assert rows(project, "SELECT n FROM load ORDER BY n") == [(1,), (2,), (3,)]
    assert json.loads(project.command("dead-letters", "list", "p", "--json").expect(0).out) == []


def test_tables_are_handed_over_and_tested(shop: BatchProject) -> None:
    with sqlite3.connect(shop.root / "shop.db") as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY)")
    load = """
import pandas as pd
@data_integration_source
def source(*args, **kwargs):
    return 'sqlite'
@data_integration_config
def config(*args, **kwargs):
    return {'path': 'shop.db'}
@test
def test_tables(tables: dict[str, pd.DataFrame], *args):
    assert list(tables) == ['orders', 'people']
    assert tables['orders'].dtypes.to_dict()['id'] == 'int64'
@test
def test_shape(streams, *args):
    assert [len(stream['rows']) for stream in streams] == [25, 0]
"""
    change = """
import pandas as pd
@transformer
def change(tables: dict[str, pd.DataFrame], *args):
    return tables['orders'].assign(people=len(tables['people']))
"""
    shop.block("load", load, type="data_loader")
    shop.block("change", change)
    shop.run("--test").expect(0, "2 tests passed")
    shop.command("test", "p", "--block-uuid", "load").expect(0)
    assert shop.output("change").to_dict("list")["people"] == [0] * 25
    blocks = json.loads(shop.command("runs", "show", "--json").expect(0).out)["blocks"]
    assert {each["stream"]: each["read"] for each in blocks[0]["results"]} == {"orders": 25, "people": 0}


def test_a_destinations_catalog_chooses_columns_and_types(project: BatchProject) -> None:
    project.block(
        "load",
        "@data_loader\ndef load():\n    return [{'id': 1, 'code': '7', 'note': 'x', 'other': 1}]\n",
        type="data_loader",
    )
    project.block(
        "export",
        """
        @data_integration_destination
        def destination(*args, **kwargs):
            return "duckdb"

        @data_integration_config
        def config(*args, **kwargs):
            return {"path": "out.duckdb"}

        @data_integration_catalog
        def catalog(*args, **kwargs):
            return {"streams": [{
                "tap_stream_id": "load", "stream": "load", "destination_table": "codes", "unique_constraints": ["id"],
                "schema": {"properties": {
                    "id": {"type": "integer"}, "code": {"type": ["null", "string"], "maxLength": 3}, "note": {},
                }},
                "metadata": [{"breadcrumb": ["properties", "note"], "metadata": {"selected": False}}],
            }]}
        """,
        type="data_exporter",
        upstream=["load"],
    )
    project.run().expect(0)
    columns = rows(project, "SELECT column_name FROM information_schema.columns WHERE table_name = 'codes'")
    assert [name for (name,) in columns if not name.startswith("_")] == ["id", "code"]
