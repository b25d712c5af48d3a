"""The processes of a pipeline with `instances`: each is a small program that does what the test says."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import pytest

from streamline.execution.events import AttemptFailed, Bus, Event, PositionSaved, StreamProgress
from streamline.execution.flow_runs import open_planning
from streamline.execution.run import Run, RunOptions, new_run_id, open_run
from streamline.execution.streaming import instance, instances
from streamline.execution.streaming.instance import InstanceEnded, InstanceLine
from streamline.execution.streaming.instances import run_instances
from streamline.pipeline.model import RetryConfig
from streamline.processes.job import Failure
from streamline.state import project_store
from streamline.telemetry.progress import Progress
from streamline.telemetry.runlog import RunLog
from tests.execution.streaming.conftest import Stream

INSTANCE = """
import json, os, pathlib, signal, sys, time
request = json.loads(sys.stdin.readline())
told = pathlib.Path(os.environ["SCRIPT"])
starts = pathlib.Path(f"{told}.{request['slot']}")
number = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (number + 1))
slots = json.loads(told.read_text())
script = slots[request["slot"]]
for step in script[min(number, len(script) - 1)]:
    if step == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif step == "wait":
        while signal.sigwait({signal.SIGTERM, signal.SIGHUP}) != signal.SIGTERM:
            print(json.dumps({"ended": None}), flush=True)
    elif step == "together":  # one that is still starting has no handler for signals
        while not all(pathlib.Path(f"{told}.{slot}").exists() for slot in range(len(slots))):
            time.sleep(0.01)
    elif step == "hear":
        assert sys.stdin.readline().strip() == "count"
    else:
        print(step, flush=True)
"""
BLOCK = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})\n"


def counts(read: int, in_flight: int = 0) -> str:
    """The line of an instance that tells its counts."""
    streams = [{"block": "load", "stream": "t", "read": read, "quarantined": 0}]
    progress = StreamProgress(
        read=read, written=read, in_flight=in_flight, dead_letters=0, lag=[], seconds=1.0, streams=streams, tables=[]
    )
    return msgspec.json.encode(InstanceLine(event=progress)).decode()


def end(read: int = 0, **how: Any) -> str:
    """The last line of an instance."""
    streams = [{"block": "load", "stream": "t", "read": read, "quarantined": 0}]
    summary = {"records": read, "quarantined": 0, "streams": streams, "tables": []}
    return msgspec.json.encode(InstanceLine(ended=InstanceEnded(summary=summary, **how))).decode()


SETTLED = msgspec.json.encode(InstanceLine(settled="count")).decode()
"""The line of an instance that has written all to the repartition topic of the block `count`."""


class Instances:
    """Runs instances by a script: for each slot what its first process does, its second, and so on."""

    def __init__(self, stream: Stream, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stream = stream
        self._script = folder / "script.json"
        self.events: list[Event] = []
        (folder / "fake_instance.py").write_text(BLOCK + INSTANCE)
        monkeypatch.setattr(instances, "_MODULE", "fake_instance")
        monkeypatch.setenv("PYTHONPATH", str(folder))
        monkeypatch.setenv("SCRIPT", str(self._script))
        stream.source(messages=[])
        stream.sink()

    def run(
        self, *slots: Sequence[Sequence[str]], retry: RetryConfig | None = None, stop: bool = False
    ) -> InstanceEnded:
        """Run them to their end.

        Args:
            stop: interrupt the run when all of them have told their counts.
        """
        self._script.write_text(json.dumps(slots))
        settings = SimpleNamespace(instances=len(slots), retry=retry or RetryConfig(retries=5, delay=0))
        with open_planning(self._stream.project, self._stream.model(), RunOptions(), "test") as run:
            run.bus.subscribe(self.events.append)

            async def main() -> InstanceEnded:
                async with anyio.create_task_group() as tasks:
                    if stop:
                        tasks.start_soon(self._interrupt, run, len(slots))
                    ended = await run_instances(run, SimpleNamespace(settings=settings))  # type: ignore[arg-type]
                    tasks.cancel_scope.cancel()
                return ended

            return anyio.run(main)

    async def _interrupt(self, run: Run, count: int) -> None:
        while not any(event.read >= count for event in self.events if isinstance(event, StreamProgress)):
            await anyio.sleep(0.01)
        run.interrupted = signal.SIGTERM

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Who failed, and how."""
        return [(event.block, event.failure.code) for event in self.events if isinstance(event, AttemptFailed)]


