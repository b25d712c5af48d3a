"""Positions of source blocks in batch pipelines: what counts as done, and what is read again."""

from __future__ import annotations

import json

from tests.conformance.batch.connector_projects import (
    chain,
    destination,
    insert,
    items,
    pipe,
    rows,
    saved,
    shop,
    slow,
    source,
)
from tests.support.batch import BatchProject, failed
from tests.support.project import fake

__all__ = ["shop"]

ALL = [(number,) for number in range(25)]


def test_an_append_only_destination_gets_every_row_once_over_three_runs(shop: BatchProject) -> None:
    chain(shop, load="orders: {replication_method: INCREMENTAL, bookmark_properties: [day]}", append=True)
    for _ in range(3):
        shop.run().expect(0)
        assert rows(shop) == ALL
    insert(shop, [(25, "2026-01-05"), (26, "2026-01-06")])
    shop.run().expect(0)
    assert rows(shop) == [*ALL, (25,), (26,)]


def test_two_bookmark_properties_are_compared_as_a_pair(shop: BatchProject) -> None:
    chain(shop, load="orders: {replication_method: INCREMENTAL, bookmark_properties: [day, id]}", append=True)
    insert(shop, [(30, None)])
    shop.run().expect(0)
    assert rows(shop) == [*ALL, (30,)]
    insert(shop, [(25, "2026-01-05"), (31, None)])  # a tie in the first property; greater in the second
    shop.run().expect(0)
    shop.run().expect(0)
    assert rows(shop) == [*ALL, (25,), (30,)]


def test_a_pipe_whose_destination_is_refused_is_not_skipped_when_it_is_resumed(shop: BatchProject) -> None:
    pipe(shop)
    shop.entries["blocks"].pop()
    code = """
    @data_integration_destination
    def destination(*args, **kwargs):
        return "duckdb"
    @data_integration_config
    def config(*args, **kwargs):
        return {"path": open("path").read()}
    """
    shop.block("export", code, type="data_exporter")
    failed(shop.run())
    assert shop.statuses() == {"load": "cancelled", "export": "failed"}
    shop.write("path", "out.duckdb")
    shop.run("--resume").expect(0)
    assert rows(shop) == ALL
    assert list(saved(shop)) == [("load", "orders")]


def test_a_child_whose_rows_were_not_dealt_with_reads_them_again(shop: BatchProject) -> None:
    items(shop, "a", "b")
    shop.block("export", "@data_exporter\ndef export(data, **kwargs):\n    pass\n", type="data_exporter")
    shop.block(
        "only_a",
        "@condition\ndef only(data, **kwargs):\n    return kwargs['dynamic_block_index'] == 0\n",
        type="conditional",
        upstream=["export"],
    )
    shop.run().expect(0)
    assert list(saved(shop)) == [("load:a", "orders")]


def test_children_need_keys_of_their_own(shop: BatchProject) -> None:
    items(shop, "a", "a")
    shop.run()
    (block,) = [each for each in shop.shown()["blocks"] if each["uuid"] == "load"]
    assert block["code"] == "source.duplicate_item"
    assert saved(shop) == {}


def test_one_child_that_fails_harms_no_other(shop: BatchProject) -> None:
    items(shop, "a", "b", path="shop-{{ block_output('items', parse='lambda item: item[\"key\"]') }}.db")
    (shop.root / "shop.db").rename(shop.root / "shop-a.db")
    failed(shop.run())
    assert saved(shop) == {}
    (shop.root / "shop-a.db").rename(shop.root / "shop-b.db")  # what `a` has read is not read again
    shop.run("--resume").expect(0)
    assert list(saved(shop)) == [("load:a", "orders"), ("load:b", "orders")]


def test_positions_of_an_item_that_is_gone_when_a_run_is_resumed_are_not_saved(shop: BatchProject) -> None:
    items(shop, "a", "b")
    shop.block("export", "@data_exporter\ndef export(data, **kwargs):\n    1 / 0\n", type="data_exporter")
    failed(shop.run())
    shop.write("data_exporters/export.py", "@data_exporter\ndef export(data, **kwargs):\n    pass\n")
    shop.write("data_loaders/items.py", "@data_loader\ndef load():\n    return [[{'key': 'b'}]]\n")
    (shop.root / ".streamline/data/p/items/manifest.json").unlink()
    shop.run("--resume").expect(0)
    assert list(saved(shop)) == [("load:b", "orders")]


