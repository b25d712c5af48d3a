"""Records that do not fit their schema: pass, quarantine, fail."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from tests.conformance.integration.common import COLUMNS, INCREMENTAL, rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import Project, tap, target

BAD_ROWS = [{"id": n, "text": f"text {n}" if n % 100 else n} for n in upto(350)]
"""350 rows; in three of them `text` is a number, which its schema does not allow."""

GOOD_IDS = [n for n in upto(350) if n % 100]


def bad_records(make_project: MakeProject, **keys: Any) -> Project:
    """A project with a target that dies of a bad record, as targets do."""
    source = rows_tap({"numbers": BAD_ROWS}, {"page": 50})
    return make_project(source, target("keyed", {"validate": True, "flush": 20}, **keys))


def test_pass_retries_once_with_validation_when_the_target_fails(make_project: MakeProject) -> None:
    project = bad_records(make_project)

    completed = project.run().expect(0)

    assert project.ids() == GOOD_IDS
    assert project.position() == 350
    assert "3" in completed.last_line
    assert "quarantine" in completed.last_line.lower()
    letters = project.dead_letters()
    assert sorted(json.dumps(letter).count("numbers") > 0 for letter in letters) == [True] * 3


def test_quarantine_validates_every_record_first(make_project: MakeProject) -> None:
    project = bad_records(make_project, on_bad_record="quarantine")

    completed = project.run().expect(0)

    assert project.ids() == GOOD_IDS
    assert project.position() == 350
    assert "3" in completed.last_line
    assert "quarantine" in completed.last_line.lower()
    assert len(project.dead_letters()) == 3


def test_fail_stops_the_stream_at_its_first_bad_record(make_project: MakeProject) -> None:
    project = bad_records(make_project, on_bad_record="fail")

    project.run().expect(1, "numbers", "text")

    assert set(project.ids()) <= set(range(1, 100))
    assert set(upto(project.position() or 0)) <= set(project.ids())


def test_more_than_max_bad_records_fail_the_stream(make_project: MakeProject) -> None:
    project = bad_records(make_project, on_bad_record="quarantine", max_bad_records=2)

    project.run().expect(1, "numbers", "max_bad_records|bad records")

    position = project.position() or 0
    assert set(GOOD_IDS) & set(upto(position)) <= set(project.ids())


def test_as_many_as_max_bad_records_pass(make_project: MakeProject) -> None:
    bad_records(make_project, on_bad_record="quarantine", max_bad_records=3).run().expect(0)


def test_a_streams_own_pass_is_validated_when_the_target_fails(make_project: MakeProject) -> None:
    project = bad_records(make_project, on_bad_record="fail", streams={"numbers": {"on_bad_record": "pass"}})

    project.run().expect(0)

    assert project.ids() == GOOD_IDS
    assert len(project.dead_letters()) == 3


def test_a_schema_that_no_target_can_use_stops_its_stream_alone(make_project: MakeProject) -> None:
    streams = {
        "a": 20,
        "odd": {"properties": {"id": "integer"}, "key": ["number"], "replication_key": "id", "rows": 20},
        "z": 20,
    }
    project = make_project(rows_tap(streams), target("keyed"))

    failed = project.run().expect(1, "stream 'odd': .* key")

    told = [line for line in failed.err.splitlines() if line.startswith("load  ")]
    assert [line.split()[:3] for line in told] == [["load", "odd", "failed:"]] * 2, "the stream, and the attempt"
    lines = [line for line in failed.out.splitlines() if line.startswith("load  ")]
    assert [line.endswith(", failed") for line in lines] == ["  odd: " in line for line in lines]
    assert len(lines) == 3
    assert (project.ids("a"), project.ids("odd"), project.ids("z")) == (upto(20), [], upto(20))
    assert (project.position("a"), project.position("odd"), project.position("z")) == (20, None, 20)


@pytest.mark.parametrize("where", ["record", "schema", "state"])
def test_what_is_nested_too_deeply_harms_its_stream_alone(make_project: MakeProject, where: str) -> None:
    project = make_project(tap("nests", {"where": where}), target("keyed"))

    completed = project.run()

    assert completed.code == (1 if where == "schema" else 0)
    assert (project.ids("a"), project.ids("z")) == (upto(3), upto(3))
    assert (project.position("a"), project.position("z")) == (3, 3)
    assert project.ids("deep") == {"record": [1, 3], "schema": [], "state": upto(3)}[where]
    assert project.position("deep") == (3 if where == "record" else None)
    letters = project.dead_letters()
    assert len(letters) == (where == "record")
    assert "nested" in completed.text + json.dumps(letters)


def test_a_value_that_is_no_date_is_quarantined_and_does_not_change_the_type_of_its_column(
    make_project: MakeProject,
) -> None:
    rows = [{"id": 1, "text": "2024-02-29"}, {"id": 2, "text": "banana"}, {"id": 3, "text": None}]
    content = {"a": {"properties": COLUMNS, "replication_key": "id", "rows": rows}}
    settings = {
        "a": {**INCREMENTAL, "schema": {"properties": {"text": {"type": ["null", "string"], "format": "date"}}}}
    }
    project = make_project(
        rows_tap(content, streams=settings),
        target("duckdb", {"path": "out.duckdb"}, builtin=True, on_bad_record="quarantine"),
    )

    project.run().expect(0, "1 quarantined")

    with duckdb.connect(project.root / "out.duckdb", read_only=True) as db:
        described = db.execute("SELECT column_type FROM (DESCRIBE a) WHERE column_name = 'text'").fetchall()
        assert described == [("DATE",)]
        assert db.execute("SELECT id FROM a ORDER BY id").fetchall() == [(1,), (3,)]
    (letter,) = project.dead_letters()
    assert "banana" in letter["error"]
