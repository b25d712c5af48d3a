"""One of several processes of a streaming pipeline: reads a request, runs attempts, and writes what happens, as lines.

The process that started it has the pipeline's lease and record. When that is gone, this one ends in order.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from streamline.execution.events import Bus, Event
from streamline.execution.flow_runs import failure_of, renderer_of
from streamline.execution.run import Run, RunOptions, Stop, run_to_end
from streamline.execution.streaming.attempts import run_attempts
from streamline.execution.streaming.planner import make_plan
from streamline.execution.streaming.reload import read_again
from streamline.execution.streaming.singer import plan_plugins
from streamline.execution.user_code import user_code
from streamline.flow.tasks import keep_shields
from streamline.pipeline.reader import load_pipeline
from streamline.processes import wire
from streamline.processes.job import Failure
from streamline.processes.line_splitter import LineSplitter
from streamline.project.project import Project
from streamline.state import project_store
from streamline.telemetry.progress import Progress
from streamline.telemetry.runlog import RunLog


class InstanceRequest(msgspec.Struct, kw_only=True):
    """What a process is to run.

    Args:
        slot: its number, from 0 on.
        log: path of its log.
    """

    root: str
    pipeline: str
    run_id: str
    slot: int
    log: str
    variables: dict[str, Any]
    trigger_variables: dict[str, Any]
    debug: bool
    until_caught_up: bool


class InstanceEnded(msgspec.Struct, kw_only=True):
    """How it ended.

    Args:
        unfinished: it was interrupted, and not all could be proven in time.
    """

    summary: dict[str, Any]
    failure: Failure | None = None
    block: str | None = None
    unfinished: bool = False
    attempts: int = 0


class InstanceLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line that it writes.

    Args:
        settled: a block; see `OtherProcesses.settled`. When all have written it, each gets the block as a line.
    """

    event: Event | None = None
    settled: str | None = None
    ended: InstanceEnded | None = None


def main() -> None:
    """Run what the first line of stdin asks for."""
    wire.hide_memory()
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what blocks print is no line of ours
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=InstanceRequest)
    lines = _Lines(output)
    threading.Thread(target=_watch_parent, args=(lines,), name="parent", daemon=True).start()
    project = Project.open(Path(request.root))
    with project_store(project) as store:
        log = RunLog(Path(request.log))
        run = Run(
            project=project,
            pipeline=request.pipeline,
            run_id=request.run_id,
            run_dir=Path(request.log).parent,
            store=store,
            masker=project.secrets.masker,
            log=log,
            options=RunOptions(
                variables=request.variables,
                trigger_variables=request.trigger_variables,
                debug=request.debug,
                until_caught_up=request.until_caught_up,
                slot=request.slot,
            ),
            bus=Bus([lines.event]),
            progress=Progress(project.secrets.masker.mask),
            others=lines,
        )
        try:
            lines.ended(run_to_end(partial(_main, run), uvloop=True))
        finally:
            log.close()


async def _main(run: Run, stop: Stop) -> InstanceEnded:
    with run.signals(lambda: None, stop, reloads=True):
        return await keep_shields(_run(run))


async def _run(run: Run) -> InstanceEnded:
    try:
        model = load_pipeline(run.project, run.pipeline)
        with user_code(run.project, model, renderer_of(run, model)):
            plan = make_plan(run, model)
            if not await plan_plugins(run, model, plan):
                return InstanceEnded(summary=run.progress.summary())
            outcome, attempts, _ = await run_attempts(run, plan, partial(read_again, run))
    except Exception as error:
        return InstanceEnded(summary=run.progress.summary(), failure=failure_of(run, error))
    return InstanceEnded(
        summary=run.progress.summary(),
        failure=failure_of(run, outcome.error) if outcome.error is not None else None,
        block=outcome.block,
        unfinished=outcome.unfinished,
        attempts=attempts,
    )


class _Lines:
    """Writes lines, from any thread. Implements `OtherProcesses`.

    Attributes:
        heard: the lines that the parent has written.
    """

    def __init__(self, output: BinaryIO) -> None:
        self.heard: set[str] = set()
        self._output = output
        self._lock = threading.Lock()

    def settled(self, block: str) -> None:
        """See `OtherProcesses.settled`."""
        self._write(InstanceLine(settled=block))

    def all_settled(self, block: str) -> bool:
        """See `OtherProcesses.all_settled`."""
        return block in self.heard

    def event(self, event: Event) -> None:
        self._write(InstanceLine(event=event))

    def ended(self, ended: InstanceEnded) -> None:
        self._write(InstanceLine(ended=ended))

    def _write(self, line: InstanceLine) -> None:
        with self._lock:
            self._output.write(msgspec.json.encode(line) + b"\n")
            self._output.flush()


def _watch_parent(lines: _Lines) -> None:
    """Take what the parent tells until the end of stdin, which it holds open, and end as by a signal."""
    splitter = LineSplitter(lambda line: lines.heard.add(line.decode()))
    while chunk := os.read(0, 4096):
        splitter.feed(chunk)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
