"""Runs a streaming pipeline in several processes, which share the partitions of its consumer groups."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Any

import anyio
import msgspec

from streamline.errors import StreamlineError
from streamline.execution.events import AttemptFailed, PositionSaved, StreamProgress
from streamline.execution.flow_runs import INTERRUPT_SECONDS, failure_of
from streamline.execution.run import Run
from streamline.execution.streaming.attempts import BACKOFF
from streamline.execution.streaming.instance import InstanceEnded, InstanceLine, InstanceRequest
from streamline.execution.streaming.live import LIVE_SECONDS
from streamline.execution.streaming.plan import Plan
from streamline.flow.tasks import task_group
from streamline.processes.child import Child, log_lines
from streamline.processes.exit_reason import signal_name
from streamline.processes.line_splitter import LineSplitter
from streamline.processes.orphans import RUN_ID_VARIABLE
from streamline.telemetry.progress import merged

_MODULE = "streamline.execution.streaming.instance"
_MARGIN = 5.0
"""Seconds that a process may take beyond `INTERRUPT_SECONDS` to end."""


async def run_instances(run: Run, plan: Plan) -> InstanceEnded:
    """Run all processes to their end; one that dies is started again. If one fails for good, the others are stopped."""
    instances = [_Instance(run, plan, slot) for slot in range(plan.settings.instances)]
    async with task_group() as background:
        background.start_soon(_pass_on_signals, run, instances)
        background.start_soon(_publish, run, instances)
        background.start_soon(_tell_of_settled, instances)
        async with task_group() as tasks:
            for instance in instances:
                tasks.start_soon(_keep, instance, instances)
        background.cancel_scope.cancel()
    ended = [instance.ended for instance in instances if instance.ended is not None]
    for each in ended:
        run.progress.add(each.summary)
    return _joined(ended, run.progress.summary())


async def _keep(instance: _Instance, every: list[_Instance]) -> None:
    await instance.run()
    if instance.ended is not None and instance.ended.failure is not None:
        for other in every:
            other.stop()


class _Instance:
    """A process, started again when it dies."""

    def __init__(self, run: Run, plan: Plan, slot: int) -> None:
        self._run = run
        self._plan = plan
        self._slot = slot
        self._name = f"instance {slot}"
        self._child: Child | None = None
        self._stopping = anyio.Event()
        self.ended: InstanceEnded | None = None
        self.progress: StreamProgress | None = None
        self.saved = 0.0
        self.settled: set[str] = set()
        """Blocks; see `OtherProcesses.settled`."""
        self._told: set[str] = set()

    async def tell(self, blocks: set[str]) -> None:
        """Tell it that all have settled these, each once, when it has settled it: it listens then."""
        child = self._child
        if child is None or child.stdin is None or child.returncode is not None:
            return
        for block in sorted((blocks & self.settled) - self._told):
            self._told.add(block)
            with contextlib.suppress(BrokenPipeError):  # it has died, and is told again
                await child.stdin.send([f"{block}\n".encode()])

    def stop(self) -> None:
        """End it in order."""
        self._stopping.set()
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(signal.SIGTERM)

    def reload(self) -> None:
        """Have it read the pipeline's files again."""
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """End it at once."""
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(signal.SIGKILL)

    async def run(self) -> None:
        """Run it until it has ended for good."""
        died = 0
        while True:
            began = time.monotonic()
            code = await self._once()
            if self.ended is not None or self._stopping.is_set():
                break
            if self.progress is not None:  # what it told last remains counted
                self._run.progress.add(_summary(self.progress))
                self.progress = None
            died = 1 if time.monotonic() - began > BACKOFF.max_delay else died + 1
            how = f"exit code {code}" if code >= 0 else signal_name(-code)
            error = StreamlineError(f"the process ended unexpectedly: {how}", where=self._name, code="instance.died")
            config = self._plan.settings.retry
            delay = (config or BACKOFF).delay_before(died)
            if config is not None and died > config.retries:
                self.ended = InstanceEnded(summary={}, failure=failure_of(self._run, error), block=self._name)
                break
            self._run.note(self._name, error.message, "WARNING")
            self._run.bus.publish(AttemptFailed(block=self._name, failure=failure_of(self._run, error), delay=delay))
            with anyio.move_on_after(delay):
                await self._stopping.wait()
            if self._stopping.is_set():
                break
        if self.ended is None:  # it was killed while it was to stop
            last = self.progress
            self.ended = InstanceEnded(
                summary=_summary(last) if last is not None else {}, unfinished=last is not None and last.in_flight > 0
            )

    async def _once(self) -> int:
        run, options = self._run, self._run.options
        request = InstanceRequest(
            root=str(run.project.root),
            pipeline=run.pipeline,
            run_id=run.run_id,
            slot=self._slot,
            log=str(run.run_dir / f"instance-{self._slot}.log"),
            variables=options.variables,
            trigger_variables=options.trigger_variables,
            debug=options.debug,
            until_caught_up=options.until_caught_up,
        )
        environment = {**os.environ, RUN_ID_VARIABLE: run.run_id}
        child = Child.start(
            self._name, [sys.executable, "-P", "-m", _MODULE], env=environment, cwd=run.project.root, stdin=True
        )
        self._child, self.progress = child, None
        self.settled, self._told = set(), set()
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it has died; its exit says more
                await child.stdin.send([msgspec.json.encode(request) + b"\n"])
            if self._stopping.is_set():
                self.stop()
            async with task_group() as tasks:
                tasks.start_soon(log_lines, child.stderr, lambda line: run.child_line(self._name, line), run.masker)
                lines = LineSplitter(self._take)
                while chunk := await child.stdout.receive():
                    lines.feed(chunk)
            return await child.wait()
        finally:
            child.dispose()

    def _take(self, line: bytes) -> None:
        message = msgspec.json.decode(line, type=InstanceLine)
        if message.ended is not None:
            self.ended = message.ended
        elif message.settled is not None:
            self.settled.add(message.settled)
        elif isinstance(message.event, StreamProgress):
            self.progress = message.event
        elif message.event is not None:
            if isinstance(message.event, PositionSaved):
                self.saved = time.monotonic()
            self._run.bus.publish(message.event)


