"""A source and the destination that writes it as it is read: two calls, one flow."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from streamline.blocks.connector.prepared import PreparedDestination, PreparedSource
from streamline.blocks.connector.spec import DestinationSpec, SourceSpec
from streamline.execution.batch.connector_calls import ConnectorCalls, Verdict
from streamline.execution.batch.fanout import CANCELLED, COMPLETED, FAILED, SKIPPED, UPSTREAM_FAILED
from streamline.execution.batch.plan import BatchPlan
from streamline.execution.batch.task import Failure, Task, TaskResult
from tests.execution.batch.test_pending import plan as plan_of

BROKEN = Failure(message="broken")


class Flows:
    """Flows that end as they are told to, one result after the other."""

    def __init__(self, *pipes: tuple[TaskResult, TaskResult]) -> None:
        self.pipes = list(pipes)
        self.called: list[str] = []

    async def source(self, *_: Any) -> TaskResult:
        self.called.append("source")
        return TaskResult()

    async def destination(self, *_: Any) -> TaskResult:
        self.called.append("destination")
        return TaskResult()

    async def pipe(self, *_: Any) -> tuple[TaskResult, TaskResult]:
        self.called.append("pipe")
        return self.pipes.pop(0)

    def interrupt(self) -> None:
        """Do nothing."""


class Pipeline:
    """load → export, with the status that each call has at its end: that of the verdict, else of its result."""

    def __init__(self, *pipes: tuple[TaskResult, TaskResult], attempts: int = 1, piped: bool = True) -> None:
        self.flows = Flows(*pipes)
        self.plan: BatchPlan = plan_of({"load": ["export"], "export": []})
        self.plan.pipes = {"load": "export"} if piped else {}
        self.calls = ConnectorCalls(self.plan, self.flows)
        self.attempts = attempts
        self.slots = asyncio.Semaphore(1)
        self.refuse = ""
        self.prepared: list[str] = []

    async def _run_task(self, task: Task) -> TaskResult:
        self.prepared.append(task.block)
        if task.block == self.refuse:
            return TaskResult(failure=BROKEN)
        if task.block == "load":
            return TaskResult(prepared=PreparedSource(spec=SourceSpec(source="rows")))
        return TaskResult(prepared=PreparedDestination(spec=DestinationSpec(destination="keyed"), exports=[]))

    async def call(self, uuid: str, attempts: int = 1) -> str:
        task = task_of(uuid)
        verdict = Verdict()
        for _ in range(attempts):
            plan = self.plan.blocks[uuid]
            result = await self.calls.attempt(plan, task, self._run_task, verdict, self.slots)
            if result.failure is None or not result.failure.retry:
                break
        status = verdict.status or (FAILED if result.failure is not None else COMPLETED)
        self.calls.end_pipe(uuid, status)
        return status

    def run(self) -> tuple[str, str]:
        async def both() -> tuple[str, str]:
            source = asyncio.create_task(self.call("load"))
            if self.calls.pipes:
                await self.calls.pipes["load"].offered.wait()
            destination = await self.call("export", self.attempts)
            return await asyncio.wait_for(source, 5), destination

        return asyncio.run(both())


def task_of(uuid: str) -> Task:
    """Return the task of a block's call."""
    date = datetime(2026, 1, 1, tzinfo=UTC)
    values = {"project": "", "pipeline": "p", "run_id": "r", "run_dir": ""}
    return Task(id=uuid, kind="run", block=uuid, execution_date=date, **values)


def test_both_complete_with_one_flow() -> None:
    pipeline = Pipeline((TaskResult(), TaskResult()))
    assert pipeline.run() == (COMPLETED, COMPLETED)
    assert pipeline.flows.called == ["pipe"]


def test_without_a_pipe_each_has_a_flow() -> None:
    pipeline = Pipeline(piped=False)
    assert pipeline.run() == (COMPLETED, COMPLETED)
    assert sorted(pipeline.flows.called) == ["destination", "source"]


def test_a_source_that_fails_is_the_one_that_failed() -> None:
    assert Pipeline((TaskResult(failure=BROKEN), TaskResult())).run() == (FAILED, UPSTREAM_FAILED)


def test_a_destination_that_fails_cuts_its_source_short() -> None:
    assert Pipeline((TaskResult(), TaskResult(failure=BROKEN))).run() == (CANCELLED, FAILED)


def test_an_attempt_of_the_destination_is_one_of_both() -> None:
    failures = [(TaskResult(failure=BROKEN), TaskResult()), (TaskResult(), TaskResult(failure=BROKEN))]
    pipeline = Pipeline(*failures, (TaskResult(), TaskResult()), attempts=3)
    assert pipeline.run() == (COMPLETED, COMPLETED)
    assert pipeline.prepared == ["load", *["export"] * 3]  # what the source asks for is worked out once


def test_a_destination_that_is_not_called_leaves_its_source_unread() -> None:
    pipeline = Pipeline()
    pipeline.refuse = "export"
    assert pipeline.run() == (CANCELLED, FAILED)
    assert pipeline.flows.called == []


def test_where_a_condition_skips_the_destination_its_source_is_skipped() -> None:
    pipeline = Pipeline()

    async def skipped() -> str:
        source = asyncio.create_task(pipeline.call("load"))
        await pipeline.calls.pipes["load"].offered.wait()
        pipeline.calls.end_pipe("export", SKIPPED)
        return await source

    assert asyncio.run(skipped()) == SKIPPED


def test_a_source_whose_run_is_interrupted_is_cancelled() -> None:
    pipeline = Pipeline()

    async def interrupted() -> str:
        source = asyncio.create_task(pipeline.call("load"))
        await pipeline.calls.pipes["load"].offered.wait()
        pipeline.calls.interrupt()
        pipeline.calls.end_pipe("export", SKIPPED)
        return await source

    assert asyncio.run(interrupted()) == CANCELLED