def test_what_was_set_by_hand_stands_when_the_run_is_resumed(shop: BatchProject) -> None:
    pipe(shop)
    shop.block("broken", "@data_loader\ndef load():\n    1 / 0\n", type="data_loader")
    failed(shop.run())
    assert list(saved(shop)) == [("load", "orders")]
    shop.command("state", "reset", "p", "--block", "load").expect(0)
    shop.write("data_loaders/broken.py", "@data_loader\ndef load():\n    return 1\n")
    shop.run("--resume").expect(0)
    assert saved(shop) == {}


def test_a_source_that_was_stored_is_read_anew_where_it_is_a_pipe_now(shop: BatchProject) -> None:
    chain(shop, change="@transformer\ndef change(data, **kwargs):\n    1 / 0\n")
    failed(shop.run())
    shop.entries["blocks"] = [each for each in shop.entries["blocks"] if each["uuid"] != "change"]
    shop.entries["blocks"][-1]["upstream_blocks"] = ["load"]
    shop.save()
    (shop.root / ".streamline/data/p/load/manifest.json").unlink()
    shop.run("--resume").expect(0)
    assert rows(shop) == ALL


def test_a_destination_can_be_taken_away(shop: BatchProject) -> None:
    chain(shop)
    shop.run().expect(0)
    shop.entries["blocks"] = [each for each in shop.entries["blocks"] if each["uuid"] != "export"]
    shop.save()
    insert(shop, [(100, "2026-01-09")])
    shop.run().expect(0)
    assert len(shop.output("load")["rows"]) == 1
    assert "2026-01-09" in str(saved(shop)["load", "orders"]["value"])


def test_a_column_without_a_value_keeps_the_type_that_it_has_in_the_destination(project: BatchProject) -> None:
    code = "import pandas as pd\n@data_loader\ndef load():\n    return pd.DataFrame({columns})\n"
    project.block("load", "", type="data_loader")
    export = destination("load")
    project.block("export", export, type="data_exporter", language="yaml")
    for columns in (
        "[], columns=['id', 'n']",  # makes no table
        "{'id': [1, 2], 'n': [3, 4]}",
        "[], columns=['id', 'n']",
        "{'id': [2], 'n': [None]}",
    ):
        project.write("data_loaders/load.py", code.format(columns=columns))
        project.run().expect(0)
    assert rows(project, "SELECT id, n, typeof(n) FROM orders ORDER BY id") == [(1, 3, "BIGINT"), (2, None, "BIGINT")]


SOURCE_IN_PYTHON = """
@data_integration_source
def source(*args, **kwargs):
    return "sqlite"
@data_integration_config
def config(*args, **kwargs):
    return {"path": "shop.db"}
@test
def has_rows(output, **kwargs):
    assert len(output["rows"]) == 25
"""


def test_tests_of_a_source_have_its_output(shop: BatchProject) -> None:
    shop.block("load", SOURCE_IN_PYTHON, type="data_loader")
    shop.block("export", destination("orders"), type="data_exporter", language="yaml", upstream=["load"])
    shop.run("--test").expect(0, "1 test")
    assert rows(shop) == ALL


def test_a_pipe_that_has_completed_needs_no_output_for_tests(shop: BatchProject) -> None:
    pipe(shop)
    shop.block("broken", "@data_loader\ndef load():\n    1 / 0\n", type="data_loader")
    failed(shop.run())
    shop.write("data_loaders/broken.py", "@data_loader\ndef load():\n    return 1\n")
    shop.run("--resume", "--test").expect(0)


def test_what_a_block_makes_of_an_item_leaves_the_child_its_key(shop: BatchProject) -> None:
    listed = "[{'key': 'a'}, {'key': 'b'}]"
    code = f"@data_loader\ndef load():\n    return [{listed}]\n"
    shop.block("items", code, type="data_loader", configuration={"dynamic": True})
    shop.block("between", "@transformer\ndef between(data):\n    return {'path': 'shop.db'}\n")
    shop.block("load", source(), type="data_loader", language="yaml", upstream=["between"])
    shop.run().expect(0)
    assert list(saved(shop)) == [("load:a", "orders"), ("load:b", "orders")]


