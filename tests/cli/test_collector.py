"""The garbage collector: patient while a command starts, as usual when a run moves something."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from streamline.cli import collector
from streamline.execution.events import BlockStarted, RunPlanned


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    usual = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*usual)


def test_a_planned_run_collects_as_usual_but_not_what_the_start_made() -> None:
    usual = gc.get_threshold()
    collector.while_starting()
    collector.when_planned(BlockStarted(block="load"))
    assert gc.get_threshold()[0] > 100 * usual[0]
    assert gc.isenabled()
    collector.when_planned(RunPlanned(pipeline="demo", run_id="1", blocks=["load"]))
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() > 0


def test_cycles_made_after_the_plan_are_found() -> None:
    collector.while_starting()
    collector.when_planned(RunPlanned(pipeline="demo", run_id="1", blocks=["load"]))
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
