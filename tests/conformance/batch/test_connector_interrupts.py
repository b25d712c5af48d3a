"""Signals in the middle of flows of batch pipelines: everything ends, and --resume goes on."""

from __future__ import annotations

import signal
from collections.abc import Iterable

import pytest

from tests.conformance.batch.connector_projects import saved, slow
from tests.support.batch import BatchProject
from tests.support.processes import wait_until


def started(project: BatchProject) -> None:
    """Wait until the source is being read."""
    folder = project.root / ".streamline" / "runs"
    wait_until(lambda: any(folder.glob("*/flow-*/load.c*")), "the tap has started", 20)


def interrupt(project: BatchProject, signals: Iterable[signal.Signals]) -> int:
    running = project.start("run", "p")
    started(project)
    for number in signals:
        running.signal(number)
    completed = running.finish(20)
    project.assert_nothing_left(completed)
    assert "Traceback" not in completed.err, completed
    return completed.code


@pytest.mark.parametrize(
    ("piped", "signals", "code"),
    [
        (True, [signal.SIGINT], 130),
        (False, [signal.SIGTERM], 143),
        (True, [signal.SIGINT, signal.SIGINT], 130),
    ],
)
def test_an_interrupted_flow_can_be_resumed(
    project: BatchProject, piped: bool, signals: list[signal.Signals], code: int
) -> None:
    slow(project, piped=piped)
    assert interrupt(project, signals) == code
    assert saved(project) == {}
    if len(signals) == 1:
        assert project.statuses()["load"] == "cancelled"
    (project.root / "go").touch()
    project.run("--resume").expect(0)
    assert len(project.ids()) == 20
    assert [block for block, _ in saved(project)] == ["load"]


def test_a_killed_run_leaves_no_rows_behind(project: BatchProject) -> None:
    slow(project, piped=False)
    running = project.start("run", "p")
    started(project)
    running.kill()
    data = project.root / ".streamline" / "data" / "p"
    assert [path for path in data.iterdir() if path.is_dir() and "load" in path.name]
    project.entries["blocks"].clear()
    project.block("other", "@data_loader\ndef other():\n    return 1\n", type="data_loader")
    project.run().expect(0)
    assert not [path for path in data.iterdir() if "load" in path.name]


def test_a_killed_run_leaves_nothing_that_its_resumption_does_not_clear(project: BatchProject) -> None:
    slow(project, piped=False)
    running = project.start("run", "p")
    started(project)
    data = project.root / ".streamline" / "data" / "p"
    wait_until(lambda: any(data.glob(".writing-load-*")), "records are being stored", 20)
    running.kill()
    (project.root / "go").touch()
    project.run("--resume").expect(0)
    assert len(project.ids()) == 20
    assert list(data.glob(".writing-*")) == []
    assert list(project.root.glob(".streamline/runs/*/flow-*")) == []


def test_a_discovery_that_hangs_can_be_interrupted(project: BatchProject) -> None:
    slow(project, piped=True, discovery_waits_for="go")
    running = project.start("run", "p")
    wait_until(lambda: any((project.root / ".streamline/runs").glob("*/discover-*")), "the tap discovers", 20)
    running.signal(signal.SIGINT)
    completed = running.finish(20)
    assert completed.code == 130, completed
    project.assert_nothing_left(completed)
