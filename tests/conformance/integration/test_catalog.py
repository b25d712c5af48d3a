"""What is selected: discovery and its cache, catalog.json, `streams:`, settings in the store, each over the last."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from tests.conformance.integration.common import COLUMNS, INCREMENTAL, rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import Block, Project, tap, target


def discoveries(project: Project) -> int:
    """How often the tap was asked what it has."""
    return len([r for r in project.spied(discover=True) if r["discover"]])


def selected(project: Project) -> dict[str, dict[str, Any]]:
    """The stream metadata, as the tap's last process got it, of the selected streams."""
    entries = project.spied()[-1]["catalog"]["streams"]
    tops = {e["tap_stream_id"]: next(m["metadata"] for m in e["metadata"] if not m["breadcrumb"]) for e in entries}
    return {name: top for name, top in tops.items() if top["selected"]}


def test_discovery_is_cached_until_the_config_changes_or_the_operator_asks(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"a": 5}, {"spy": "spy"}), target())
    project.run().expect(0)
    project.run().expect(0)
    assert discoveries(project) == 1

    project.run("--refresh-catalog").expect(0)
    assert discoveries(project) == 2

    project.pipeline("p", rows_tap({"a": 5}, {"spy": "spy", "page": 3}), target())
    project.run().expect(0)
    assert discoveries(project) == 3


def test_streams_without_a_mark_are_selected_and_those_off_by_default_are_not(make_project: MakeProject) -> None:
    content: dict[str, Any] = {
        "plain": {"properties": COLUMNS, "rows": 5},
        "off": {"properties": COLUMNS, "rows": 5, "metadata": {"selected-by-default": False}},
        "on": {"properties": COLUMNS, "rows": 5, "metadata": {"selected-by-default": True}},
    }
    project = make_project(rows_tap(content, {"spy": "spy"}, streams={}), target())

    project.run().expect(0)

    assert set(selected(project)) == {"plain", "on"}
    assert (project.ids("plain"), project.ids("off"), project.ids("on")) == (upto(5), [], upto(5))


def test_a_catalog_file_lies_over_discovery_and_streams_over_the_file(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"a": 5, "b": 5}, {"spy": "spy"}, streams={"a": {}, "b": {}}), target())
    project.run().expect(0)
    catalog = project.spied()[-1]["catalog"]
    for entry in catalog["streams"]:
        for mark in entry["metadata"]:
            if not mark["breadcrumb"]:
                mark["metadata"].update({"replication-method": "FULL_TABLE", "selected": entry["stream"] == "a"})
        entry["replication_method"] = "FULL_TABLE"
        entry["schema"]["properties"]["text"]["description"] = "of the file"
    project.write("pipelines/p/load/catalog.json", json.dumps(catalog))

    project.pipeline("p", rows_tap({"a": 5, "b": 5}, {"spy": "spy"}, streams={}), target())
    project.run().expect(0)
    assert {name: top["replication-method"] for name, top in selected(project).items()} == {"a": "FULL_TABLE"}

    project.pipeline("p", rows_tap({"a": 5, "b": 5}, {"spy": "spy"}, streams={"b": INCREMENTAL}), target())
    project.run().expect(0)
    assert {name: top["replication-method"] for name, top in selected(project).items()} == {"b": "INCREMENTAL"}
    (entry,) = [e for e in project.spied()[-1]["catalog"]["streams"] if e["tap_stream_id"] == "b"]
    assert entry["schema"]["properties"]["text"]["description"] == "of the file"


def test_settings_set_by_command_count_from_the_next_run_on(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"a": 5, "b": 5}, {"spy": "spy"}, streams={"a": INCREMENTAL}), target())
    project.run().expect(0)
    assert set(selected(project)) == {"a"}

    project.command("streams", "set", "p", "a", "replication_method=FULL_TABLE", "--block", "load").expect(0)
    project.run().expect(0)

    assert selected(project)["a"]["replication-method"] == "FULL_TABLE"
    listed = project.command("streams", "list", "p", "--json").expect(0)
    assert "FULL_TABLE" in listed.out


def test_a_narrow_selection_deselects_every_other_column_explicitly(make_project: MakeProject) -> None:
    settings = {"a": {**INCREMENTAL, "columns": ["id"]}}
    project = make_project(rows_tap({"a": 5}, {"spy": "spy"}, streams=settings), target())

    project.run().expect(0)

    assert project.rows("a") == [{"id": n} for n in upto(5)]
    (entry,) = project.spied()[-1]["catalog"]["streams"]
    marks = {tuple(m["breadcrumb"]): m["metadata"].get("selected") for m in entry["metadata"]}
    assert marks == {(): True, ("properties", "id"): True, ("properties", "text"): False}


