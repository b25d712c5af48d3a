"""Full refresh of a stream, bookmark overrides, a changed replication key."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.integration.common import INCREMENTAL, rows_tap
from tests.conftest import MakeProject
from tests.support.project import target


def test_full_refresh_of_one_stream_leaves_the_others(make_project: MakeProject) -> None:
    project = make_project(
        rows_tap({"a": 30, "b": 20}, {"spy": "spy"}), target("keyed", {"log": "log.jsonl", "flush": 5})
    )
    project.run().expect(0)
    (project.root / "log.jsonl").unlink()

    project.run("--full-refresh", "--stream", "a").expect(0)

    sent = [m["stream"] for m in project.messages() if m["type"] == "RECORD"]
    assert sent == ["a"] * 30
    assert "a" not in project.spied()[-1]["state"].get("bookmarks", {})
    assert (project.position("a"), project.position("b")) == (30, 20)


def test_full_refresh_keeps_the_old_position_until_the_first_new_one_is_saved(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 30}), target("keyed", {"flush": 5}))
    project.run().expect(0)
    project.pipeline(
        "p",
        rows_tap({"numbers": 30}, {"fail_at_start": {"stream": "numbers"}}),
        target("keyed", {"flush": 5}),
    )

    project.run("--full-refresh").expect(1)

    assert project.position() == 30


def test_a_bookmark_override_is_used_once(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 30}, {"spy": "spy"}), target("keyed", {"log": "log.jsonl"}))
    project.run().expect(0)
    (project.root / "log.jsonl").unlink()

    project.run("--bookmark", "numbers.id=25").expect(0)

    # It replaces the value inside the saved bookmark's shape, and takes the column's type.
    assert project.spied()[-1]["state"]["bookmarks"]["numbers"] == {
        "replication_key": "id",
        "replication_key_value": 25,
    }
    assert [m["record"]["id"] for m in project.messages() if m["type"] == "RECORD"] == list(range(25, 31))
    project.run().expect(0)
    assert project.spied()[-1]["state"]["bookmarks"]["numbers"]["replication_key_value"] == 30


def test_a_stored_override_counts_once_per_distinct_value(make_project: MakeProject) -> None:
    source = rows_tap({"numbers": 30}, {"spy": "spy"})
    project = make_project(source, target())
    project.run().expect(0)

    def given() -> Any:
        project.run().expect(0)
        return project.spied()[-1]["state"]["bookmarks"]["numbers"]["replication_key_value"]

    project.pipeline("p", source, target(), variables={"__bookmark_values__": {"load": {"numbers": {"id": 25}}}})
    assert given() == 25
    assert given() == 30
    project.pipeline("p", source, target(), variables={"__bookmark_values__": {"load": {"numbers": {"id": 27}}}})
    assert given() == 27
    assert given() == 30


def test_an_override_given_at_run_time_counts_each_time(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 30}, {"spy": "spy"}), target())
    project.run().expect(0)
    variables = json.dumps({"__bookmark_values__": {"load": {"numbers": {"id": 28}}}})

    for _ in range(2):
        project.run("--runtime-vars", variables).expect(0)
        assert project.spied()[-1]["state"]["bookmarks"]["numbers"]["replication_key_value"] == 28


def test_an_override_without_a_saved_bookmark_needs_a_known_shape(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 30}, {"spy": "spy"}), target())

    project.run("--bookmark", "numbers.id=25").expect(2, "state set")

    assert project.rows() == []


def test_with_another_key_the_old_bookmark_is_not_given(make_project: MakeProject) -> None:
    columns = {"id": "integer", "at": "integer"}
    spec = {"properties": columns, "rows": 20}
    source = rows_tap({"numbers": spec}, {"spy": "spy"}, streams={"numbers": INCREMENTAL})
    project = make_project(source, target())
    project.run().expect(0)
    by_at = {"numbers": {**INCREMENTAL, "bookmark_properties": ["at"]}}
    project.pipeline("p", rows_tap({"numbers": spec}, {"spy": "spy"}, streams=by_at), target())

    project.run().expect(0)

    assert "numbers" not in (project.spied()[-1]["state"].get("bookmarks") or {})
    assert project.state()["numbers"]["replication_key"] == "at"
