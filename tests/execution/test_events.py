"""Events of runs: what is published, that it is JSON, and that subscribers harm nothing."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

import streamline
from streamline.execution.engine import run_pipeline
from streamline.execution.events import (
    AttemptFailed,
    BlockFinished,
    BlockOutput,
    Bus,
    Event,
    ProgressMade,
    RunFinished,
    RunPlanned,
    SensorWaiting,
)
from streamline.execution.run import RunOptions
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from tests.conformance.integration.common import rows_tap
from tests.conftest import MakeProject
from tests.support.batch import BatchProject
from tests.support.project import target


def test_a_subscriber_that_raises_harms_no_run(project: BatchProject) -> None:
    def broken(event: Event) -> None:
        raise UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range")

    seen: list[Event] = []
    opened = Project.open(project.root)
    result = run_pipeline(opened, load_pipeline(opened, "p"), RunOptions(), broken, seen.append)
    assert result.status == "completed"
    assert project.output("b") == 2
    assert isinstance(seen[-1], RunFinished)
    log = Path(result.log).read_text("utf-8")
    assert log.count("a subscriber to the run's events failed: UnicodeEncodeError") == 1


def test_a_batch_run_as_events(project: BatchProject) -> None:
    project.write("transformers/b.py", "@transformer\ndef b(x):\n    raise ValueError('no')\n")
    project.entries["blocks"][1]["retry_config"] = {"retries": 1, "delay": 0}
    project.save()
    seen: list[Event] = []
    with pytest.raises(streamline.PipelineFailed):
        streamline.Pipeline("p", project.root).execute_sync(on_event=seen.append)
    planned, *_, finished = seen
    assert isinstance(planned, RunPlanned)
    assert planned.blocks == ["a", "b"]
    assert [event.text for event in seen if isinstance(event, BlockOutput)] == ["here"]
    assert [(event.block, event.delay) for event in seen if isinstance(event, AttemptFailed)] == [("b", 0.0)]
    outcomes = [event.outcome for event in seen if isinstance(event, BlockFinished)]
    assert [(outcome.uuid, outcome.status) for outcome in outcomes] == [("a", "completed"), ("b", "failed")]
    assert isinstance(finished, RunFinished)
    assert (finished.status, finished.code) == ("failed", "block.failed")


def test_an_integration_run_as_events(make_project: MakeProject) -> None:
    # It stays long enough for the counts to be published.
    project = make_project(rows_tap({"orders": 20}, {"pause": 0.4}), target())
    opened = Project.open(project.root)
    seen: list[Event] = []
    result = run_pipeline(opened, load_pipeline(opened, "p"), RunOptions(), seen.append)
    assert result.status == "completed"
    (planned,) = [event for event in seen if isinstance(event, RunPlanned)]
    assert len(planned.sources) == 1
    assert any(isinstance(event, ProgressMade) for event in seen)
    assert {event.outcome.status for event in seen if isinstance(event, BlockFinished)} == {"completed"}


def test_events_are_json(project: BatchProject) -> None:
    seen: list[Event] = []
    opened = Project.open(project.root)
    run_pipeline(opened, load_pipeline(opened, "p"), RunOptions(), seen.append)
    seen.append(SensorWaiting(block="s", seconds=1.5))
    for event in seen:
        encoded = msgspec.json.encode(event)
        assert msgspec.json.decode(encoded)["event"] == _tag(event)
        assert msgspec.json.decode(encoded, type=Event) == event


def _tag(event: Event) -> str:
    return str(event.__struct_config__.tag)


def test_secrets_stand_in_no_event(project: BatchProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("data_loaders/a.py", "import os\n@data_loader\ndef load(**kw):\n    raise ValueError(kw['token'])\n")
    project.save()
    opened = Project.open(project.root)
    seen: list[Event] = []
    run_pipeline(opened, load_pipeline(opened, "p"), RunOptions(variables={"token": "tr0ub4dor"}), seen.append)
    assert b"tr0ub4dor" not in b"".join(map(msgspec.json.encode, seen))


def test_each_subscribers_first_error_is_reported_once() -> None:
    errors: list[Exception] = []

    def broken(event: Event) -> None:
        raise ValueError(os.getpid())

    bus = Bus([broken, broken])
    bus.on_error = errors.append
    for _ in range(3):
        bus.publish(BlockOutput(block="a", text=""))
    assert len(errors) == 2