def test_globs_and_exact_names_apply_key_by_key(make_project: MakeProject) -> None:
    settings = {"public-orders": {"replication_method": "FULL_TABLE"}, "public-*": INCREMENTAL}
    names = ("public-orders", "public-users", "audit-users")
    project = make_project(rows_tap(dict.fromkeys(names, 5), {"spy": "spy"}, streams=settings), target())

    project.run().expect(0)

    methods = {name: top["replication-method"] for name, top in selected(project).items()}
    assert methods == {"public-orders": "FULL_TABLE", "public-users": "INCREMENTAL"}


def test_a_column_that_is_added_at_the_source_is_read_and_told(make_project: MakeProject) -> None:
    settings = {"customers": {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}}
    source = tap("sqlite", {"path": "shop.db"}, builtin=True, streams=settings)
    project = make_project(source, target())
    with closing(sqlite3.connect(project.root / "shop.db")) as db:
        db.executescript("create table customers (id integer primary key); insert into customers values (1);")
        project.run().expect(0)
        db.executescript("alter table customers add phone text; insert into customers values (2, '555');")

    project.run().expect(0, "new column phone")

    assert project.rows("customers")[-1] == {"id": 2, "phone": "555"}


def test_a_cached_catalog_is_dropped_when_a_schema_shows_a_new_column(make_project: MakeProject) -> None:
    config = {"change": "add", "from_start": True, "when": "altered", "spy": "spy"}
    project = make_project(tap("changes_schema", config, streams={"numbers": INCREMENTAL}), target())
    project.run().expect(0)
    project.write("altered", "")

    project.run().expect(0, "new column note")

    assert project.rows()[-1]["note"]
    assert discoveries(project) == 1
    project.run().expect(0)
    assert discoveries(project) == 2


def test_a_failed_discovery_fails_the_run_or_is_retried(make_project: MakeProject) -> None:
    def fails_once(marker: str) -> Block:
        return rows_tap({"a": 5}, {"discovery_fails_once": marker})

    retry_once: dict[str, Any] = {"retry_config": {"retries": 1, "delay": 0}}
    project = make_project(fails_once("first"), target())
    failed = project.run("--json").expect(1)
    assert json.loads(failed.out)["error"]["code"] == "tap.discovery_failed"

    project.pipeline("p", fails_once("second"), target(), **retry_once)
    project.run().expect(0, "discovery failed with exit code 1; retry")
    assert project.ids("a") == upto(5)

    project.pipeline("p", fails_once("third"), target(), **retry_once)
    project.command("explain", "p").expect(1)


def test_the_catalog_of_a_pipeline_of_mage_selects_streams(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"a": 5, "b": 5}, {"spy": "spy"}, streams={}), target())
    streams = [
        {"tap_stream_id": name, "stream": name, "metadata": [{"breadcrumb": [], "metadata": {"selected": name == "b"}}]}
        for name in ("a", "b")
    ]
    project.write("pipelines/p/data_integration_catalog.json", json.dumps({"catalog": {"streams": streams}}))
    settings = project.root / "streamline.yaml"
    settings.write_text("compat: mage\n" + settings.read_text())

    project.run().expect(0)

    assert set(selected(project)) == {"b"}
    assert (project.ids("a"), project.ids("b")) == ([], upto(5))


def test_the_catalog_of_a_pipeline_of_mage_names_tables(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"a": 5, "b": 5}, streams={}), target())
    streams = [
        {
            "tap_stream_id": name,
            "stream": name,
            "destination_table": table,
            "unique_conflict_method": "UPDATE",
            "unique_constraints": keys,
            "metadata": [{"breadcrumb": [], "metadata": {"selected": True}}],
        }
        for name, table, keys in (("a", "orders", ["id"]), ("b", "", None))
    ]
    project.write("pipelines/p/data_integration_catalog.json", json.dumps({"catalog": {"streams": streams}}))
    settings = project.root / "streamline.yaml"
    settings.write_text("compat: mage\n" + settings.read_text())

    project.run().expect(0)

    assert (project.ids("orders"), project.ids("a"), project.ids("b")) == (upto(5), [], upto(5))