def test_another_attempt_of_a_destination_goes_on_after_what_it_has(project: BatchProject) -> None:
    plugins = {"target-keyed": fake("target_keyed")}
    project.write("streamline.yaml", json.dumps({"name": "shop", "plugins": plugins}))
    code = "@data_loader\ndef load():\n    return [{'id': number} for number in range(1, 20_001)]\n"
    project.block("load", code, type="data_loader")
    config = {"path": "out.db", "die_after": 15_000, "die_once": "died", "flush": 1000}
    export = json.dumps({"destination": "target-keyed", "config": config, "on_bad_record": "fail"})
    retries = {"retries": 1, "delay": 0}
    project.block("export", export, type="data_exporter", language="yaml", retry_config=retries)
    project.run().expect(0)
    assert set(project.ids("load")) == set(range(1, 20_001))
    assert len(project.ids("load")) == 25_000  # after the 10,000 rows that were proven


def test_a_tap_is_not_told_of_positions_before_the_run_has_settled_them(project: BatchProject) -> None:
    plugins = {name: fake(name.replace("-", "_")) for name in ("tap-reads-state-again", "target-keyed")}
    project.write("streamline.yaml", json.dumps({"name": "shop", "plugins": plugins}))
    settings = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    streams = {"numbers": settings, "quiet": settings}
    config = {"seen": "seen", "patience": 1}
    load = json.dumps({"source": "tap-reads-state-again", "config": config, "streams": streams})
    project.block("load", load, type="data_loader", language="yaml")
    export = json.dumps({"destination": "target-keyed", "config": {"path": "out.db", "flush": 1}})
    project.block("export", export, type="data_exporter", language="yaml")
    project.run().expect(0)
    assert not json.loads((project.root / "seen").read_text()).get("bookmarks")
    assert saved(project)["load", "numbers"]["value"]["replication_key_value"] == 11


def test_another_attempt_at_a_pipe_starts_anew_where_the_destination_drops_its_tables(project: BatchProject) -> None:
    fail = {"stream": "numbers", "after": 12, "code": 1, "once": "failed"}
    slow(project, piped=True, wait_for=None, fail=fail)
    project.entries["blocks"][0]["retry_config"] = {"retries": 1, "delay": 0}
    project.save()
    target = {"path": "out.db", "log": "log.jsonl", "load_method": "overwrite"}
    project.write("data_exporters/export.yaml", json.dumps({"destination": "target-keyed", "config": target}))
    project.run().expect(0)
    kinds = [message["type"] for message in project.messages()]
    last = len(kinds) - kinds[::-1].index("SCHEMA")
    assert kinds[last:].count("RECORD") == 20


def test_what_no_attempt_can_mend_is_tried_once(shop: BatchProject) -> None:
    code = "@data_loader\ndef make():\n    return 1\n"
    shop.block("make", code, type="data_loader")
    retries = {"retries": 3, "delay": 60}
    load = source("nosuch: {}")
    shop.block("load", load, type="data_loader", language="yaml", upstream=["make"], retry_config=retries)
    failed(shop.run())
    (block,) = [each for each in shop.shown()["blocks"] if each["uuid"] == "load"]
    assert (block["attempts"], block["code"]) == (1, "stream.unknown")


def test_a_resumed_run_starts_where_it_began(shop: BatchProject) -> None:
    chain(shop)
    shop.run().expect(0)
    shop.write("data_exporters/export.yaml", destination('"*"', "other.duckdb"))
    insert(shop, [(100, "2026-01-09")])
    failed(shop.run())  # the destination has moved, and the source has been read
    shop.run("--resume", "--full-refresh").expect(2)
    shop.run("--resume", "--bookmark", "orders.day=2026-01-01").expect(2)
    failed(shop.run("--resume"))
    shop.run("--full-refresh").expect(0)
    assert len(rows(shop, file="other.duckdb")) == 26


def test_a_child_that_is_skipped_is_not_refreshed(shop: BatchProject) -> None:
    items(shop, "a", "b")
    shop.entries["blocks"][1]["configuration"] = {"reduce_output": True}
    shop.block("export", destination('"*"'), type="data_exporter", language="yaml", upstream=["load"])
    shop.run().expect(0)
    shop.write("data_exporters/export.yaml", destination('"*"', "other.duckdb"))
    only_a = "@condition\ndef only(*args, **kwargs):\n    return kwargs['dynamic_block_index'] == 0\n"
    shop.block("only_a", only_a, type="conditional", upstream=["load"])
    shop.run("--full-refresh").expect(0)
    assert rows(shop, file="other.duckdb") == ALL
    shop.entries["conditionals"].clear()
    shop.save()
    failed(shop.run())  # the new place has none of the rows before the position of `b`