async def _pass_on_signals(run: Run, instances: list[_Instance]) -> None:
    while run.interrupted is None:
        await anyio.sleep(0.05)
        if run.reload_asked:
            run.reload_asked = False
            for instance in instances:
                instance.reload()
    for instance in instances:
        instance.stop()
    await anyio.sleep(INTERRUPT_SECONDS + _MARGIN)
    for instance in instances:
        instance.kill()


async def _tell_of_settled(instances: list[_Instance]) -> None:
    """Tell all processes which blocks all of them have settled."""
    everywhere: set[str] = set()
    while True:
        await anyio.sleep(0.05)
        going_on = [instance for instance in instances if instance.ended is None]
        if going_on:
            everywhere |= set.intersection(*(instance.settled for instance in going_on))
        for instance in going_on:
            await instance.tell(everywhere)


async def _publish(run: Run, instances: list[_Instance]) -> None:
    """Publish the counts of all processes together."""
    while True:
        await anyio.sleep(LIVE_SECONDS)
        known = [instance.progress for instance in instances if instance.progress is not None]
        if not known:
            continue
        saved = max((instance.saved for instance in instances), default=0.0)
        counts = merged([run.progress.summary(), *map(_summary, known)])
        run.bus.publish(
            StreamProgress(
                read=counts["records"],
                written=sum(table["written"] for table in counts["tables"]),
                in_flight=sum(each.in_flight for each in known),
                dead_letters=counts["quarantined"],
                lag=[lag for each in known for lag in each.lag],
                seconds=run.progress.seconds,
                saved_ago=time.monotonic() - saved if saved else None,
                streams=counts["streams"],
                tables=counts["tables"],
            )
        )


def _summary(progress: StreamProgress) -> dict[str, Any]:
    """Return the counts of a process as `Progress.summary` does."""
    return {
        "records": progress.read,
        "quarantined": progress.dead_letters,
        "streams": progress.streams,
        "tables": progress.tables,
    }


def _joined(ended: list[InstanceEnded], summary: dict[str, Any]) -> InstanceEnded:
    """Return what became of all of them together."""
    failed = next((each for each in ended if each.failure is not None), None)
    return InstanceEnded(
        summary=summary,
        failure=failed.failure if failed is not None else None,
        block=failed.block if failed is not None else None,
        unfinished=any(each.unfinished for each in ended),
        attempts=max((each.attempts for each in ended), default=0),
    )
