"""Signals at moments when nobody thinks of them."""

from __future__ import annotations

import signal

import pytest
import yaml

from tests.conformance.integration.common import INCREMENTAL, rows_tap
from tests.conftest import MakeProject
from tests.support.processes import wait_until
from tests.support.project import PYTHON, Block, tap, target

SLOW_DISCOVERY = """import sys, time
if "--help" in sys.argv or "--about" in sys.argv:
    print("usage: tap-slow [--config] [--state] [--catalog] [--discover]")
    sys.exit(0)
open("asked", "w").close()
time.sleep(600)
"""


def test_a_terminal_that_is_closed_leaves_no_tap_behind(make_project: MakeProject) -> None:
    config = {"rows": 100, "state_every": 10, "wait_at": 50, "wait_for": "go"}
    project = make_project(tap("counts", config, streams={"numbers": INCREMENTAL}), target("keyed", {"flush": 10}))
    running = project.start("run", "p")
    wait_until(lambda: len(project.ids()) >= 40, "most rows are there")

    running.signal(signal.SIGHUP)

    project.assert_nothing_left(running.finish().expect(129, "interrupted"))
    assert project.position() == 50


def test_an_interrupt_ends_a_discovery_that_takes_its_time(make_project: MakeProject) -> None:
    text = yaml.safe_dump({"source": "tap-slow"})
    plugin = ("tap-slow", {"command": [*PYTHON, "slow.py"]})
    project = make_project(Block("load", "data_loader", text, plugin=plugin), target())
    project.write("slow.py", SLOW_DISCOVERY)
    running = project.start("run", "p")
    wait_until((project.root / "asked").exists, "the tap is asked")

    running.signal(signal.SIGINT)

    project.assert_nothing_left(running.finish().expect(130, "interrupted"))
    assert [run["status"] for run in project.runs()] == ["cancelled"]


@pytest.mark.parametrize("what", ["conditional", "callback"])
def test_a_conditional_or_callback_without_a_function_is_refused(make_project: MakeProject, what: str) -> None:
    gate = {"uuid": "gate", "type": what, "language": "python", "upstream_blocks": ["load"]}
    project = make_project(rows_tap({"numbers": 3}), target(), **{f"{what}s": [gate]})
    project.write(f"{what}s/gate.py", "")

    project.run().expect(2, "gate.py: no function in this file is decorated")

    assert project.rows() == []
