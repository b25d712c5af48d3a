"""Streams that were loaded before and cannot be read any more: they fail alone, whatever the settings name."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.conformance.integration.common import COLUMNS, INCREMENTAL, rows_tap
from tests.conftest import MakeProject
from tests.support.project import Block, tap, target

KEPT = {**INCREMENTAL, "columns": ["id", "text"]}


def source(content: dict[str, Any], **keys: Any) -> Block:
    streams = {"numbers": INCREMENTAL, "letters": KEPT}
    return rows_tap(content, {}, streams=streams, **keys)


@pytest.mark.parametrize(
    ("letters", "code"),
    [
        (None, "stream.unknown"),
        ({"properties": {"id": "integer"}, "replication_key": "id", "rows": 4}, "column.unknown"),
    ],
    ids=["a stream", "a column"],
)
def test_what_a_source_has_no_more_fails_alone(make_project: MakeProject, letters: Any, code: str) -> None:
    to = target("keyed", streams={"numbers": {}, "letters": {}})
    project = make_project(source({"numbers": 2, "letters": 2}), to)
    project.run().expect(0)
    remaining = {"numbers": 3, **({"letters": letters} if letters else {})}
    project.pipeline("p", source(remaining), to)

    for _ in range(2):
        project.run("--json").expect(1, code)

    assert (project.ids(), project.ids("letters")) == ([1, 2, 3], [1, 2])
    assert project.position() == 3
    assert project.runs()[0]["status"] == "failed"
    project.command("check", "p", "--json").expect(2, code)
    project.run("--stream", "numbers").expect(0)


ONE_COLUMN = {"properties": {"id": "integer"}, "replication_key": "id", "rows": 3}
EXPORTED: dict[str, Any] = {
    "numbers": {},
    "columns": {"columns": ["id", "text"]},
    "excluded": {"columns": {"exclude": ["text"]}},
    "keys": {"unique_constraints": ["id", "text"]},
    "dropped": {},
}


def test_what_a_destination_names_fails_alone_when_it_is_gone(make_project: MakeProject) -> None:
    to = target("keyed", streams=EXPORTED), target("keyed", {"path": "all.db"}, uuid="other")
    full = {"*": {"replication_method": "FULL_TABLE"}}
    project = make_project(rows_tap(dict.fromkeys(EXPORTED, 2), streams=full), *to)
    project.run().expect(0)
    remaining = {"numbers": 3, "columns": ONE_COLUMN, "excluded": ONE_COLUMN, "keys": ONE_COLUMN}
    project.pipeline("p", rows_tap(remaining, streams=full), *to)

    run = project.run("--json").expect(1)

    codes = {name: error["code"] for name, error in json.loads(run.out)["errors"].items()}
    assert codes == {
        "load.columns": "stream.column_unknown",
        "load.excluded": "stream.column_unknown",
        "load.keys": "stream.column_unknown",
        "load.dropped": "stream.unknown",
    }
    for path in ("out.db", "all.db"):
        # No destination goes ahead of the others.
        assert (project.ids(path=path), project.ids("columns", path), project.ids("keys", path)) == (
            [1, 2, 3],
            [1, 2],
            [1, 2],
        )
    project.run("--stream", "numbers").expect(0)
    project.run("--json", "--stream", "numbers", "--stream", "keys").expect(1, "stream.column_unknown")


def test_files_that_cannot_be_read_fail_alone_from_the_first_run_on(make_project: MakeProject) -> None:
    to = target("files", {"path": "out", "format": "jsonl"}, builtin=True)
    project = make_project(tap("files", {"path": "in"}, builtin=True), to)
    (project.root / "in").mkdir()
    (project.root / "in/good.csv").write_text("id\n1\n")
    (project.root / "in/broken.csv").write_text('id,text\n1,"a\n')

    run = project.run("--json").expect(1)

    (error,) = json.loads(run.out)["errors"].values()
    assert (error["code"], "in/broken.csv" in error["message"]) == ("stream.not_readable", True)
    assert [path.parent.name for path in (project.root / "out").rglob("*.jsonl")] == ["good"]
    project.command("check", "p", "--json").expect(2, "stream.not_readable")
    project.pipeline("p", tap("files", {"path": "in"}, builtin=True, streams={"*": {}, "broken": False}), to)
    project.run().expect(0)


def test_a_stream_that_is_left_out_may_vanish(make_project: MakeProject) -> None:
    out = {"*": {}, "secret": False}
    load = tap("sqlite", {"path": "shop.db"}, builtin=True, streams=out)
    project = make_project(load, target("duckdb", {"path": "w.duckdb"}, builtin=True, streams=out))
    with closing(sqlite3.connect(project.root / "shop.db")) as shop:
        shop.executescript("CREATE TABLE numbers (id INTEGER PRIMARY KEY); CREATE TABLE secret (id)")
        project.run().expect(0)
        shop.execute("DROP TABLE secret")

    for _ in range(2):
        project.run().expect(0)


def test_a_new_stream_does_not_stop_the_one_that_has_its_table(make_project: MakeProject) -> None:
    to = target(streams={"*": {}, "numbers": {"destination_table": "first"}})
    project = make_project(rows_tap({"numbers": 2}), to)
    project.run().expect(0)
    project.pipeline("p", rows_tap({"first": 1, "numbers": 3}), to)

    run = json.loads(project.run("--json").expect(1).out)

    assert {name: error["code"] for name, error in run["errors"].items()} == {"load.first": "destination.table_shared"}
    assert project.ids("first") == [1, 2, 3]


def test_a_source_that_has_nothing_left_leaves_the_others_to_run(make_project: MakeProject) -> None:
    other = rows_tap({"letters": 2}, uuid="second")
    project = make_project(rows_tap({"numbers": 2}), other, target())
    project.run().expect(0)
    project.pipeline(
        "p", rows_tap({"new": 2}, streams={"numbers": INCREMENTAL}), rows_tap({"letters": 3}, uuid="second"), target()
    )

    project.run("--json").expect(1, "stream.unknown")

    assert (project.ids(), project.ids("letters"), project.ids("new")) == ([1, 2], [1, 2, 3], [])


def test_a_stream_that_was_never_loaded_is_a_mistake_in_the_settings(make_project: MakeProject) -> None:
    project = make_project(source({"numbers": {"properties": COLUMNS, "replication_key": "id", "rows": 2}}), target())

    project.run("--json").expect(2, "stream.unknown")

    assert project.ids() == []
