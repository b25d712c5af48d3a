"""Call the callbacks and conditionals of pipelines whose blocks are not tasks, such as integration pipelines.

Each is called in a worker process, as in a batch pipeline.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from streamline.execution.batch.block_log import BlockLines
from streamline.execution.batch.calls import Calls, RunFacts
from streamline.execution.batch.executor import LocalExecutor
from streamline.execution.batch.fanout import CallPlan
from streamline.execution.batch.output_layout import OutputLayout
from streamline.execution.batch.plan import BatchPlan, BlockPlan
from streamline.execution.run import CANCELLED, COMPLETED, FAILED, Run
from streamline.pipeline.limits import DynamicLimits

if TYPE_CHECKING:
    from streamline.execution.events import BlockOutcome
    from streamline.pipeline.model import PipelineModel
    from streamline.processes.job import Failure


class Hooks:
    """The callbacks and conditionals of a run."""

    def __init__(self, run: Run, model: PipelineModel) -> None:
        self._run = run
        self._model = model

    async def gated(self) -> dict[str, str]:
        """Return the blocks that must not run, with the conditional that returned false."""
        gated: dict[str, str] = {}
        gates: dict[str, list[str]] = {}
        for conditional in self._model.conditionals.values():
            for uuid in conditional.upstream:
                gates.setdefault(uuid, []).append(conditional.uuid)
        if gates:
            async with self._calls() as calls:
                for uuid, conditions in gates.items():
                    plan = BlockPlan(block=self._model.blocks[uuid], conditions=conditions)
                    conditional_uuid = await calls.refused_by(plan, CallPlan(key=()), 0, child=False)
                    if conditional_uuid is not None:
                        gated[uuid] = conditional_uuid
        return gated

    async def ended(self, status: str, blocks: Sequence[BlockOutcome], failure: Failure | None = None) -> None:
        """Call the callbacks of the blocks that ran, then those of the pipeline.

        Args:
            status: the run's.
            failure: why the run failed, if no block did.
        """
        callbacks = self._model.callbacks.values()
        if not callbacks:
            return
        first = next((outcome.failure for outcome in blocks if outcome.failure is not None), failure)
        failed = [outcome.uuid for outcome in blocks if outcome.status == FAILED]
        async with self._calls() as calls:
            for outcome in blocks:
                if outcome.status in (COMPLETED, FAILED, CANCELLED):
                    uuids = [callback.uuid for callback in callbacks if outcome.uuid in callback.upstream]
                    extra = {"failure": outcome.failure, "parent_block_uuid": outcome.uuid}
                    await calls.call_back(uuids, outcome.status, extra, caller=outcome.uuid)
            ending = {"failed_blocks": failed, "failure": first, "pipeline_status": status, "parent_block_uuid": None}
            await calls.call_back([callback.uuid for callback in callbacks if not callback.upstream], status, ending)

    @asynccontextmanager
    async def _calls(self) -> AsyncIterator[Calls]:
        run, options = self._run, self._run.options
        runtime = {**options.trigger_variables, **options.variables}
        plan = BatchPlan(model=self._model, blocks={}, callbacks=[], limits=DynamicLimits(), concurrency=1, modules={})
        variables = {**self._model.variables, **runtime}
        facts = RunFacts(run=run, execution_date=run.started, variables=variables, runtime=tuple(runtime))
        with LocalExecutor(plan, facts, BlockLines(run), run.masker) as executor:
            layout = OutputLayout(run.project, self._model.uuid, run.run_id)
            yield Calls(facts, plan, layout, executor, lambda *completed: None)
