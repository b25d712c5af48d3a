"""Taps that never end: proof while they run."""

from __future__ import annotations

import signal

import pytest

from tests.conformance.integration.common import INCREMENTAL, upto
from tests.conftest import MakeProject
from tests.support.processes import wait_until
from tests.support.project import Block, tap, target


def test_a_target_that_proves_only_at_its_end_is_given_sessions(make_project: MakeProject) -> None:
    source = tap("never_ends", {"every": 0.01}, streams={"numbers": INCREMENTAL}, max_duration=30)
    sink = target("silent_until_end", {"spy": "spy", "flush": 10, "log": "log.jsonl"}, session_interval=0.3)
    project = make_project(source, sink)
    running = project.start("run", "p")

    # Positions are saved while it runs, session by session.
    wait_until(lambda: len(project.spied("target")) >= 3, "two sessions have been closed")
    first = project.position()
    assert first
    assert set(upto(first)) <= set(project.ids())
    wait_until(lambda: (project.position() or 0) > first, "the next session is proven")
    running.signal(signal.SIGTERM)

    completed = running.finish()
    assert completed.code in (0, 143), completed
    project.assert_nothing_left(completed)
    assert project.ids() == upto(len(project.ids())), "not a row is missing between two sessions"
    # Each session begins with the proven state and the schema.
    messages = project.messages()
    starts = [i for i, m in enumerate(messages) if m["type"] == "SCHEMA"]
    assert len(starts) >= 3
    assert all(messages[i - 1]["type"] == "STATE" for i in starts)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_endless_run_that_is_stopped_proves_what_it_sent(make_project: MakeProject, number: signal.Signals) -> None:
    source = tap("never_ends", {"every": 0.01, "manner": "drain"}, streams={"numbers": INCREMENTAL}, idle_timeout=30)
    project = make_project(source, target("keyed", {"flush": 5}))
    running = project.start("run", "p")
    wait_until(lambda: len(project.ids()) >= 10, "rows arrive")

    running.signal(number)

    completed = running.finish()
    assert completed.code in (0, 128 + number), completed
    project.assert_nothing_left(completed)
    assert project.position() == len(project.ids())


def test_a_source_that_is_stopped_replaces_no_table_and_the_plan_says_so(make_project: MakeProject) -> None:
    def blocks(**settings: object) -> tuple[Block, Block]:
        source = tap("counts", {"rows": 20}, streams={"numbers": {"replication_method": "FULL_TABLE"}}, max_duration=60)
        return source, target(plugin={"args": ["--able=activate-version"]}, **settings)

    project = make_project(*blocks())
    shown = project.command("explain", "p").expect(0, "upsert.*max_duration")
    assert "FULL_TABLE, and target-keyed lists" not in shown.out
    project.pipeline("p", *blocks(streams={"numbers": {"load_method": "replace"}}))

    project.run("--json").expect(2, "destination.load_method_unsupported", "max_duration")
