"""An open run: its warnings, and how its end is recorded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streamline.errors import StreamlineError, WrongOption
from streamline.execution.events import BlockFinished, BlockOutcome, BlockStarted, RunFinished, WarningRaised
from streamline.execution.run import MAX_WARNINGS, Interrupted, Run, RunOptions, Stop, end_killed_runs
from streamline.processes.job import Failure
from streamline.project.secrets import Masker
from streamline.state.store import RunInfo
from streamline.telemetry.progress import Progress
from tests.support.failures import fails

BROKEN = StreamlineError("geheim broke it", code="tap.failed")


class Store:
    """Keeps what is recorded; `failing` is raised where a run ends or a block is recorded."""

    def __init__(self) -> None:
        self.ends: list[Any] = []
        self.blocks: list[Any] = []
        self.killed: list[RunInfo] = []
        self.failing: StreamlineError | None = None

    def begin_run(self, run: RunInfo) -> None:
        self.ends.append("begun")

    def continue_run(self, run_id: str) -> None:
        self.ends.append("continued")

    def drop_run(self, run_id: str) -> None:
        self.ends.append("dropped")

    def finish_run(self, run_id: str, status: str, summary: Any, error: str | None, code: str | None) -> None:
        if self.failing is not None:
            raise self.failing
        self.ends.append((status, error, code))

    def save_block_run(self, run_id: str, block: Any) -> None:
        if self.failing is not None:
            raise self.failing
        self.blocks.append((block.uuid, block.status, block.error, block.code))

    def unfinished_runs(self, pipeline: str) -> list[RunInfo]:
        return self.killed


class Lines:
    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []

    def write(self, source: str, message: str, level: str) -> None:
        self.written.append((level, message))

    child = write


class Opened:
    """A run without a folder."""

    def __init__(self, **values: Any) -> None:
        self.store, self.log, self.events = Store(), Lines(), list[Any]()
        masker = Masker()
        masker.add("geheim")
        given: Any = {
            "progress": Progress(),
            "project": None,
            "run_dir": None,
            "store": self.store,
            "masker": masker,
            "log": self.log,
        }
        bus = cast(Any, SimpleNamespace(publish=self.events.append))
        self.run = Run(pipeline="p", run_id="r1", options=RunOptions(), bus=bus, **{**given, "warnings": {}, **values})

    def record(self, error: BaseException | None = None, *, status: str = "completed", resumed: bool = False) -> None:
        with self.run.record(resumed=resumed) as record:
            if error is not None:
                raise error
            record.status = status


def test_a_childs_warnings_are_kept_for_the_end_and_its_other_lines_are_not() -> None:
    opened = Opened()
    for line in ("INFO all is well", "WARNING it is odd", "WARNING it is odd"):
        opened.run.child_line("load", line)
    assert list(opened.run.warnings) == ["load: it is odd"]
    assert [type(event) for event in opened.events] == [WarningRaised] * 2


def test_warnings_are_bounded_and_all_are_published() -> None:
    opened = Opened()
    for number in range(MAX_WARNINGS + 3):
        opened.run.warn("load", f"geheim {number}")
    assert len(opened.run.warnings) == MAX_WARNINGS
    assert len(opened.events) == MAX_WARNINGS + 3
    assert "geheim" not in str(opened.events) + str(opened.run.warnings) + str(opened.log.written)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_run_that_ends_well_is_recorded(resumed: bool) -> None:
    opened = Opened()
    opened.record(resumed=resumed)
    assert opened.store.ends == ["continued" if resumed else "begun", ("completed", None, None)]
    (event,) = opened.events
    assert isinstance(event, RunFinished)


def test_a_run_that_raises_has_failed_and_no_secret_is_recorded() -> None:
    opened = Opened()
    with pytest.raises(StreamlineError, match="broke"):
        opened.record(BROKEN)
    (status, error, code) = opened.store.ends[-1]
    assert (status, code) == ("failed", "tap.failed")
    assert "broke it" in error
    assert "geheim" not in error


def test_what_a_signal_ended_is_cancelled() -> None:
    opened = Opened(interrupted=15)
    with pytest.raises(Interrupted) as caught:
        opened.record(BROKEN)
    assert caught.value.exit_code == 143
    assert opened.store.ends[-1][0] == "cancelled"
    opened = Opened()
    with pytest.raises(Interrupted):
        opened.record(Interrupted(2))
    assert opened.store.ends[-1][0] == "cancelled"
    # An error of this program is one, whatever came with it.
    opened = Opened(interrupted=15)
    with pytest.raises(ZeroDivisionError):
        opened.record(ZeroDivisionError())
    assert opened.store.ends[-1] == ("failed", "ZeroDivisionError", None)


def test_a_wrong_option_is_no_run() -> None:
    opened = Opened()
    with pytest.raises(WrongOption):
        opened.record(WrongOption("--stream x", code="stream.unknown"))
    assert opened.store.ends == ["begun", "dropped"]


def test_an_end_that_cannot_be_recorded_is_a_warning_unless_the_run_failed() -> None:
    opened = Opened()
    opened.store.failing = StreamlineError("no space here", code="disk.full")
    opened.record()
    assert any("no space here" in warning for warning in opened.run.warnings)
    with fails("disk.full", "no space here"):
        opened.record(BROKEN)


def test_blocks_are_recorded_as_they_begin_and_end() -> None:
    opened = Opened()
    opened.run._record_block(BlockStarted(block="load"))
    failed = BlockOutcome(uuid="load", status="failed", failure=Failure(message="odd", code="x.y"))
    opened.run._record_block(BlockFinished(outcome=failed))
    opened.run._record_block(BlockFinished(outcome=BlockOutcome(uuid="export", status="completed")))
    opened.run._record_block(WarningRaised(block="load", message="odd"))
    assert [(uuid, status, code) for uuid, status, _, code in opened.store.blocks] == [
        ("load", "running", None),
        ("load", "failed", "x.y"),
        ("export", "completed", None),
    ]
    assert [error is None for _, _, error, _ in opened.store.blocks] == [True, False, True]
    opened.store.failing = BROKEN
    opened.run._record_block(BlockStarted(block="load"))
    assert any("cannot record how the block ended" in warning for warning in opened.run.warnings)


def test_how_a_block_ended_is_logged() -> None:
    opened = Opened()
    opened.run.finish_block(BlockOutcome(uuid="load", status="completed", seconds=1.5, reason="no rows"))
    opened.run.finish_block(BlockOutcome(uuid="load", status="skipped"))
    failure = Failure(message="geheim broke it", code="x.y")
    opened.run.finish_block(BlockOutcome(uuid="load", status="failed", failure=failure))
    levels = [level for level, _ in opened.log.written]
    texts = [message for _, message in opened.log.written]
    assert levels == ["INFO", "INFO", "ERROR", "INFO"]
    assert texts[0] == "completed in 1.500 s: no rows"
    assert texts[1] == "skipped"
    assert "geheim" not in str(texts) + str(opened.events)


def test_no_process_is_looked_for_where_no_run_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[list[str]] = []
    monkeypatch.setattr("streamline.execution.run.end_processes", ended.append)
    monkeypatch.setattr("streamline.execution.run.remove_private_files", lambda *args: None)
    store = Store()
    project: Any = SimpleNamespace(work_dir=Path())
    end_killed_runs(cast(Any, store), project, "p")
    assert ended == []


def test_a_signal_that_came_before_the_run_is_delivered_to_it() -> None:
    stop, received = Stop(), list[int]()
    stop(2)
    stop.connect(received.append)
    stop(15)
    assert received == [2, 15]
    stop.connect(None)
    stop(2)
    assert received == [2, 15]
    stop.connect(received.append)
    assert received == [2, 15, 2]
