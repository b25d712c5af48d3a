"""Schemas that change, within a run and between two: evolve, freeze, pause."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.integration.common import INCREMENTAL, upto
from tests.conftest import MakeProject
from tests.support.project import Project, tap, target


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
