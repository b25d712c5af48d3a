"""Runs the blocks of a batch plan: each as soon as what it needs is there, and to the end whatever else fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from streamline.errors import StreamlineError
from streamline.execution.batch.context import BlockOutcome, Listener, RunFacts
from streamline.execution.batch.fanout import (
    CANCELLED,
    COMPLETED,
    FAILED,
    SKIPPED,
    UPSTREAM_FAILED,
    Call,
    Finished,
    Instance,
    calls_of,
    is_child,
)
from streamline.execution.batch.journal import Called, Ended, Journal, Past, Undone, instance_of
from streamline.execution.batch.places import Places
from streamline.execution.batch.plan import BatchPlan, BlockPlan
from streamline.execution.batch.task import Failure, InputRef, Task, TaskResult
from streamline.pipeline.model import RetryConfig


class Executor(Protocol):
    """Carries out tasks, here or elsewhere."""

    size: int

    async def run(self, task: Task, *, isolated: bool) -> TaskResult:
        """Carry out a task; whatever happens to whoever does it is in the result."""
        ...

    def cancel(self, task_id: str) -> None:
        """Interrupt a task; its result says so, soon."""
        ...


class _Made(msgspec.Struct):
    """A call that was made: how it ended, and what there is to say about it."""

    instance: Instance
    failure: Failure | None = None
    attempts: int = 0
    began: float | None = None
    ended: float | None = None
    result: TaskResult | None = None


class Runner:
    """One run of a plan.

    Args:
        facts: what is the same for all its tasks.
        plan: the blocks.
        places: where outputs stand.
        executor: carries out tasks.
        journal: notes what completed; None for runs that cannot be resumed.
        past: what an earlier part of this run has done.
        listener: is told what goes on.
        record: is given each block's outcome, as often as it changes.
        warn: is given a block's warnings.
    """

    def __init__(
        self,
        facts: RunFacts,
        plan: BatchPlan,
        places: Places,
        executor: Executor,
        *,
        journal: Journal | None,
        past: Past | None,
        listener: Listener,
        record: Callable[[BlockOutcome], None],
        warn: Callable[[str, str], None],
    ) -> None:
        self._facts = facts
        self._plan = plan
        self._places = places
        self._executor = executor
        self._journal = journal
        self._past = past
        self._listener = listener
        self._record = record
        self._warn = warn
        self._finished: dict[str, Finished] = {}
        self._events = {uuid: asyncio.Event() for uuid in plan.blocks}
        self._running: set[str] = set()
        self._interrupted = asyncio.Event()
        self.outcomes: dict[str, BlockOutcome] = {}

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt` was called."""
        return self._interrupted.is_set()

    def interrupt(self) -> None:
        """Start nothing new, and cancel what runs."""
        self._interrupted.set()
        for task_id in list(self._running):
            self._executor.cancel(task_id)

    async def run(self) -> list[BlockOutcome]:
        """Run every block that can run; the outcomes in the plan's order. User errors are in them, never raised."""
        if self._facts.options.parallel:
            async with asyncio.TaskGroup() as tasks:
                for uuid in self._plan.blocks:
                    tasks.create_task(self._block(uuid))
        else:
            for uuid in self._plan.blocks:
                await self._block(uuid)
        return [self.outcomes[uuid] for uuid in self._plan.blocks]

    async def run_one(self, uuid: str, upstream: Mapping[str, Finished]) -> list[BlockOutcome]:
        """Run one block alone.

        Args:
            upstream: its upstream blocks, as earlier runs left them.
        """
        for name, finished in upstream.items():
            self._finished[name] = finished
            self._events[name].set()
        await self._block(uuid)
        return [self.outcomes[uuid]]

    async def call_back(self, uuids: Sequence[str], status: str, extra: Mapping[str, Any]) -> None:
        """Call callbacks that belong to the pipeline."""
        for uuid in uuids:
            result = await self._do(
                Task(
                    id=f"{uuid}:pipeline",
                    kind="callback",
                    block=uuid,
                    callback_for=_CALLBACK[status],
                    extra={**extra, "parent_block_uuid": None},
                    timeout=self._plan.code(uuid).timeout,
                    **self._common(),
                ),
                isolated=False,
            )
            self._callback_ended(uuid, result)

    # --- blocks

    async def _block(self, uuid: str) -> None:
        plan = self._plan.blocks[uuid]
        for name in plan.block.upstream:
            await self._events[name].wait()
        try:
            outcome, finished = self._reused(plan) or await self._calls(plan)
        except Exception as error:  # a bug of ours fails its block, and the other branches go on
            while isinstance(error, ExceptionGroup):  # of a fan-out's calls
                error = error.exceptions[0]
            if self._facts.options.debug and not isinstance(error, StreamlineError):
                raise
            failure = _unforeseen(error)
            outcome = BlockOutcome(uuid=uuid, type=plan.block.type, status=FAILED, failure=failure)
            finished = _failed(plan)
        self.outcomes[uuid] = outcome
        self._finished[uuid] = finished
        self._record(outcome)
        self._listener.finished(outcome)
        self._events[uuid].set()

    def _reused(self, plan: BlockPlan) -> tuple[BlockOutcome, Finished] | None:
        """The block as an earlier part of this run left it; None if it has to run."""
        uuid = plan.block.uuid
        ended = self._past.ended.get(uuid) if self._past is not None else None
        if self._past is None or ended is None or plan.secret:
            return None
        if any(not self.outcomes[name].reused for name in plan.block.upstream):
            return None  # what it was made from has been made anew
        called = self._past.calls.get(uuid, {})
        skipped = dict(ended.skipped)
        instances = []
        for number in range(ended.calls):
            if number in skipped:
                instances.append(Instance(number=number, key=skipped[number], status=SKIPPED))
                continue
            if number not in called:
                return None
            instance = instance_of(called[number])
            instance.ref = self._stored(plan, number, child=ended.child, staged=False)
            if instance.ref is None:
                return None
            instances.append(instance)
        finished = _finished(plan, instances, child=ended.child)
        if not self._needs_the_same(plan, ended, instances):
            return None
        if finished.dynamic and any(one.ref is not None and one.items is None for one in instances):
            return None  # it was not dynamic then
        outcome = BlockOutcome(
            uuid=uuid,
            type=plan.block.type,
            status=ended.status,
            seconds=ended.seconds,
            attempts=ended.attempts,
            results=ended.results,
            calls=ended.calls if ended.child else None,
            reused=True,
        )
        return outcome, finished

    def _needs_the_same(self, plan: BlockPlan, ended: Ended, instances: Sequence[Instance]) -> bool:
        """Whether the pipeline, which may have been edited since, still asks for the calls that were made."""
        upstream = [self._finished[name] for name in plan.block.upstream]
        if ended.upstream != plan.block.upstream or ended.child != is_child(upstream):
            return False
        calls = calls_of(upstream)
        if ended.child:
            calls = calls[: self._plan.limits.max_children]
        return [call.key for call in calls] == [one.key for one in instances]

    def _stored(self, plan: BlockPlan, number: int, *, child: bool, staged: bool) -> InputRef | None:
        """The output that this run stored; None if it is not there whole."""
        from streamline.outputs.store import read_manifest

        uuid = plan.block.uuid
        folder = self._places.staged(uuid) if staged else self._places.block(uuid)
        folder = folder / str(number) if child else folder
        manifest = read_manifest(folder)
        if manifest is None or manifest.run_id != self._facts.run_id:
            return None
        return InputRef(block=uuid, type=plan.block.type, folder=str(folder), child=child, run_id=self._facts.run_id)

    async def _calls(self, plan: BlockPlan) -> tuple[BlockOutcome, Finished]:
        uuid = plan.block.uuid
        upstream = [self._finished[name] for name in plan.block.upstream]
        calls = calls_of(upstream)
        child = is_child(upstream)
        self._forget_what_changed(plan)
        limits = self._plan.limits
        if child and limits.max_children is not None and len(calls) > limits.max_children:
            if limits.on_exceeded == "fail":
                failure = Failure(
                    message=f"it would run {len(calls):,} times; max_child_block_runs is {limits.max_children:,}",
                    where=self._plan.model.where(uuid),
                    hint="raise max_child_block_runs, or set on_max_child_block_runs_exceeded: limit",
                )
                outcome = BlockOutcome(
                    uuid=uuid, type=plan.block.type, status=FAILED, failure=failure, calls=len(calls)
                )
                nothing = _Made(Instance(number=0, status=FAILED), failure=failure)
                await self._callbacks(plan, self._task(plan, Call(key=()), 0, child=False), nothing)
                return outcome, _failed(plan)
            self._warn(uuid, f"it runs for {limits.max_children:,} of {len(calls):,} items (max_child_block_runs)")
            calls = calls[: limits.max_children]
        if any(call.verdict is None for call in calls) and not self.interrupted:
            self._listener.started(uuid, len(calls) if child else None)
            self._record(BlockOutcome(uuid=uuid, type=plan.block.type, status="running"))
        made = await self._make_all(plan, calls, child=child)
        return self._close(plan, made, child=child)

    def _forget_what_changed(self, plan: BlockPlan) -> None:
        """See that a block that has to run uses nothing of an earlier part of the run that no longer holds."""
        uuid, past = plan.block.uuid, self._past
        if past is None:
            return
        anew = any(not self.outcomes[name].reused for name in plan.block.upstream)
        if uuid in past.ended or (anew and uuid in past.calls):
            if self._journal is not None:
                self._journal.add(Undone(block=uuid))
            past.calls.pop(uuid, None)
        self._places.keep_staged(uuid, past.calls.get(uuid, {}))

    async def _make_all(self, plan: BlockPlan, calls: Sequence[Call], *, child: bool) -> list[_Made]:
        at_once = self._executor.size if self._facts.options.parallel else 1
        if child and self._plan.limits.max_concurrent is not None:
            at_once = min(at_once, self._plan.limits.max_concurrent)
        made: list[_Made | None] = [None] * len(calls)
        waiting = iter(range(len(calls)))

        async def work() -> None:
            for number in waiting:
                made[number] = await self._make(plan, calls[number], number, child=child)

        if at_once == 1 or len(calls) == 1:
            await work()
        else:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(at_once, len(calls))):
                    tasks.create_task(work())
        return [one for one in made if one is not None]

    def _close(self, plan: BlockPlan, made: Sequence[_Made], *, child: bool) -> tuple[BlockOutcome, Finished]:
        uuid = plan.block.uuid
        instances = [one.instance for one in made]
        status = _status([one.status for one in instances])
        if child and status in (COMPLETED, SKIPPED) and not plan.secret:
            self._places.publish(uuid)
            for number, instance in enumerate(instances):
                if instance.ref is not None:
                    folder = str(self._places.block(uuid) / str(number))
                    instance.ref = msgspec.structs.replace(instance.ref, folder=folder)
        began = [one.began for one in made if one.began is not None]
        ended = [one.ended for one in made if one.ended is not None]
        failed = [one for one in made if one.instance.status == FAILED]
        tests = [test for one in made if one.result is not None for test in one.result.tests]
        outcome = BlockOutcome(
            uuid=uuid,
            type=plan.block.type,
            status=status,
            seconds=round(max(ended) - min(began), 3) if began and ended else None,
            attempts=max((one.attempts for one in made), default=0),
            results=_results(made, child=child),
            failure=_failure(failed, child=child),
            calls=len(made) if child else None,
            failed=len(failed),
            tests=(len(tests), sum(test.error is not None for test in tests)),
        )
        if plan.secret:
            self._places.remove(uuid)  # what was stored before it was secret
        elif status in (COMPLETED, SKIPPED):
            if child or status == COMPLETED:
                self._places.remember(uuid, instances, child=child)
            if self._journal is not None:
                self._journal.add(
                    Ended(
                        block=uuid,
                        child=child,
                        calls=len(made),
                        upstream=plan.block.upstream,
                        status=status,
                        skipped=[(one.number, one.key) for one in instances if one.status == SKIPPED],
                        seconds=outcome.seconds,
                        attempts=outcome.attempts,
                        results=outcome.results,
                    )
                )
        return outcome, _finished(plan, instances, child=child)

    # --- calls

    async def _make(self, plan: BlockPlan, call: Call, number: int, *, child: bool) -> _Made:
        """Make one call of a block, with all that belongs to it: conditions before, retries, callbacks after."""
        instance = Instance(number=number, key=call.key)
        if call.verdict is not None:
            instance.status = call.verdict
            return _Made(instance)
        if self.interrupted:
            instance.status = CANCELLED
            return _Made(instance)
        earlier = self._made_before(plan, call, number, child=child)
        if earlier is not None:
            return earlier
        if not await self._allowed(plan, call, number, child=child):
            instance.status = CANCELLED if self.interrupted else SKIPPED
            return _Made(instance)
        made = _Made(instance, began=time.monotonic())
        task = self._task(plan, call, number, child=child)
        made.result = await self._attempts(plan, task, made)
        made.ended = time.monotonic()
        if made.attempts == 1 and task.kind == "run":
            made.began = made.ended - made.result.seconds  # without the waiting for a worker
        made.failure = made.result.failure
        if made.failure is not None:
            instance.status = CANCELLED if self.interrupted else FAILED
        else:
            self._completed(plan, task, made, child=child)
        await self._callbacks(plan, task, made)
        return made

    def _made_before(self, plan: BlockPlan, call: Call, number: int, *, child: bool) -> _Made | None:
        """A child's call that an earlier part of this run made, where the block as a whole had not ended."""
        if not child or self._past is None or plan.secret:
            return None
        called = self._past.calls.get(plan.block.uuid, {}).get(number)
        if called is None or called.key != call.key or (plan.dynamic and not plan.reduce and called.items is None):
            return None
        ref = self._stored(plan, number, child=True, staged=True)
        if ref is None:
            return None
        instance = instance_of(called)
        instance.ref = ref
        return _Made(instance, result=TaskResult(outputs=called.outputs))

    async def _allowed(self, plan: BlockPlan, call: Call, number: int, *, child: bool) -> bool:
        """Whether all of the block's conditions say yes; all are asked."""
        allowed = True
        for uuid in plan.conditions:
            task = Task(
                id=f"{uuid}:{plan.block.uuid}:{number}",
                kind="condition",
                block=uuid,
                inputs=call.inputs,
                child=number if child else None,
                timeout=self._plan.code(uuid).timeout,
                **self._common(),
            )
            result = await self._do(task, isolated=plan.isolated)
            if result.failure is not None and not self.interrupted:
                self._warn(uuid, f"it could not be evaluated, which counts as no: {result.failure.message}")
            allowed = allowed and result.failure is None and result.gate is not False
        return allowed

    def _task(self, plan: BlockPlan, call: Call, number: int, *, child: bool) -> Task:
        uuid = plan.block.uuid
        folder = self._places.staged(uuid) / str(number) if child else self._places.block(uuid)
        return Task(
            id=f"{uuid}:{number}",
            kind="poll" if plan.block.type == "sensor" else "run",
            block=uuid,
            inputs=call.inputs,
            output=None if plan.secret else str(folder),
            durable=not child,
            child=number if child else None,
            run_tests=self._facts.options.tests,
            dynamic=plan.dynamic and not (plan.reduce and child),
            timeout=plan.block.timeout,
            **self._common(),
        )

    def _common(self) -> dict[str, Any]:
        facts = self._facts
        return {
            "project": str(facts.project.root),
            "pipeline": self._plan.model.uuid,
            "run_id": facts.run_id,
            "run_dir": str(facts.run_dir),
            "variables": facts.variables,
            "runtime": facts.runtime,
            "execution_date": facts.execution_date,
        }

    async def _attempts(self, plan: BlockPlan, task: Task, made: _Made) -> TaskResult:
        """Try until it goes well, must not be tried again, or the run is interrupted."""
        retry = plan.block.retry_config or RetryConfig()
        while True:
            made.attempts += 1
            attempt = msgspec.structs.replace(task, attempt=made.attempts, id=f"{task.id}:{made.attempts}")
            result = await (self._poll(plan, attempt) if task.kind == "poll" else self._do_in(plan, attempt))
            failure = result.failure
            if failure is None or self.interrupted or not failure.retry or made.attempts > retry.retries:
                return result
            delay = retry.delay_before(made.attempts)
            self._listener.retrying(plan.block.uuid, failure, delay)
            self._warn(plan.block.uuid, f"attempt {made.attempts} failed: {failure.message}")
            if await self._sleep(delay):
                return result

    async def _poll(self, plan: BlockPlan, task: Task) -> TaskResult:
        """Ask a sensor until it says yes. No worker is kept while it waits."""
        if self._facts.options.skip_sensors:
            task = msgspec.structs.replace(task, extra={"skip": True})
        began = time.monotonic()
        number = 0
        while True:
            number += 1
            result = await self._do_in(plan, msgspec.structs.replace(task, id=f"{task.id}:{number}"))
            if result.failure is not None or result.gate:
                result.gate = None
                return result
            left = None if plan.patience is None else began + plan.patience - time.monotonic()
            if left is not None and left <= 0:
                result.failure = Failure(
                    message=f"it did not say yes within {plan.patience:g} seconds (asked {number} times)",
                    where=self._plan.model.where(plan.block.uuid, "configuration", "timeout"),
                )
                return result
            wait = plan.interval if left is None else min(plan.interval, left)
            self._listener.waiting(plan.block.uuid, wait)
            if await self._sleep(wait):
                result.failure = Failure(message="interrupted while it waited")
                return result

    async def _do_in(self, plan: BlockPlan, task: Task) -> TaskResult:
        return await self._do(task, isolated=plan.isolated)

    async def _do(self, task: Task, *, isolated: bool) -> TaskResult:
        if self.interrupted and task.kind != "callback":  # the signal came between two steps
            return TaskResult(failure=Failure(message="cancelled before it began", retry=False))
        self._running.add(task.id)
        try:
            result = await self._executor.run(task, isolated=isolated)
        finally:
            self._running.discard(task.id)
        for warning in result.warnings:
            self._warn(task.block, warning)
        return result

    async def _sleep(self, seconds: float) -> bool:
        """Wait; True if the run was interrupted meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._interrupted.wait()
        except TimeoutError:
            return False
        return True

    def _completed(self, plan: BlockPlan, task: Task, made: _Made, *, child: bool) -> None:
        result, instance, uuid = made.result, made.instance, plan.block.uuid
        assert result is not None
        instance.gate, instance.items, instance.described = result.gate, result.items, result.described
        instance.ref = InputRef(
            block=uuid,
            type=plan.block.type,
            folder=task.output,
            inline=result.inline,
            child=child,
            run_id=self._facts.run_id if task.output is not None else None,
        )
        if self._journal is not None and not plan.secret:
            self._journal.add(
                Called(
                    block=uuid,
                    number=instance.number,
                    key=instance.key,
                    gate=instance.gate,
                    items=instance.items,
                    described=instance.described,
                    outputs=result.outputs,
                )
            )

    async def _callbacks(self, plan: BlockPlan, task: Task, made: _Made) -> None:
        for uuid in plan.callbacks:
            result = await self._do(
                Task(
                    id=f"{uuid}:{task.id}",
                    kind="callback",
                    block=uuid,
                    inputs=task.inputs,
                    own=made.instance.ref,
                    child=task.child,
                    callback_for=_CALLBACK[made.instance.status],
                    extra={"failure": made.failure, "parent_block_uuid": plan.block.uuid},
                    timeout=self._plan.code(uuid).timeout,
                    **self._common(),
                ),
                isolated=plan.isolated,
            )
            self._callback_ended(uuid, result)

    def _callback_ended(self, uuid: str, result: TaskResult) -> None:
        if result.failure is not None:
            place = f" ({result.failure.where})" if result.failure.where else ""
            self._warn(uuid, f"the callback failed: {result.failure.message}{place}")


_CALLBACK = {COMPLETED: "success", FAILED: "failure", CANCELLED: "cancelled"}


def _status(statuses: Sequence[str]) -> str:
    """A block's status, given those of its calls: the worst, and `skipped` only where all were."""
    for status in (CANCELLED, FAILED, UPSTREAM_FAILED):
        if status in statuses:
            return status
    return SKIPPED if statuses and all(status == SKIPPED for status in statuses) else COMPLETED


