"""Schemas that change, within a run and between two: evolve, freeze, pause."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.integration.common import INCREMENTAL, upto
from tests.conftest import MakeProject
from tests.support.processes import wait_until
from tests.support.project import Block, Project, tap, target, transformer

ORDERS = {"id": {"type": "integer"}, "n": {"type": "integer"}, "note": {"type": "string"}}
DROPS_NOTE = """
from streamline.decorators import transformer


@transformer
def drop(rows: list[dict], *args, **kwargs):
    return [{"id": row["id"], "n": row["n"]} for row in rows]
"""


def plays(script: list[Any]) -> Block:
    """A tap that plays a script of the stream `orders`."""
    orders = {
        "id": "orders",
        "name": "orders",
        "sends": "orders",
        "key": ["id"],
        "mark": "orders",
        "properties": ORDERS,
    }
    streams = {"orders": {"replication_method": "INCREMENTAL"}}
    return tap("plays", {"streams": [orders], "script": script, "shape": "bookmarks"}, streams=streams)


def schema_change(make_project: MakeProject, change: str, policy: str, **config: Any) -> Project:
    """A project whose tap changes its schema midway (or, with `from_start`, between runs)."""
    source = tap("changes_schema", {"change": change, **config}, streams={"numbers": INCREMENTAL})
    return make_project(source, target("keyed", {"log": "log.jsonl"}, schema_change=policy))


def test_freeze_drops_new_columns(make_project: MakeProject) -> None:
    project = schema_change(make_project, "add", "freeze")

    project.run().expect(0)

    assert len(project.rows()) == 20
    assert all(row.keys() == {"id", "text"} for row in project.rows())
    schemas = [m["schema"]["properties"].keys() for m in project.messages() if m["type"] == "SCHEMA"]
    assert all(columns == {"id", "text"} for columns in schemas)
    assert project.position() == 20


def test_freeze_quarantines_retyped_values(make_project: MakeProject) -> None:
    project = schema_change(make_project, "retype", "freeze")

    completed = project.run().expect(0)

    assert project.ids() == upto(10)
    assert "10" in completed.last_line
    assert len(project.dead_letters()) == 10
    assert project.position() == 20


def test_pause_stops_before_the_change_until_the_operator_says_evolve(make_project: MakeProject) -> None:
    project = schema_change(make_project, "add", "pause")

    project.run().expect(1, "numbers", "streams set")

    assert project.ids() == upto(10)
    assert project.position() == 10
    project.run().expect(1)
    project.command("streams", "set", "p", "numbers", "schema_change=evolve", "--block", "export").expect(0)
    project.run().expect(0)
    assert set(upto(20)) <= set(project.ids())
    assert any("note" in row for row in project.rows())


@pytest.mark.parametrize(("policy", "code"), [("evolve", 0), ("freeze", 0), ("pause", 1)])
def test_a_change_between_two_runs_is_a_change_too(make_project: MakeProject, policy: str, code: int) -> None:
    project = schema_change(make_project, "none", policy)
    project.run().expect(0)
    project.pipeline(
        "p",
        tap("changes_schema", {"change": "add", "from_start": True}, streams={"numbers": INCREMENTAL}),
        target("keyed", {"log": "log.jsonl"}, schema_change=policy),
    )

    project.run().expect(code)

    new = [row for row in project.rows() if row["id"] > 20]
    assert len(new) == (0 if policy == "pause" else 20)
    assert any("note" in row for row in new) == (policy == "evolve")


def test_a_run_without_records_is_no_change_where_a_block_drops_a_column(make_project: MakeProject) -> None:
    script: list[Any] = [
        ["schema", "orders", ORDERS],
        ["record", "orders", 1, {"id": 1, "n": 1, "note": "a"}],
        ["state"],
    ]
    project = make_project(
        plays(script), transformer(DROPS_NOTE), target("keyed", {"log": "log.jsonl"}, schema_change="pause")
    )
    project.run().expect(0)
    script += [["record", "orders", 2, {"id": 2, "n": 2, "note": "b"}], ["state"]]

    project.run().expect(0)  # nothing new
    project.pipeline("p", plays(script), transformer(DROPS_NOTE), target(schema_change="pause"))
    project.run().expect(0)

    assert project.rows("orders") == [{"id": 1, "n": 1}, {"id": 2, "n": 2}]
    schemas = [m["schema"]["properties"].keys() for m in project.messages() if m["type"] == "SCHEMA"]
    assert schemas
    assert all(columns == {"id", "n"} for columns in schemas)


def test_a_change_after_a_killed_run_is_a_change(make_project: MakeProject) -> None:
    config = {"rows": 100, "wait_at": 50, "wait_for": "never", "state_every": 10}
    project = make_project(
        tap("counts", config, streams={"numbers": INCREMENTAL}), target(config={"flush": 1}, schema_change="pause")
    )
    running = project.start("run", "p")
    wait_until(lambda: bool(project.position()), "a position is saved")
    running.kill()
    project.pipeline(
        "p",
        tap("changes_schema", {"change": "add", "from_start": True}, streams={"numbers": INCREMENTAL}),
        target(schema_change="pause"),
    )

    project.run("--json").expect(1, "stream.schema_paused")