@pytest.fixture
def running(stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instances:
    monkeypatch.setattr(instances, "LIVE_SECONDS", 0.02)
    return Instances(stream, tmp_path, monkeypatch)


def test_one_that_dies_is_started_again_and_its_counts_stay(running: Instances) -> None:
    ended = running.run([[counts(3), "die"], [end(4)]], [[end(10)]])
    assert (ended.failure, ended.summary["records"]) == (None, 17)
    assert running.failures == [("instance 0", "instance.died")]


def test_one_that_dies_too_often_stops_the_others(running: Instances) -> None:
    retry = RetryConfig(retries=2, delay=0)
    ended = running.run([[counts(1), "wait", end(1)]], [["together", "die"]], retry=retry)
    assert ended.failure is not None
    assert (ended.failure.code, ended.block) == ("instance.died", "instance 1")
    assert ended.summary["records"] == 1
    assert running.failures == [("instance 1", "instance.died")] * 2


def test_one_that_fails_for_good_stops_the_others(running: Instances) -> None:
    failure = Failure(message="no", code="kafka.topic_missing")
    ended = running.run([["together", end(2, failure=failure, block="load")]], [[counts(1), "wait", end(5)]])
    assert (ended.failure, ended.block, ended.summary["records"]) == (failure, "load", 7)
    assert running.failures == []


def test_a_signal_stops_all_of_them(running: Instances) -> None:
    ended = running.run([[counts(1), "wait", end(1)]], [[counts(2), "wait", end(2)]], stop=True)
    assert (ended.failure, ended.unfinished, ended.summary["records"]) == (None, False, 3)


def test_one_that_dies_while_it_stops_has_not_proven_what_was_in_flight(running: Instances) -> None:
    ended = running.run([[counts(1), "wait", end(1)]], [[counts(2, in_flight=1), "wait", "die"]], stop=True)
    assert (ended.failure, ended.unfinished) == (None, True)
    assert running.failures == []


def test_each_is_told_when_all_have_written_to_a_repartition_topic_also_one_that_was_started_again(
    running: Instances,
) -> None:
    ended = running.run(
        [[SETTLED, "hear", end(1)]], [[SETTLED, "die"], [SETTLED, "hear", "die"], [SETTLED, "hear", end(2)]]
    )
    assert (ended.failure, ended.summary["records"]) == (None, 3)
    assert running.failures == [("instance 1", "instance.died")] * 2


def test_a_folder_of_the_project_hides_no_module_of_theirs(running: Instances, stream: Stream) -> None:
    stream.files.write("fake_instance.py", "raise SystemExit(3)")
    assert running.run([[end(1)]]).failure is None


def test_its_blocks_import_modules_of_the_project(stream: Stream) -> None:
    stream.files.write("instance_numbers.py", "ONE = 1\n")
    stream.source(messages=[1])
    code = "return [message + ONE for message in messages]"
    stream.transformer(
        "add", f"from instance_numbers import ONE\n\n\n@transformer\ndef add(messages, *args, **kwargs):\n    {code}\n"
    )
    stream.sink()
    stream.files.save()
    project = stream.project
    project.ensure_work_dir()
    with project_store(project) as store, open_run(project, store, "p", new_run_id()) as run:
        ended = anyio.run(instance._run, run)
    assert ended.failure is None
    assert stream.world.written["export"] == [2]


def test_a_process_tells_of_its_proofs(stream: Stream) -> None:
    project, told = stream.project, list[Event]()
    project.ensure_work_dir()
    with project_store(project) as store:
        run = Run(
            project=project,
            pipeline="p",
            run_id="r",
            run_dir=project.work_dir,
            store=store,
            masker=project.secrets.masker,
            log=RunLog(project.work_dir / "instance-0.log"),
            options=RunOptions(),
            bus=Bus([told.append]),
            progress=Progress(),
        )
        run.progress.position_saved("load")
    assert [type(event) for event in told] == [PositionSaved]
