"""Carries out tasks on this machine."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from streamline.execution.batch.plan import worth_loading
from streamline.processes.task import Failure, TaskResult
from streamline.processes.worker_pool import WorkerPool

if TYPE_CHECKING:
    from streamline.execution.batch.block_log import BlockLines
    from streamline.execution.batch.context import RunFacts
    from streamline.execution.batch.plan import BatchPlan
    from streamline.processes.task import Task
    from streamline.project.secrets import Masker

CANCEL_SECONDS = 5.0
"""How long an interrupted block has to clean up behind itself."""


class LocalExecutor:
    """Carries out tasks in worker processes of this machine; isolated ones in the pipeline's own environment."""

    def __init__(self, plan: BatchPlan, facts: RunFacts, lines: BlockLines, masker: Masker) -> None:
        # Blocks wait for others' machines more often than they compute, so that a small machine runs four as well.
        most = plan.concurrency or max(4, os.cpu_count() or 1)
        self.size = most if facts.options.parallel else 1
        self._plan = plan
        self._facts = facts
        self._lines = lines
        self._masker = masker
        self._isolated: WorkerPool | None = None
        self._where: dict[str, WorkerPool | None] = {}
        self._pool = self._make(
            worth_loading(plan, [facts.options.block] if facts.options.block is not None else plan.blocks)
        )

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()
        if self._isolated is not None:
            self._isolated.close()

    async def run(self, task: Task, *, isolated: bool) -> TaskResult:
        """Carry out a task."""
        self._where[task.id] = None
        try:
            pool = await self._isolated_pool() if isolated else self._pool
            if task.id not in self._where:
                return TaskResult(failure=Failure(message="cancelled before it began", retry=False))
            self._where[task.id] = pool
            if task.child is not None:
                self._lines.name(task.id, f"{task.block}[{task.child}]")
            return await asyncio.wrap_future(pool.submit(task))
        finally:
            self._where.pop(task.id, None)
            self._lines.forget(task.id)

    def cancel(self, task_id: str) -> None:
        """Interrupt a task: KeyboardInterrupt first, the end of its process after `CANCEL_SECONDS`."""
        pool = self._where.get(task_id)
        if pool is not None:
            pool.cancel(task_id, CANCEL_SECONDS)
        else:
            self._where.pop(task_id, None)

    async def _isolated_pool(self) -> WorkerPool:
        if self._isolated is None:
            from streamline.pipeline.isolated import isolated_python

            python = await asyncio.to_thread(isolated_python, self._facts.project, self._plan.model)
            if self._isolated is None:
                self._isolated = self._make([], python=python)
        return self._isolated

    def _make(self, preload: list[str], python: str | None = None) -> WorkerPool:
        return WorkerPool(
            self.size,
            preload=preload,
            run_id=self._facts.run_id,
            on_line=self._lines.take,
            on_log=self._lines.log,
            learned=self._masker.add,
            python=python,
        )
