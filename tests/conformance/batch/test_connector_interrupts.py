"""Signals in the middle of flows of batch pipelines: everything ends, and --resume goes on."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from typing import Any

import pytest

from tests.conformance.batch.connector_projects import saved
from tests.support.batch import BatchProject
from tests.support.processes import wait_until
from tests.support.project import fake

SETTINGS = {"numbers": {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}}
CHANGE = "@transformer\ndef change(data):\n    return data\n"


def slow(project: BatchProject, *, piped: bool, tap: str = "rows", **config: Any) -> None:
    """Add a source that waits for a file after its first page, and a destination."""
    plugins = {f"tap-{tap}": fake(f"tap_{tap}"), "target-keyed": fake("target_keyed")}
    project.settings["plugins"] = plugins
    project.write("streamline.yaml", json.dumps({"name": "shop", "plugins": plugins}))
    streams = {"numbers": {"properties": {"id": "integer"}, "replication_key": "id", "rows": 20}}
    source = {"source": f"tap-{tap}", "config": {"streams": streams, "wait_for": "go", **config}, "streams": SETTINGS}
    project.block("load", json.dumps(source), type="data_loader", language="yaml")
    if not piped:
        project.block("change", CHANGE)
    target = json.dumps({"destination": "target-keyed", "config": {"path": "out.db", "log": "log.jsonl"}})
    project.block("export", target, type="data_exporter", language="yaml")


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


def test_a_discovery_that_hangs_can_be_interrupted(project: BatchProject) -> None:
    slow(project, piped=True, discovery_waits_for="go")
    running = project.start("run", "p")
    wait_until(lambda: any((project.root / ".streamline/runs").glob("*/discover-*")), "the tap discovers", 20)
    running.signal(signal.SIGINT)
    completed = running.finish(20)
    assert completed.code == 130, completed
    project.assert_nothing_left(completed)
