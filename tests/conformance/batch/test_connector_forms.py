"""Sources and destinations that read a log, run twice, once per item, or with their streams beside each other."""

from __future__ import annotations

import itertools
import json
from typing import Any

from tests.conformance.batch.connector_projects import chain, destination, rows, saved, shop, source
from tests.support.batch import BatchProject, failed
from tests.support.project import fake

__all__ = ["shop"]

LOG = [["orders", {"id": 1, "text": "a"}], ["users", {"id": 1, "text": "b"}]]


def from_tap(project: BatchProject, name: str, config: Any, streams: Any, **keys: Any) -> None:
    """Add a source block `load` that reads with a tap of the tests."""
    project.write("streamline.yaml", json.dumps({"name": "shop", "plugins": {f"tap-{name}": fake(f"tap_{name}")}}))
    text = json.dumps({"source": f"tap-{name}", "config": config, "streams": streams, **keys})
    project.block("load", text, type="data_loader", language="yaml")


def test_a_source_reads_a_log(project: BatchProject) -> None:
    streams = {name: {"replication_method": "LOG_BASED"} for name in ("orders", "users")}
    from_tap(project, "reads_log", {"log": "log.json"}, streams)
    project.block("count", "@transformer\ndef count(streams):\n    return [len(each['rows']) for each in streams]\n")
    project.write("log.json", json.dumps(LOG))
    project.run().expect(0)
    assert project.output("count") == [1, 1]
    project.write("log.json", json.dumps([*LOG, ["users", {"id": 2, "text": "c"}]]))
    project.run().expect(0)
    assert project.output("count") == [0, 1]
    assert sorted(saved(project)) == [("load", "orders"), ("load", "users")]


def test_a_log_that_is_read_without_a_position_being_saved_leaves_no_gap(project: BatchProject) -> None:
    both = {name: {"replication_method": "LOG_BASED"} for name in ("orders", "users")}
    from_tap(project, "reads_log", {"log": "log.json"}, both)
    project.write("log.json", json.dumps(LOG))
    project.run().expect(0)

    def gaps() -> list[str]:
        return [stream for (_, stream), each in saved(project).items() if each["gap"]]

    text = {"source": "tap-reads_log", "config": {"log": "log.json"}, "streams": {"orders": both["orders"]}}
    project.write("data_loaders/load.yaml", json.dumps(text))
    project.write("log.json", json.dumps([*LOG, ["orders", {"id": 2, "text": "c"}]]))
    project.run("--block-uuid", "load").expect(0)
    assert gaps() == []
    project.block("change", "@transformer\ndef change(streams):\n    assert open('mended')\n")
    failed(project.run())
    assert gaps() == []
    project.write("mended", "")
    project.run("--resume").expect(0)
    assert gaps() == ["users"]


def test_replicated_blocks_have_positions_of_their_own(shop: BatchProject) -> None:
    chain(shop)
    copies = [("load", "again", "data_loader", []), ("export", "copied", "data_exporter", ["again"])]
    for original, uuid, type, upstream in copies:
        entry = {"uuid": uuid, "type": type, "language": "yaml", "replicated_block": original}
        shop.entries["blocks"].append({**entry, "upstream_blocks": upstream})
    shop.save()
    shop.run().expect(0)
    sinks = {key: each["sinks"] for key, each in saved(shop).items()}
    assert sinks == {("load", "orders"): ["export"], ("again", "orders"): ["copied"]}
    assert len(rows(shop)) == 25


def parallel(project: BatchProject, **config: Any) -> None:
    """Add a source with two streams, a tap process for each."""
    kind = {"properties": {"id": "integer"}, "key": ["id"], "replication_key": "id", "rows": 30}
    settings = {"*": {"run_in_parallel": True, "replication_method": "INCREMENTAL"}}
    from_tap(project, "rows", {"streams": {"orders": kind, "users": kind}, "spy": "spy", **config}, settings)
    project.block("change", "@transformer\ndef change(streams):\n    return streams\n")


def test_streams_are_read_and_exported_beside_each_other(project: BatchProject) -> None:
    parallel(project)
    export = "destination: duckdb\nconfig: {path: out.duckdb}\nstreams:\n  '*': {run_in_parallel: true}\n"
    project.block("export", export, type="data_exporter", language="yaml")
    project.run().expect(0)
    read = [each for each in project.spied() if each["catalog"]]
    assert len(read) == 2
    assert [rows(project, f"SELECT count(*) FROM {table}") for table in ("orders", "users")] == [[(30,)], [(30,)]]
    assert len(saved(project)) == 2


def test_a_stream_that_fails_beside_another_leaves_the_source_without_output(project: BatchProject) -> None:
    parallel(project, fail={"stream": "users", "after": 15, "once": "failed"})
    failed(project.run())
    assert saved(project) == {}
    project.run("--resume").expect(0)
    assert [len(each["rows"]) for each in project.output("change")] == [30, 30]


def test_a_destination_runs_once_per_item(shop: BatchProject) -> None:
    paths = [{"path": "a.duckdb"}, {"path": "b.duckdb"}]
    code = f"@data_loader\ndef load():\n    return [{paths!r}]\n"
    shop.block("items", code, type="data_loader", configuration={"dynamic": True})
    shop.block("load", source(), type="data_loader", language="yaml")
    path = "{{ block_output('items', parse=lambda item: item['path']) }}"
    inputs = {"data_integration": {"inputs": {"items": {"input_only": True}}}}
    keys = {"type": "data_exporter", "language": "yaml", "configuration": inputs}
    shop.block("export", destination("orders", path), upstream=["items", "load"], **keys)
    shop.run().expect(0)
    assert [len(rows(shop, file=each["path"])) for each in paths] == [25, 25]
    assert list(saved(shop)) == [("load", "orders")]


def test_no_more_sources_run_at_once_than_blocks_may(project: BatchProject) -> None:
    project.keys["concurrency_config"] = {"block_run_limit": 1}
    kind = {"properties": {"id": "integer"}, "rows": 3}
    for number in range(3):
        from_tap(project, "rows", {"streams": {"orders": kind}, "page": 1, "pause": 0.2, "spy": "spy"}, {"*": {}})
        project.entries["blocks"][-1]["uuid"] = f"load{number}"
        project.write(f"data_loaders/load{number}.yaml", (project.root / "data_loaders/load.yaml").read_text())
    project.save()
    project.run().expect(0)
    seconds = sorted(int(path.name.partition("-")[0]) / 1e9 for path in (project.root / "spy").iterdir())
    reading = [later for earlier, later in itertools.pairwise(seconds) if later - earlier > 0.5]
    assert len(reading) >= 2, seconds
