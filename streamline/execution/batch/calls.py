"""Makes the calls of blocks: conditions first, then attempts, then callbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from streamline.execution.batch.fanout import CANCELLED, COMPLETED, FAILED, SKIPPED, CallPlan, Instance, Verdict
from streamline.execution.batch.output_layout import OutputLayout
from streamline.execution.batch.plan import BatchPlan, BlockPlan
from streamline.execution.batch.task import Failure, InputRef, Task, TaskResult
from streamline.execution.events import AttemptFailed, SensorWaiting, masked
from streamline.execution.run import Run
from streamline.pipeline.model import RetryConfig

if TYPE_CHECKING:
    from streamline.execution.batch.connector_calls import ConnectorCalls


class Executor(Protocol):
    """Runs tasks, on this machine or another."""

    size: int

    async def run(self, task: Task, *, isolated: bool) -> TaskResult:
        """Run a task. A failure is in the result, whatever its cause."""

    def cancel(self, task_id: str) -> None:
        """Interrupt a task; its result follows soon."""


class RunFacts(msgspec.Struct, kw_only=True):
    """What is the same for all tasks of a run.

    Args:
        execution_date: when it first began, in UTC.
        variables: the pipeline's, the trigger's and the runtime's, the later ones winning.
        runtime: names of those that came from outside.
    """

    run: Run
    execution_date: datetime
    variables: dict[str, Any]
    runtime: tuple[str, ...]


class Made(msgspec.Struct):
    """A finished call.

    Args:
        refused: the condition that returned false.
    """

    instance: Instance
    failure: Failure | None = None
    attempts: int = 0
    began: float | None = None
    ended: float | None = None
    result: TaskResult | None = None
    refused: str | None = None


class Calls:
    """Makes calls.

    Args:
        completed: called with each successful call, before its callbacks.
        connectors: makes the attempts at sources and destinations; None: the plan has none.
    """

    def __init__(
        self,
        facts: RunFacts,
        plan: BatchPlan,
        layout: OutputLayout,
        executor: Executor,
        completed: Callable[[BlockPlan, Instance, TaskResult], None],
        connectors: ConnectorCalls | None = None,
    ) -> None:
        self._facts = facts
        self._plan = plan
        self._layout = layout
        self._executor = executor
        self._run = facts.run
        self._note = completed
        self._connectors = connectors
        self._running: set[str] = set()
        self._interrupted = asyncio.Event()
        # Workers are as many; flows of sources and destinations need none.
        self._slots = asyncio.Semaphore(executor.size)

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt` was called."""
        return self._interrupted.is_set()

    def interrupt(self) -> None:
        """Start nothing new, and cancel what runs."""
        self._interrupted.set()
        if self._connectors is not None:
            self._connectors.interrupt()
        for task_id in list(self._running):
            self._executor.cancel(task_id)

    async def make(self, plan: BlockPlan, call: CallPlan, number: int, *, child: bool) -> Made:
        """Make one call of a block, with its conditions, retries and callbacks."""
        instance = Instance(number=number, key=call.key)
        refused = await self.refused_by(plan, call, number, child=child)
        if refused is not None:
            instance.status = CANCELLED if self.interrupted else SKIPPED
            return Made(instance, refused=refused)
        made = Made(instance, began=time.monotonic())
        task = self._task(plan, call, number, child=child)
        verdict = Verdict()
        try:
            made.result = await self._attempts(plan, task, made, verdict)
        finally:
            if self._connectors is not None:
                self._connectors.end_pipe(plan.block.uuid, FAILED)
        made.ended = time.monotonic()
        if made.attempts == 1 and task.kind == "run":
            made.began = made.ended - made.result.seconds  # without the waiting for a worker
        made.failure = made.result.failure
        if verdict.status is not None:
            instance.status, made.failure = CANCELLED if self.interrupted else verdict.status, None
        elif made.failure is not None:
            instance.status = CANCELLED if self.interrupted else FAILED
            if child:
                self._log_failure(plan, number, made.failure)
        else:
            self._completed(plan, task, made, child=child)
            self._note(plan, instance, made.result)
        await self._callbacks(plan, task, made)
        return made

    async def refused(self, plan: BlockPlan, failure: Failure) -> Made:
        """Fail a block that must not be called, and call its callbacks."""
        made = Made(Instance(number=0, status=FAILED), failure=failure)
        await self._callbacks(plan, self._task(plan, CallPlan(key=()), 0, child=False), made)
        return made

    async def call_back(
        self, uuids: Sequence[str], status: str, extra: Mapping[str, Any], caller: str = "pipeline"
    ) -> None:
        """Call callbacks.

        Args:
            caller: what ended, unique in the run.
        """
        for uuid in uuids:
            await self._call_back(self._callback(uuid, caller, status, dict(extra)), isolated=False)

    async def test(self, plan: BlockPlan, instance: Instance, *, child: bool) -> TaskResult:
        """Run a block's tests on its stored output."""
        uuid = plan.block.uuid
        task = Task(
            id=f"{uuid}:{instance.number}:tests",
            kind="tests",
            block=uuid,
            own=instance.ref,
            child=instance.number if child else None,
            run_tests=True,
            timeout=plan.block.timeout,
            **self._common(),
        )
        return await self._do(task, isolated=plan.isolated)

    def _log_failure(self, plan: BlockPlan, number: int, failure: Failure) -> None:
        place = f"{failure.where}: " if failure.where else ""
        text = "\n".join(filter(None, (f"child {number}: {place}{failure.message}", failure.hint, failure.trace)))
        self._run.note(plan.block.uuid, text, "ERROR")

    async def refused_by(self, plan: BlockPlan, call: CallPlan, number: int, *, child: bool) -> str | None:
        """Evaluate all conditions of the block; return the first that is false."""
        refused = None
        for uuid in plan.conditions:
            task = Task(
                id=f"{uuid}:{plan.block.uuid}:{number}",
                kind="condition",
                block=uuid,
                inputs=call.inputs,
                child=number if child else None,
                timeout=self._timeout(uuid),
                **self._common(),
            )
            result = await self._do(task, isolated=plan.isolated)
            if result.failure is not None and not self.interrupted:
                self._run.warn(uuid, f"the condition failed, which counts as false: {result.failure.message}")
            if result.failure is not None or result.gate is False:
                refused = refused or uuid
                self._run.note(
                    uuid, f"returned false for '{plan.block.uuid}'{f' (child {number})' if child else ''}", "INFO"
                )
        return refused

    def _task(self, plan: BlockPlan, call: CallPlan, number: int, *, child: bool) -> Task:
        uuid = plan.block.uuid
        # The output of a block that runs alone replaces the last one only if its tests pass.
        alone = self._facts.run.options.block is not None
        folder = self._layout.staged(uuid) / str(number) if child or alone else self._layout.block(uuid)
        return Task(
            id=f"{uuid}:{number}",
            kind="poll" if plan.block.type == "sensor" else "run",
            block=uuid,
            inputs=call.inputs,
            output=None if plan.secret or uuid in self._plan.pipes else str(folder),
            durable=not child,
            child=number if child else None,
            call=call.key,
            items=call.items,
            run_tests=self._facts.run.options.tests,
            refresh=self._facts.run.options.refresh_catalog,
            dynamic=plan.fans_out(child=child),
            timeout=plan.block.timeout,
            **self._common(),
        )

    def _timeout(self, uuid: str) -> float | None:
        block = self._plan.model.find(uuid)
        return block.timeout if block is not None else None

    def _common(self) -> dict[str, Any]:
        facts = self._facts
        return {
            "project": str(facts.run.project.root),
            "pipeline": self._plan.model.uuid,
            "run_id": facts.run.run_id,
            "run_dir": str(facts.run.run_dir),
            "variables": facts.variables,
            "runtime": facts.runtime,
            "execution_date": facts.execution_date,
        }

    def _retry_config(self, plan: BlockPlan) -> RetryConfig:
        """Return the block's settings; of a source and a destination that share a flow, those with more retries."""
        pipe = self._connectors.into(plan.block.uuid) if self._connectors is not None else None
        blocks = [plan.block, *([pipe.source.block] if pipe is not None else [])]
        configs = [block.retry_config for block in blocks if block.retry_config is not None]
        return max(configs, key=lambda config: config.retries, default=RetryConfig())

    async def _attempt(self, plan: BlockPlan, task: Task, verdict: Verdict) -> TaskResult:
        if task.kind == "poll":
            return await self._poll(plan, task)
        if plan.connector is None or self._connectors is None:
            async with self._slots:
                return await self._do(task, isolated=plan.isolated)
        run_task = partial(self._do, isolated=plan.isolated)
        return await self._connectors.attempt(plan, task, run_task, verdict, self._slots)

    async def _attempts(self, plan: BlockPlan, task: Task, made: Made, verdict: Verdict) -> TaskResult:
        """Try until it succeeds, must not be retried, or the run is interrupted."""
        retry = self._retry_config(plan)
        while True:
            made.attempts += 1
            attempt = msgspec.structs.replace(task, attempt=made.attempts, id=f"{task.id}:{made.attempts}")
            result = await self._attempt(plan, attempt, verdict)
            failure = result.failure
            if failure is None or self.interrupted or not failure.retry or made.attempts > retry.retries:
                return result
            delay = retry.delay_before(made.attempts)
            self._run.bus.publish(
                AttemptFailed(
                    block=plan.block.uuid, failure=masked(failure, self._run.masker), delay=delay, child=task.child
                )
            )
            who = "" if task.child is None else f"child {task.child}: "
            self._run.note(plan.block.uuid, f"{who}attempt {made.attempts} failed: {failure.message}", "WARNING")
            if await self._sleep(delay):
                return result

    async def _poll(self, plan: BlockPlan, task: Task) -> TaskResult:
        """Poll a sensor until it returns true. No worker is occupied while it waits."""
        if self._facts.run.options.skip_sensors:
            task = msgspec.structs.replace(task, extra={"skip": True})
        began = time.monotonic()
        number = 0
        while True:
            number += 1
            result = await self._do(msgspec.structs.replace(task, id=f"{task.id}:{number}"), isolated=plan.isolated)
            if result.failure is not None or result.gate:
                result.gate = None
                return result
            left = None if plan.patience is None else began + plan.patience - time.monotonic()
            if left is not None and left <= 0:
                result.failure = Failure(
                    message=f"timed out: the condition was not met within {plan.patience:g} s (checked {number} times)",
                    code="sensor.timeout",
                    where=self._plan.model.where(plan.block.uuid, "configuration", "timeout"),
                )
                return result
            wait = plan.interval if left is None else min(plan.interval, left)
            self._run.bus.publish(SensorWaiting(block=plan.block.uuid, seconds=wait))
            if await self._sleep(wait):
                result.failure = Failure(message="interrupted while waiting", code="block.interrupted")
                return result

    async def _do(self, task: Task, *, isolated: bool) -> TaskResult:
        if self.interrupted and task.kind != "callback":  # the signal came between two steps
            return TaskResult(
                failure=Failure(message="cancelled before it started", code="block.cancelled", retry=False)
            )
        self._running.add(task.id)
        try:
            result = await self._executor.run(task, isolated=isolated)
        finally:
            self._running.discard(task.id)
        for warning in result.warnings:
            self._run.warn(task.block, warning)
        return result

    async def _sleep(self, seconds: float) -> bool:
        """Wait; return True if the run was interrupted meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._interrupted.wait()
        except TimeoutError:
            return False
        return True

    def _completed(self, plan: BlockPlan, task: Task, made: Made, *, child: bool) -> None:
        result, instance, uuid = made.result, made.instance, plan.block.uuid
        assert result is not None
        instance.gate, instance.items, instance.described = result.gate, result.items, result.described
        instance.ref = InputRef(
            block=uuid,
            type=plan.block.type,
            folder=task.output,
            inline=result.inline,
            child=child,
            live=uuid in self._plan.pipes,
            run_id=self._facts.run.run_id if task.output is not None else None,
        )

    async def _callbacks(self, plan: BlockPlan, task: Task, made: Made) -> None:
        if made.instance.status not in _CALLBACK:
            return  # the other end of its pipe failed or was skipped: it did not run
        for uuid in plan.callbacks:
            extra = {"failure": made.failure, "parent_block_uuid": plan.block.uuid}
            callback = self._callback(uuid, task.id, made.instance.status, extra)
            callback = msgspec.structs.replace(callback, inputs=task.inputs, own=made.instance.ref, child=task.child)
            await self._call_back(callback, isolated=plan.isolated)

    def _callback(self, uuid: str, caller: str, status: str, extra: dict[str, Any]) -> Task:
        return Task(
            id=f"{uuid}:{caller}",
            kind="callback",
            block=uuid,
            callback_for=_CALLBACK[status],
            extra=extra,
            timeout=self._timeout(uuid),
            **self._common(),
        )

    async def _call_back(self, task: Task, *, isolated: bool) -> None:
        failure = (await self._do(task, isolated=isolated)).failure
        if failure is not None:
            place = f" ({failure.where})" if failure.where else ""
            self._run.warn(task.block, f"the callback failed: {failure.message}{place}")


_CALLBACK = {COMPLETED: "success", FAILED: "failure", CANCELLED: "cancelled"}