def _finished(plan: BlockPlan, instances: Sequence[Instance], *, child: bool) -> Finished:
    reduce = plan.reduce and child
    return Finished(
        uuid=plan.block.uuid,
        type=plan.block.type,
        dynamic=plan.dynamic and not reduce,
        reduce=reduce,
        child=child,
        instances=instances,
    )


def _unforeseen(error: Exception) -> Failure:
    if isinstance(error, StreamlineError):
        return Failure(message=error.message, where=error.where, hint=error.hint)
    if isinstance(error, OSError):  # of the disk that outputs are on
        place = str(error.filename) if error.filename else None
        return Failure(message=f"the output cannot be kept: {error.strerror or error}", where=place)
    return Failure(
        message=f"unexpected {type(error).__name__}: {error}",
        hint="this is a bug in Streamline: run it again with --debug, and report the traceback",
    )


def _failed(plan: BlockPlan) -> Finished:
    return _finished(plan, [Instance(number=0, status=FAILED)], child=False)


def _results(made: Sequence[_Made], *, child: bool) -> list[Any]:
    """What `runs show` lists: what the blocks say themselves, else what they returned."""
    said = [one for each in made if each.result is not None for one in each.result.results]
    if said or child:
        return said
    return [one for each in made if each.result is not None for one in each.result.outputs]


def _failure(failed: Sequence[_Made], *, child: bool) -> Failure | None:
    first = failed[0].failure if failed else None
    if first is None or not child:
        return first
    number = failed[0].instance.number
    others = f" (and {len(failed) - 1:,} more failed)" if len(failed) > 1 else ""
    return msgspec.structs.replace(first, message=f"child {number}: {first.message}{others}")
