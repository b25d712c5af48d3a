"""One attempt at a streaming pipeline: its flows from the last proof on, until it ends, fails or is stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import anyio
import anyio.to_thread
import msgspec

from streamline.errors import PipelineFailed, StreamlineError
from streamline.execution.flow_runs import INTERRUPT_SECONDS
from streamline.execution.run import Run
from streamline.execution.streaming.flows import Flows
from streamline.execution.streaming.letter_box import open_letters
from streamline.execution.streaming.letters import Letters
from streamline.execution.streaming.live import publish_live
from streamline.execution.streaming.plan import Plan
from streamline.execution.streaming.planner import context_of
from streamline.execution.streaming.positions import StreamPositions
from streamline.execution.streaming.repartitions import ready_repartitions, trim_repartitions
from streamline.flow.items import Position
from streamline.flow.runtime import FlowOutcome, Runtime
from streamline.flow.tasks import task_group

OTHERS_SECONDS = 60.0
"""Seconds that the sinks of other flows get to prove what they have when a flow has failed."""

SAVE_SECONDS = 0.5
"""Seconds between two saves of proven positions at most."""

INTERRUPT_MARGIN = 2.0
"""Seconds beyond `INTERRUPT_SECONDS` that an interrupted attempt may take to report that it is not done."""


class AttemptOutcome(msgspec.Struct, kw_only=True):
    """How an attempt ended.

    Args:
        error: None if all that was read is proven and saved.
        block: uuid of the block at fault.
        given: a source has given something.
        saved: a position was saved.
        unfinished: it was interrupted, and not all could be proven in time.
        seconds: how long it took.
        next_plan: it was stopped to go on with this one.
    """

    error: Exception | None = None
    block: str | None = None
    given: bool = False
    saved: bool = False
    unfinished: bool = False
    seconds: float = 0.0
    next_plan: Plan | None = None


async def run_attempt(
    run: Run, plan: Plan, number: int, read_again: Callable[[], Awaitable[Plan | None]]
) -> AttemptOutcome:
    """Run the plan once.

    Args:
        number: of the attempt, from 1.
        read_again: see `run_attempts`.
    """
    return await _Attempt(run, plan, number, read_again).run()


class _Attempt:
    def __init__(self, run: Run, plan: Plan, number: int, read_again: Callable[[], Awaitable[Plan | None]]) -> None:
        self._run = run
        self._plan = plan
        self._number = number
        self._read_again = read_again
        self._flows: Flows | None = None
        self._outcome = AttemptOutcome()
        self._first_error: Exception | None = None
        self._context = partial(context_of, run, plan.pipeline, plan.settings)

    async def run(self) -> AttemptOutcome:
        outcome = self._outcome
        began = anyio.current_time()
        try:
            if self._plan.repartitions:
                await anyio.to_thread.run_sync(ready_repartitions, self._run, self._plan, self._context)
            letters: Letters | None = None
            if self._plan.settings.on_error == "dead-letter":
                letters = await anyio.to_thread.run_sync(open_letters, self._run, self._plan)
            try:
                self._flows = Flows(self._run, self._plan, self._number, letters)
                await self._move(self._flows)
            finally:
                if letters is not None:
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(letters.close)
        except Exception as error:
            outcome.unfinished = False
            outcome.error = error
            outcome.block = next(iter(error.blocks), None) if isinstance(error, PipelineFailed) else None
        outcome.given = self._flows is not None and self._flows.given
        outcome.seconds = anyio.current_time() - began
        return outcome

    async def _move(self, flows: Flows) -> None:
        kept = flows.box.kept_with_positions if flows.box is not None else None
        positions = StreamPositions(
            self._run.store,
            self._plan,
            self._run.run_id,
            flows.sources,
            kept,
            singer=flows.singer,
            states=list(flows.stored.values()),
        )
        runtime = Runtime(
            flows.flows(),
            store=positions,
            on_saved=self._saved,
            on_failed=lambda id, error: self._failed(runtime, id, error),
            save_interval=min(SAVE_SECONDS, self._plan.settings.checkpoint_interval),
        )
        flows.settled = runtime.settled
        self._outcome.unfinished = True
        try:
            async with task_group() as background:
                background.start_soon(self._pass_on_interrupt, runtime, background.cancel_scope)
                background.start_soon(publish_live, self._run, flows.sources)
                background.start_soon(trim_repartitions, self._run, self._plan, self._context)
                self._judge(await runtime.run())
                self._outcome.unfinished = False
                background.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._close(positions)

    def _failed(self, runtime: Runtime, id: str, error: Exception) -> None:
        """End all flows when one has failed: the next attempt starts all of them again."""
        self._run.note(id, f"failed: {error}", "ERROR")
        if self._first_error is not None:
            return
        self._first_error = error
        if len(self._plan.sources) > 1 and self._run.interrupted is None:
            runtime.stop(f"{id} has failed", within=OTHERS_SECONDS)

    async def _close(self, positions: StreamPositions) -> None:
        try:
            await anyio.to_thread.run_sync(positions.close)
        except StreamlineError as error:
            self._run.warn("streamline", f"the positions to show could not be saved: {error.message}")

    async def _pass_on_interrupt(self, runtime: Runtime, scope: anyio.CancelScope) -> None:
        while self._run.interrupted is None:
            await anyio.sleep(0.05)
            if self._run.reload_asked and self._outcome.next_plan is None:
                self._run.reload_asked = False
                self._outcome.next_plan = await self._read_again()
                if self._outcome.next_plan is not None:
                    runtime.stop("the pipeline's files are read again")
        runtime.stop("the run was interrupted", within=INTERRUPT_SECONDS)
        await anyio.sleep(INTERRUPT_SECONDS + INTERRUPT_MARGIN)
        scope.cancel()

    async def _saved(self, position: Position, moved: Mapping[str, bytes]) -> None:
        counts = self._run.progress.of(position.source)
        counts.saved(position.number, lambda stream: True, lambda sink, table: table)
        counts.saved_is_written()
        if self._flows is not None:
            self._flows.saved(position, moved)
        if self._flows is not None and self._flows.box is not None:
            self._flows.box.keys_of(position.source).saved(position.number)
        if moved:
            self._outcome.saved = True
            self._run.progress.position_saved(position.source)

    def _judge(self, outcomes: Sequence[FlowOutcome]) -> None:
        # What failed first is the cause: others may have been cut short by it.
        for outcome in sorted(outcomes, key=lambda each: each.error is not self._first_error):
            error = outcome.error
            if error is None:
                continue
            blocks = error.blocks if isinstance(error, PipelineFailed) else ()
            self._outcome.error = error
            self._outcome.block = next(iter(blocks), None) or outcome.sink or outcome.source
            return
