"""Parallel streams: a process each, failures and retries by group."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.integration.common import COLUMNS, INCREMENTAL, rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import Block, tap, target


def parallel(config: dict[str, Any] | None = None, **keys: Any) -> Block:
    """Three streams, each in a tap process of its own."""
    settings = {name: {**INCREMENTAL, "run_in_parallel": True} for name in ("a", "b", "c")}
    return rows_tap({"a": 40, "b": 40, "c": 40}, {"spy": "spy", **(config or {})}, streams=settings, **keys)


def test_parallel_streams_have_tap_processes_of_their_own_and_share_the_target(make_project: MakeProject) -> None:
    project = make_project(parallel(max_parallel=3), target("keyed", {"flush": 10, "spy": "spy"}))

    project.run().expect(0)

    assert [project.ids(name) for name in "abc"] == [upto(40)] * 3
    assert {name: mark["replication_key_value"] for name, mark in project.state().items()} == dict.fromkeys("abc", 40)
    assert len(project.spied()) == 3
    assert len(project.spied("target")) == 1
    # Each is given its own streams' bookmarks in the next run, whatever the others did.
    project.run().expect(0)
    assert [project.ids(name) for name in "abc"] == [upto(40)] * 3


def test_one_groups_failure_leaves_the_others_running(make_project: MakeProject) -> None:
    project = make_project(
        parallel({"fail": {"stream": "b", "after": 25}}, max_parallel=3), target("keyed", {"flush": 10})
    )

    project.run().expect(1, r"\bb\b", "lost the connection while reading b")

    assert (project.ids("a"), project.ids("c")) == (upto(40), upto(40))
    assert (project.position("a"), project.position("c")) == (40, 40)
    # What b's tap sent before it failed is kept and proven.
    assert project.ids("b") == upto(25)
    assert project.position("b") == 20
    project.pipeline("p", parallel(max_parallel=3), target("keyed", {"flush": 10}))
    project.run().expect(0)
    assert project.ids("b") == upto(40)


def test_a_failed_group_is_retried_from_its_last_proof(make_project: MakeProject) -> None:
    project = make_project(
        parallel({"fail": {"stream": "b", "after": 25, "once": "failed"}}, max_parallel=3),
        target("keyed", {"flush": 10, "log": "log.jsonl"}),
        retry_config={"retries": 1, "delay": 0},
    )

    project.run().expect(0)

    assert (project.root / "failed").exists()
    assert [project.ids(name) for name in "abc"] == [upto(40)] * 3
    retried = [m["record"]["id"] for m in project.messages() if m["type"] == "RECORD" and m["stream"] == "b"]
    assert retried == [*upto(25), *range(20, 41)], "the retry begins at the proven position (a `>=` tap's 20)"


def test_a_failed_tap_without_retries_fails_the_run_after_its_rows_are_proven(make_project: MakeProject) -> None:
    config = {"fail": {"stream": "numbers", "after": 25, "code": 3}}
    project = make_project(rows_tap({"numbers": 40}, config), target("keyed", {"flush": 1000}))

    project.run().expect(1, "tap-rows", "3", "lost the connection while reading numbers")

    assert project.ids() == upto(25)
    assert project.position() == 20


def test_every_stream_of_a_tap_that_fails_in_discovery_is_untouched(make_project: MakeProject) -> None:
    source = Block(
        "load",
        "data_loader",
        "source: tap-false\n",
        plugin=("tap-false", {"command": ["/bin/sh", "-c", "echo no route to host >&2; exit 4"]}),
    )
    project = make_project(source, target())

    completed = project.run()

    assert completed.code == 1, completed
    assert "tap-false" in completed.text
    assert "no route to host" in completed.text
    assert project.rows() == []


def test_a_parent_with_its_children_stays_together(make_project: MakeProject) -> None:
    streams: dict[str, Any] = {
        "orders": {"properties": COLUMNS, "rows": 10},
        "lines": {"properties": COLUMNS, "rows": 10, "metadata": {"parent-tap-stream-id": "orders"}},
        "users": {"properties": COLUMNS, "rows": 10},
    }
    settings = {name: {"replication_method": "FULL_TABLE", "run_in_parallel": True} for name in streams}
    project = make_project(rows_tap(streams, {"spy": "spy"}, streams=settings, max_parallel=3), target())

    project.run().expect(0)

    groups = []
    for report in project.spied():
        entries = report["catalog"]["streams"]
        tops = {e["tap_stream_id"]: next(m["metadata"] for m in e["metadata"] if not m["breadcrumb"]) for e in entries}
        groups.append(sorted(name for name, top in tops.items() if top.get("selected")))
    assert sorted(groups) == [["lines", "orders"], ["users"]]
    assert [project.ids(name) for name in streams] == [upto(10)] * 3


def sends_alias(*messages: list[Any], parallel: bool = True) -> Block:
    """Two streams, each in a process of its own; `{"of": id}` ends the messages of one of them."""
    settings = {name: {**INCREMENTAL, "run_in_parallel": parallel} for name in ("a", "b")}
    return tap("messages", {"catalog": [{"id": "a"}, {"id": "b"}], "messages": list(messages)}, streams=settings)


def test_a_stream_without_a_key_that_two_processes_send_is_not_delivered_twice(make_project: MakeProject) -> None:
    both = [["S0", "clean"], ["R", "clean", 1], ["R", "clean", 2]]
    own = [["S", "a", {"of": "a"}], ["R", "a", 1, {"of": "a"}], ["ST", {"bookmarks": {"a": 1}}, {"of": "a"}]]
    project = make_project(sends_alias(*both, *own), target())

    completed = project.run("--json").expect(1)

    (failure,) = json.loads(completed.out)["errors"].values()
    assert failure["code"] == "stream.in_several_processes"
    assert project.ids("clean") in ([1, 2], [])
    project.pipeline("p", sends_alias(*both, *own, parallel=False), target("keyed", {"path": "one.db"}))
    project.run("--full-refresh").expect(0)
    assert project.ids("clean", "one.db") == [1, 2]


def test_a_bookmark_of_a_stream_that_two_processes_send_is_not_saved(make_project: MakeProject) -> None:
    states = [["ST", {"bookmarks": {"clean": number}}, {"of": id}] for id, number in (("a", 5), ("b", 10))]
    messages = [["S", "clean"], ["R", "clean", 5, {"of": "a"}], ["R", "clean", 10, {"of": "b"}], *states]
    project = make_project(sends_alias(*messages), target())

    project.run().expect(1)

    assert project.state() == {}


def test_a_stream_with_a_key_may_come_from_two_processes(make_project: MakeProject) -> None:
    messages = [["S", "all"], ["R", "all", 1, {"of": "a"}], ["R", "all", 2, {"of": "b"}]]
    project = make_project(sends_alias(*messages), target())

    project.run().expect(0)

    assert project.ids("all") == [1, 2]
