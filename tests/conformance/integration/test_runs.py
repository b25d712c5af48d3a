"""One run of a pipeline at a time, and what a killed one leaves."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.conformance.integration.common import INCREMENTAL, rows_tap, upto
from tests.conftest import MakeProject
from tests.support.processes import children_of_runs, wait_until
from tests.support.project import tap, target


def test_a_second_run_of_a_pipeline_refuses_and_names_the_first(make_project: MakeProject) -> None:
    config = {"rows": 100, "wait_at": 50, "wait_for": "go", "spy": "spy"}
    project = make_project(tap("counts", config), target())
    first = project.start("run", "p")
    wait_until(project.spied, "the first run's tap is there")
    run_id = project.spied()[0]["environ"]["STREAMLINE_RUN_ID"]

    project.command("run", "p").expect(1, run_id)

    project.write("go", "")
    first.finish().expect(0)
    project.assert_nothing_left()
    assert project.ids() == upto(100)
    project.run().expect(0)


def test_two_pipelines_with_one_tap_run_side_by_side(make_project: MakeProject) -> None:
    config = {"rows": 100, "wait_at": 50, "wait_for": "go", "spy": "spy"}
    settings = {"numbers": INCREMENTAL}
    project = make_project(tap("counts", config, streams=settings), target())
    project.pipeline(
        "q",
        tap("counts", {**config, "rows": 200}, uuid="load_q", streams=settings),
        target("keyed", {"path": "q.db"}, uuid="export_q"),
    )
    runs = [project.start("run", name) for name in ("p", "q")]
    wait_until(lambda: len(project.spied()) == 2, "both taps are there")

    project.write("go", "")

    for run in runs:
        run.finish().expect(0)
    project.assert_nothing_left()
    assert project.ids() == upto(100)
    assert project.ids(path="q.db") == upto(200)
    assert (project.position(), project.position(pipeline="q")) == (100, 200)


def test_a_killed_runs_leftovers_are_ended_by_the_next_one(make_project: MakeProject) -> None:
    project = make_project(tap("forks_children", {"daemon": True, "stay": True, "child_pid": "child"}), target())
    running = project.start("run", "p")
    wait_until((project.root / "child").exists, "the tap has forked its daemon")
    running.kill()
    project.pipeline("p", tap("forks_children", {}), target())

    private = list((project.root / ".streamline" / "runs").rglob("*config*.json"))
    assert private, "the killed run could not delete its private files"
    project.run().expect(0)

    assert project.ids() == upto(30)
    assert not list((project.root / ".streamline" / "runs").rglob("*config*.json"))
    statuses = sorted(run["status"] for run in project.runs())
    assert statuses[0] == "completed"
    assert "running" not in statuses


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_proves_what_is_in_flight_and_the_next_one_goes_on(
    make_project: MakeProject, number: signal.Signals
) -> None:
    config = {"rows": 2000, "state_every": 10, "wait_at": 1000, "wait_for": "go"}
    project = make_project(tap("counts", config, streams={"numbers": INCREMENTAL}), target("keyed", {"flush": 100}))
    running = project.start("run", "p")
    wait_until(lambda: len(project.ids()) >= 900, "most rows are there")

    running.signal(number)

    completed = running.finish().expect(128 + number, "interrupt")
    project.assert_nothing_left(completed)
    assert project.position() == len(project.ids()) == 1000
    assert "interrupted" in [run["status"] for run in project.runs()] or "cancelled" in [
        run["status"] for run in project.runs()
    ]
    project.write("go", "")
    project.run().expect(0)
    assert project.ids() == upto(2000)


def test_two_interrupts_make_a_cancelled_run_and_no_failed_one(make_project: MakeProject) -> None:
    config = {"rows": 100, "wait_at": 50, "wait_for": "go", "spy": "spy"}
    project = make_project(tap("counts", config, streams={"numbers": INCREMENTAL}), target())
    running = project.start("run", "p")
    wait_until(project.spied, "the run's tap is there")

    running.signal(signal.SIGINT)
    running.signal(signal.SIGINT)

    project.assert_nothing_left(running.finish().expect(130, "interrupted"))
    assert [run["status"] for run in project.runs()] == ["cancelled"]
    project.write("go", "")
    project.run().expect(0)
    assert project.ids() == upto(100)


def test_positions_cannot_be_changed_under_a_running_pipeline(make_project: MakeProject) -> None:
    config = {"rows": 100, "wait_at": 50, "wait_for": "go", "spy": "spy"}
    project = make_project(tap("counts", config, streams={"numbers": INCREMENTAL}), target())
    running = project.start("run", "p")
    wait_until(project.spied, "the run's tap is there")

    project.command("state", "set", "p", "numbers", '{"replication_key_value": 5}').expect(
        1, project.spied()[0]["environ"]["STREAMLINE_RUN_ID"]
    )

    project.write("go", "")
    running.finish().expect(0)
    assert project.position() == 100


def test_a_dry_run_moves_nothing(make_project: MakeProject) -> None:
    project = make_project(tap("counts", {"spy": "spy"}), target("keyed", {"spy": "spy"}))

    project.run("--dry-run").expect(0, "numbers")

    assert not project.spied()
    assert not project.spied("target")
    assert project.state() == {}


def test_of_several_runs_started_at_once_one_runs(make_project: MakeProject) -> None:
    project = make_project(tap("counts", {"rows": 100, "wait_at": 50, "wait_for": "go", "spy": "spy"}), target())
    runs = [project.start("run", "p") for _ in range(4)]
    wait_until(lambda: sum(run.process.poll() is None for run in runs) == 1, "three of them refuse")
    wait_until(project.spied, "the fourth has its tap")

    project.write("go", "")

    codes = sorted(run.finish().code for run in runs)
    assert codes == [0, 1, 1, 1]
    assert len(project.spied()) == 1
    assert project.ids() == upto(100)


def test_an_interrupt_while_a_retry_is_waited_for_ends_the_run(make_project: MakeProject) -> None:
    config = {"fail": {"stream": "numbers", "after": 25}, "spy": "spy"}
    project = make_project(rows_tap({"numbers": 40}, config), target(), retry_config={"retries": 3, "delay": 3600})
    running = project.start("run", "p")
    wait_until(lambda: project.ids() == upto(25), "the first attempt has failed and its rows are flushed")
    wait_until(lambda: not [p for p in children_of_runs(project.root) if p.runs("tap_rows.py")], "its tap is gone")

    running.signal(signal.SIGTERM)

    running.finish(20).expect(143)
    assert len(project.spied()) == 1
    assert project.position() == 20


def test_a_closed_terminal_does_not_stop_the_sync(make_project: MakeProject) -> None:
    project = make_project(tap("counts", {"rows": 3000}), target())
    argv = [sys.executable, "-m", "streamline", "run", "p"]

    # As `streamline run p | head -0` does.
    process = subprocess.Popen(argv, cwd=project.root, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    process.stdout.close()
    _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert b"Traceback" not in err
    assert project.ids() == upto(3000)
