"""The calls of source and destination blocks: prepared by a worker, then moved by a flow; two blocks may share one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from streamline.blocks.connector.prepared import PreparedDestination, PreparedSource
from streamline.execution.batch.fanout import CANCELLED, SKIPPED, UPSTREAM_FAILED, Verdict
from streamline.execution.batch.task import InputRef, Task, TaskResult

if TYPE_CHECKING:
    from streamline.execution.batch.plan import BatchPlan, BlockPlan

RunTask = Callable[[Task], Awaitable[TaskResult]]


class Flows(Protocol):
    """Moves the records of sources and destinations. How a flow ended is in its result, whatever the cause."""

    quarantined: int
    """Records that were refused on the way and kept as dead letters."""

    async def source(self, plan: BlockPlan, task: Task, prepared: PreparedSource) -> TaskResult:
        """Read a source and store its output."""

    async def destination(self, plan: BlockPlan, task: Task, prepared: PreparedDestination) -> TaskResult:
        """Write stored outputs to a destination."""

    async def pipe(
        self, source: BlockPlan, read: PreparedSource, plan: BlockPlan, task: Task, prepared: PreparedDestination
    ) -> tuple[TaskResult, TaskResult]:
        """Read a source into a destination; return the results of both."""

    def interrupt(self) -> None:
        """End all flows in order."""


class Pipe:
    """A source and the destination that writes its records as they are read: one flow for two calls.

    Args:
        source: its plan.
        destination: uuid.
    """

    def __init__(self, source: BlockPlan, destination: str) -> None:
        self.source = source
        self.destination = destination
        self.prepared: PreparedSource | None = None
        self.offered = asyncio.Event()
        """The source is ready to be read."""
        self.result: TaskResult | None = None
        """How the source ended; None: it was not read, because the destination did not run."""
        self.verdict = CANCELLED
        """The status of the source where it did not fail itself, and was not read to its end."""
        self.completed = False
        """All of it was read and written."""
        self.ended = asyncio.Event()


class ConnectorCalls:
    """Makes the attempts at calls of sources and destinations.

    Args:
        flows: moves their records.
    """

    def __init__(self, plan: BatchPlan, flows: Flows) -> None:
        self._flows = flows
        self._interrupted = False
        self.pipes = {source: Pipe(plan.blocks[source], destination) for source, destination in plan.pipes.items()}
        """By source."""

    @property
    def quarantined(self) -> int:
        """Records that were refused on the way and kept as dead letters."""
        return self._flows.quarantined

    def interrupt(self) -> None:
        """End all flows in order."""
        self._interrupted = True
        self._flows.interrupt()

    def into(self, destination: str) -> Pipe | None:
        """Return the pipe into a destination."""
        return next((pipe for pipe in self.pipes.values() if pipe.destination == destination), None)

    def end_pipe(self, destination: str, status: str) -> None:
        """Note that a destination makes no further attempt: its source has ended with it.

        Args:
            status: of the destination.
        """
        pipe = self.into(destination)
        if pipe is not None and not pipe.ended.is_set():
            if status == SKIPPED and not self._interrupted:
                pipe.verdict = SKIPPED
            pipe.ended.set()

    async def attempt(
        self, plan: BlockPlan, task: Task, run_task: RunTask, verdict: Verdict, slots: asyncio.Semaphore
    ) -> TaskResult:
        """Make one attempt.

        Args:
            run_task: runs a task in a worker.
            verdict: is told if the result is another block's.
            slots: as many as calls may run at once. A source that waits for its destination holds none.
        """
        verdict.status = None
        async with slots:
            ready = await run_task(msgspec.structs.replace(task, kind="prepare", id=f"{task.id}:prepare"))
        if ready.failure is not None:
            return ready
        async with contextlib.nullcontext() if task.block in self.pipes else slots:
            began = time.monotonic()
            if isinstance(ready.prepared, PreparedSource):
                result = await self._read(plan, task, ready.prepared, verdict)
            else:
                assert isinstance(ready.prepared, PreparedDestination)
                result = await self._write(plan, task, ready.prepared, verdict)
        result.seconds = ready.seconds + time.monotonic() - began
        if result.failure is None and task.run_tests and task.output is not None:
            own = InputRef(block=task.block, type=plan.block.type, folder=task.output, run_id=task.run_id)
            tests = msgspec.structs.replace(task, kind="tests", id=f"{task.id}:tests", own=own, inputs=())
            async with slots:
                tested = await run_task(tests)
            result.tests, result.failure = tested.tests, tested.failure
        return result

    async def _read(self, plan: BlockPlan, task: Task, prepared: PreparedSource, verdict: Verdict) -> TaskResult:
        pipe = self.pipes.get(plan.block.uuid)
        if pipe is None:
            return await self._flows.source(plan, task, prepared)
        pipe.prepared = prepared
        pipe.offered.set()
        await pipe.ended.wait()
        result = pipe.result or TaskResult()
        if result.failure is not None:
            # All attempts at both are made already.
            result.failure = msgspec.structs.replace(result.failure, retry=False)
        elif not pipe.completed:
            verdict.status = pipe.verdict
        return result

    async def _write(self, plan: BlockPlan, task: Task, prepared: PreparedDestination, verdict: Verdict) -> TaskResult:
        pipe = self.into(plan.block.uuid)
        if pipe is None or pipe.prepared is None:
            return await self._flows.destination(plan, task, prepared)
        pipe.result, written = await self._flows.pipe(pipe.source, pipe.prepared, plan, task, prepared)
        pipe.completed = pipe.result.failure is None and written.failure is None
        if pipe.result.failure is not None and written.failure is None:
            written.failure, verdict.status = pipe.result.failure, UPSTREAM_FAILED
        return written
