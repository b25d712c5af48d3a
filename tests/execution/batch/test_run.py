"""What runs survive that is not the blocks' fault: records that cannot be made, signals."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime

import pytest

from streamline.errors import StreamlineError
from streamline.execution.batch.calls import RunFacts
from streamline.execution.batch.output_layout import OutputLayout
from streamline.execution.batch.plan import make_plan
from streamline.execution.batch.runner import Runner
from streamline.execution.batch.task import Task, TaskResult
from streamline.execution.engine import run_pipeline
from streamline.execution.run import RunOptions, open_run
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from streamline.state import open_store
from streamline.state.sqlite import SQLiteStore
from tests.support.batch import BatchProject
from tests.support.processes import wait_until


def test_a_store_that_takes_no_records_stops_no_block(project: BatchProject, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StreamlineError("the state store failed: database or disk is full")

    monkeypatch.setattr(SQLiteStore, "save_block_run", full)
    monkeypatch.setattr(SQLiteStore, "finish_run", full)
    opened = Project.open(project.root)
    result = run_pipeline(opened, load_pipeline(opened, "p"), RunOptions())
    assert result.status == "completed"
    assert project.output("b") == 2
    assert any("cannot record how the run ended" in one for one in result.warnings)


def test_a_run_that_dies_before_it_is_recorded_runs_nothing_twice(
    project: BatchProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise SystemExit("killed")

    opened = Project.open(project.root)
    with monkeypatch.context() as patched:
        patched.setattr(SQLiteStore, "finish_run", die)
        with pytest.raises(SystemExit):
            run_pipeline(opened, load_pipeline(opened, "p"), RunOptions())
    project.run("--resume").expect(0, r"a +completed[^\n]*resumed", r"b +completed[^\n]*resumed")


def test_nothing_begins_after_a_signal(project: BatchProject) -> None:
    project.block("asked", "@condition\ndef asked():\n    return True\n", type="conditional", upstream=["a"])
    opened = Project.open(project.root)
    plan = make_plan(opened, load_pipeline(opened, "p"))
    done: list[str] = []

    class Executor:
        size = 1

        async def run(self, task: Task, *, isolated: bool) -> TaskResult:
            done.append(task.kind)
            runner.interrupt()  # as the condition says yes
            return TaskResult(gate=True)

        def cancel(self, task_id: str) -> None:
            pass

    async def go() -> list[str]:
        return [one.status for one in await runner.run()]

    with closing(open_store(opened.state_url, opened.root)) as store, open_run(opened, store, "p", "r") as run:
        facts = RunFacts(run=run, execution_date=datetime.now(UTC), variables={}, runtime=())
        runner = Runner(facts, plan, OutputLayout(opened, "p", "r"), Executor(), journal=None, past=None)
        assert asyncio.run(go())[0] == "cancelled"
    assert done == ["condition"]


HOST = """
import asyncio, streamline

async def main():
    streamline.Pipeline("p").execute_sync()

asyncio.run(main())
"""


def test_ctrl_c_ends_a_run_that_a_program_waits_for_in_its_event_loop(project: BatchProject) -> None:
    slow = "import time\n@data_loader\ndef load():\n    open('begun', 'w').close()\n    time.sleep(600)\n"
    project.write("data_loaders/a.py", slow)
    project.block("heard", "@callback('cancelled')\ndef heard(*_):\n    open('heard', 'w').close()\n", type="callback")
    project.entries["callbacks"][0]["upstream_blocks"] = ["a"]
    project.save()
    host = subprocess.Popen([sys.executable, "-c", HOST], cwd=project.root, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: (project.root / "begun").exists(), "the block begins")
        host.send_signal(signal.SIGINT)
        _, err = host.communicate(timeout=60)
    finally:
        host.kill()
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    assert (project.root / "heard").exists()
    assert project.statuses()["a"] == "cancelled"
