"""Runs tasks on this machine."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

from streamline.execution.batch.plan import worth_loading
from streamline.execution.batch.task import Failure, TaskResult
from streamline.processes.job import Job
from streamline.processes.worker_pool import WorkerPool

if TYPE_CHECKING:
    from streamline.execution.batch.block_log import BlockLines
    from streamline.execution.batch.calls import RunFacts
    from streamline.execution.batch.plan import BatchPlan
    from streamline.execution.batch.task import Task
    from streamline.project.secrets import Masker

CANCEL_SECONDS = 5.0
"""How long an interrupted block has to clean up."""

_FUNCTION = "streamline.execution.batch.run_task:run_task"


class LocalExecutor:
    """Runs tasks in worker processes of this machine; isolated ones in the pipeline's own environment."""

    def __init__(self, plan: BatchPlan, facts: RunFacts, lines: BlockLines, masker: Masker) -> None:
        # Blocks wait for other machines more often than they compute, so even a small machine runs four.
        most = plan.concurrency or max(4, os.cpu_count() or 1)
        self.size = most if facts.run.options.parallel else 1
        self._plan = plan
        self._facts = facts
        self._lines = lines
        self._masker = masker
        self._isolated: WorkerPool | None = None
        self._where: dict[str, WorkerPool | None] = {}
        self._pool = self._make(
            worth_loading(plan, [facts.run.options.block] if facts.run.options.block is not None else plan.blocks)
        )

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()
        if self._isolated is not None:
            self._isolated.close()

    async def run(self, task: Task, *, isolated: bool) -> TaskResult:
        """Run a task."""
        self._where[task.id] = None
        try:
            pool = await self._isolated_pool() if isolated else self._pool
            if task.id not in self._where:
                return TaskResult(
                    failure=Failure(message="cancelled before it started", code="block.cancelled", retry=False)
                )
            self._where[task.id] = pool
            if task.child is not None:
                self._lines.name(task.id, f"{task.block}[{task.child}]")
            job = Job(
                id=task.id,
                name=task.block,
                function=_FUNCTION,
                payload=task,
                source_root=task.project,
                timeout=task.timeout,
            )
            outcome = await asyncio.wrap_future(pool.submit(job))
            if isinstance(outcome.value, TaskResult):
                return outcome.value
            return TaskResult(failure=self._located(task, outcome.failure), seconds=outcome.seconds)
        finally:
            self._where.pop(task.id, None)
            self._lines.forget(task.id)

    def _located(self, task: Task, failure: Failure | None) -> Failure | None:
        """Return the failure with the block's file as its place, where no line is known."""
        block = self._plan.model.find(task.block)
        if failure is None or failure.where is not None or block is None or block.file is None:
            return failure
        return msgspec.structs.replace(failure, where=str(block.file))

    def cancel(self, task_id: str) -> None:
        """Interrupt a task: KeyboardInterrupt first, SIGKILL for its process after `CANCEL_SECONDS`."""
        pool = self._where.get(task_id)
        if pool is not None:
            pool.cancel(task_id, CANCEL_SECONDS)
        else:
            self._where.pop(task_id, None)

    async def _isolated_pool(self) -> WorkerPool:
        if self._isolated is None:
            from streamline.pipeline.isolated import isolated_python

            python = await asyncio.to_thread(isolated_python, self._facts.run.project, self._plan.model)
            if self._isolated is None:
                self._isolated = self._make([], python=python)
        return self._isolated

    def _make(self, preload: list[str], python: str | None = None) -> WorkerPool:
        return WorkerPool(
            self.size,
            preload=[_FUNCTION.partition(":")[0], *preload],
            run_id=self._facts.run.run_id,
            on_line=self._lines.take,
            on_log=self._lines.log,
            on_secret=self._masker.add,
            python=python,
        )
