"""Runs the blocks of a batch plan, each after its upstream blocks. A failure stops only its dependents."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import StreamlineError
from streamline.execution.batch.calls import Calls, Executor, Made, RunFacts
from streamline.execution.batch.fanout import (
    CANCELLED,
    COMPLETED,
    FAILED,
    SKIPPED,
    UPSTREAM_FAILED,
    CallPlan,
    Finished,
    Instance,
    calls_of,
    is_child,
    items_of_call,
)
from streamline.execution.batch.journal import Called, Ended, Journal, Past
from streamline.execution.batch.outcomes import outcome_of, unforeseen
from streamline.execution.batch.output_layout import OutputLayout
from streamline.execution.batch.plan import BatchPlan, BlockPlan
from streamline.execution.batch.resume import Reuse, stamp_of
from streamline.execution.batch.task import Failure, InputRef, TaskResult
from streamline.execution.events import BlockOutcome, BlockStarted, CallFinished, failure_from

if TYPE_CHECKING:
    from streamline.execution.batch.connector_calls import ConnectorCalls
    from streamline.execution.batch.pending import PendingPositions


class Runner:
    """One run of a plan.

    Args:
        journal: records what completed; None for runs that cannot be resumed.
        past: what this run did before it was resumed.
        connectors: makes the calls of sources and destinations; None: the plan has none.
        pending: holds the positions of sources.
    """

    def __init__(
        self,
        facts: RunFacts,
        plan: BatchPlan,
        layout: OutputLayout,
        executor: Executor,
        *,
        journal: Journal | None,
        past: Past | None,
        connectors: ConnectorCalls | None = None,
        pending: PendingPositions | None = None,
    ) -> None:
        self._facts = facts
        self._plan = plan
        self._layout = layout
        self._executor = executor
        self._journal = journal
        self._run = facts.run
        self._finished: dict[str, Finished] = {}
        self._events = {uuid: asyncio.Event() for uuid in plan.blocks}
        self.outcomes: dict[str, BlockOutcome] = {}
        self._connectors = connectors
        self._pending = pending
        self._making = Calls(facts, plan, layout, executor, self._journal_call, connectors)
        self._reuse = (
            Reuse(
                past,
                journal,
                layout,
                facts.run.run_id,
                plan.limits.max_children,
                self._finished,
                self.outcomes,
                plan.pipes,
            )
            if past is not None
            else None
        )

    def interrupt(self) -> None:
        """Start nothing new, and cancel what runs."""
        self._making.interrupt()

    async def run(self) -> list[BlockOutcome]:
        """Run every block that can run; return the outcomes in the plan's order. User errors are in these."""
        if self._facts.run.options.parallel:
            async with asyncio.TaskGroup() as tasks:
                for uuid in self._plan.blocks:
                    tasks.create_task(self._block(uuid))
        else:
            for uuid in self._plan.blocks:
                if uuid in self._plan.pipes:
                    continue  # with its destination
                pipe = self._connectors.into(uuid) if self._connectors is not None else None
                async with asyncio.TaskGroup() as tasks:
                    for each in [*([pipe.source.block.uuid] if pipe is not None else []), uuid]:
                        tasks.create_task(self._block(each))
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
        """Call the pipeline's callbacks."""
        await self._making.call_back(uuids, status, extra)

    # --- blocks

    async def _block(self, uuid: str) -> None:
        plan = self._plan.blocks[uuid]
        for name in plan.block.upstream:
            await self._wait_for(name, uuid)
        try:
            outcome, finished = await self._reused(plan) or await self._calls(plan)
        except Exception as error:  # a bug in Streamline fails its block; other branches continue
            while isinstance(error, ExceptionGroup):  # of a fan-out's calls
                error = error.exceptions[0]
            if self._facts.run.options.debug and not isinstance(error, StreamlineError):
                raise
            failure = unforeseen(error)
            outcome = BlockOutcome(uuid=uuid, status=FAILED, failure=failure)
            finished = _failed(plan)
        self.outcomes[uuid] = outcome
        self._finished[uuid] = finished
        if self._connectors is not None:
            self._connectors.end_pipe(uuid, outcome.status)
        await self._save_positions()
        self._run.finish_block(outcome)
        self._events[uuid].set()

    async def _wait_for(self, upstream: str, uuid: str) -> None:
        """Wait until an upstream block has ended; a destination that shares a flow with it: until it can be read."""
        pipe = self._connectors.pipes.get(upstream) if self._connectors is not None else None
        if pipe is None or pipe.destination != uuid:
            await self._events[upstream].wait()
            return
        waits = [asyncio.create_task(event.wait()) for event in (self._events[upstream], pipe.offered)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if upstream not in self._finished:
            ref = InputRef(block=upstream, type=pipe.source.block.type, live=True)
            self._finished[upstream] = _finished(pipe.source, [Instance(number=0, ref=ref)], child=False)

    async def _save_positions(self) -> None:
        """Save the positions of sources whose downstream blocks have all completed. A failure fails the source."""
        if self._pending is None or self._facts.run.options.block is not None:
            return
        try:
            finished = {uuid: self._finished[uuid] for uuid in self.outcomes}
            await asyncio.to_thread(self._pending.save_settled, finished)
        except StreamlineError as error:
            for uuid in self._pending.settled(finished):
                self.outcomes[uuid].status, self.outcomes[uuid].failure = FAILED, failure_from(error)

    async def _reused(self, plan: BlockPlan) -> tuple[BlockOutcome, Finished] | None:
        """Return the block as this run left it before it was resumed; None if it has to run."""
        reused = self._reuse.block(plan) if self._reuse is not None else None
        if reused is None:
            return None
        uuid, (ended, instances) = plan.block.uuid, reused
        if ended.stamp is not None and ended.stamp != stamp_of(plan.block.file):
            self._run.warn(
                uuid, "its file has changed since it ran; its output is kept (run without --resume to run it again)"
            )
        outcome = BlockOutcome(
            uuid=uuid,
            status=ended.status,
            seconds=ended.seconds,
            attempts=ended.attempts,
            results=ended.results,
            calls=ended.calls if ended.child else None,
            reused=True,
        )
        if self._facts.run.options.tests and not ended.tested:
            await self._test(plan, outcome, instances, child=ended.child)
        limited = ended.child and len(calls_of(self._upstream(plan))) > len(instances)
        return outcome, _finished(plan, instances, child=ended.child, limited=limited)

    async def _test(self, plan: BlockPlan, outcome: BlockOutcome, instances: list[Instance], *, child: bool) -> None:
        """Run tests on the stored output, if the run did not include them before it was resumed."""
        ran = failed = 0
        for instance in instances:
            if instance.ref is None or instance.ref.live:
                continue
            result = await self._making.test(plan, instance, child=child)
            ran += len(result.tests)
            failed += sum(test.error is not None for test in result.tests)
            if result.failure is not None and outcome.failure is None:
                outcome.failure, outcome.status, outcome.reused = result.failure, FAILED, False
                instance.status, instance.ref = FAILED, None
        outcome.tests = (ran, failed)

    def _upstream(self, plan: BlockPlan) -> list[Finished]:
        return [self._finished[name] for name in plan.block.upstream]

    async def _calls(self, plan: BlockPlan) -> tuple[BlockOutcome, Finished]:
        uuid, upstream = plan.block.uuid, self._upstream(plan)
        calls = calls_of(upstream)
        child, limited = is_child(upstream), False
        if self._reuse is not None:
            self._reuse.forget_what_changed(plan)
        possible = sum(call.verdict is None for call in calls)
        most = self._plan.limits.max_children
        if child and most is not None and possible > most:
            if self._plan.limits.on_exceeded == "fail":
                return await self._too_many(plan, possible, most)
            self._run.warn(uuid, f"limited to {most:,} of {possible:,} items (max_child_block_runs)")
            calls = _within(calls, most)
            limited = True
        if possible and not self._making.interrupted:
            self._run.bus.publish(BlockStarted(block=uuid, calls=len(calls) if child else None))
        made = await self._make_all(plan, calls, child=child)
        outcome, finished = self._close(plan, made, child=child)
        finished.limited = limited
        return outcome, finished

    async def _too_many(self, plan: BlockPlan, possible: int, most: int) -> tuple[BlockOutcome, Finished]:
        failure = Failure(
            message=f"{possible:,} child runs exceed max_child_block_runs ({most:,})",
            where=self._plan.model.where(plan.block.uuid),
            hint="raise max_child_block_runs, or set on_max_child_block_runs_exceeded: limit",
            code="block.too_many_children",
        )
        await self._making.refused(plan, failure)
        return BlockOutcome(uuid=plan.block.uuid, status=FAILED, failure=failure), _failed(plan)

    async def _make_all(self, plan: BlockPlan, calls: Sequence[CallPlan], *, child: bool) -> list[Made]:
        at_once = self._executor.size if self._facts.run.options.parallel else 1
        if child and self._plan.limits.max_concurrent is not None:
            at_once = min(at_once, self._plan.limits.max_concurrent)
        made: list[Made | None] = [None] * len(calls)
        waiting = iter(range(len(calls)))

        async def work() -> None:
            for number in waiting:
                made[number] = await self._call(plan, calls[number], number, child=child)

        if at_once == 1 or len(calls) == 1:
            await work()
        else:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(at_once, len(calls))):
                    tasks.create_task(work())
        return [call for call in made if call is not None]

    async def _call(self, plan: BlockPlan, call: CallPlan, number: int, *, child: bool) -> Made:
        instance = Instance(number=number, key=call.key)
        if call.verdict is not None:
            # A block downstream of one that a signal ended is cancelled, not failed.
            cancelled = any(
                self.outcomes[name].status == CANCELLED for name in plan.block.upstream if name in self.outcomes
            )
            instance.status = CANCELLED if cancelled and call.verdict == UPSTREAM_FAILED else call.verdict
            return Made(instance)
        if self._making.interrupted:
            instance.status = CANCELLED
            return Made(instance)
        earlier = self._reuse.call(plan, call, number) if child and self._reuse is not None else None
        if earlier is not None:
            return Made(earlier[0], result=TaskResult(outputs=earlier[1]))
        if child and plan.connector == "source":
            call = msgspec.structs.replace(call, items=items_of_call(call.key, self._finished))
        made = await self._making.make(plan, call, number, child=child)
        if child:
            self._run.bus.publish(CallFinished(block=plan.block.uuid, failed=made.failure is not None))
        return made

    def _close(self, plan: BlockPlan, made: Sequence[Made], *, child: bool) -> tuple[BlockOutcome, Finished]:
        uuid = plan.block.uuid
        instances = [call.instance for call in made]
        outcome = outcome_of(plan, made, self._upstream(plan), child=child)
        status = outcome.status
        alone = self._facts.run.options.block is not None and not child
        if (child or alone) and status in (COMPLETED, SKIPPED) and not plan.secret:
            self._layout.publish(uuid, child=child)
            for number, instance in enumerate(instances):
                if instance.ref is not None:
                    folder = str(self._layout.call(uuid, number, child=child))
                    instance.ref = msgspec.structs.replace(instance.ref, folder=folder)
        elif alone and self._layout.remembered(uuid) is None:
            self._layout.publish(uuid, child=False)  # `streamline test` can test it again
        if plan.secret or uuid in self._plan.pipes:
            self._layout.remove(uuid)  # what was stored before it was secret, or before it shared a flow
        if not plan.secret and status in (COMPLETED, SKIPPED):
            if child or status == COMPLETED:
                self._layout.remember(uuid, instances, child=child)
            self._journal_end(plan, outcome, instances, child=child)
        return outcome, _finished(plan, instances, child=child)

    def _journal_end(
        self, plan: BlockPlan, outcome: BlockOutcome, instances: Sequence[Instance], *, child: bool
    ) -> None:
        if self._journal is None:
            return
        self._journal.add(
            Ended(
                block=plan.block.uuid,
                child=child,
                calls=len(instances),
                upstream=plan.block.upstream,
                status=outcome.status,
                skipped=[(instance.number, instance.key) for instance in instances if instance.status == SKIPPED],
                seconds=outcome.seconds,
                attempts=outcome.attempts,
                results=outcome.results,
                tested=self._facts.run.options.tests,
                stamp=stamp_of(plan.block.file),
            )
        )

    def _journal_call(self, plan: BlockPlan, instance: Instance, result: TaskResult) -> None:
        if self._journal is not None and not plan.secret:
            self._journal.add(Called(block=plan.block.uuid, outputs=result.outputs, **instance.facts()))


def _finished(plan: BlockPlan, instances: Sequence[Instance], *, child: bool, limited: bool = False) -> Finished:
    return Finished(
        uuid=plan.block.uuid,
        type=plan.block.type,
        dynamic=plan.fans_out(child=child),
        reduce=plan.reduce and child,
        child=child,
        limited=limited,
        instances=instances,
    )


def _failed(plan: BlockPlan) -> Finished:
    return _finished(plan, [Instance(number=0, status=FAILED)], child=False)


def _within(calls: Sequence[CallPlan], most: int) -> list[CallPlan]:
    """Return the first `most` calls that can be made, and all that cannot, whose status is still to be reported."""
    left = most
    kept = []
    for call in calls:
        if call.verdict is None:
            left -= 1
            if left < 0:
                continue
        kept.append(call)
    return kept
