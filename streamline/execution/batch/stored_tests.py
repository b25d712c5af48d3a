"""Runs the tests of blocks on their stored outputs, without running the blocks."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamline.blocks.call import TestOutcome
from streamline.errors import ConfigError
from streamline.execution.batch.block_log import BlockLines
from streamline.execution.batch.calls import Calls, RunFacts
from streamline.execution.batch.executor import LocalExecutor
from streamline.execution.batch.fanout import Instance
from streamline.execution.batch.output_layout import OutputLayout
from streamline.execution.batch.plan import BatchPlan, BlockPlan, make_plan
from streamline.execution.batch.task import Failure, InputRef
from streamline.execution.events import Bus
from streamline.execution.run import Run, RunOptions, hold_lease, new_run_id, open_run, run_to_end
from streamline.state import project_store

if TYPE_CHECKING:
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project


class BlockTests(msgspec.Struct, kw_only=True):
    """Results of a block's tests.

    Args:
        stored: whether there is an output to test.
        tests: each test of each output; `[2] test_output` names a dynamic block's child.
        failure: why they could not be run.
    """

    uuid: str
    stored: bool
    tests: list[TestOutcome] = []
    failure: Failure | None = None

    @property
    def passed(self) -> bool:
        """Return whether nothing failed; a block without tests passes."""
        return self.failure is None and all(test.error is None for test in self.tests)


def run_stored_tests(project: Project, model: PipelineModel, options: RunOptions, bus: Bus) -> list[BlockTests]:
    """Run the tests of a pipeline's blocks (or of `options.block`) on their stored outputs, in the plan's order.

    Raises:
        ConfigError: something in the pipeline is wrong, or nothing is stored.
        LeaseHeld: a run of the pipeline is in progress.
    """
    plan = make_plan(project, model)
    if options.block is not None:
        model.block(options.block)
    run_id = new_run_id()
    runs = project.ensure_work_dir() / "runs"
    runs.mkdir(mode=0o700, exist_ok=True)
    with (
        project_store(project) as store,
        hold_lease(store, project, model.uuid, run_id),
        tempfile.TemporaryDirectory(prefix="test-", dir=runs, ignore_cleanup_errors=True) as folder,
        open_run(project, store, model.uuid, run_id, options, bus=bus, run_dir=Path(folder)) as run,
    ):
        return run_to_end(lambda stop: _run(run, plan))


async def _run(run: Run, plan: BatchPlan) -> list[BlockTests]:
    variables, block = run.options.variables, run.options.block
    facts = RunFacts(
        run=run,
        execution_date=datetime.now(UTC),
        variables={**plan.model.variables, **variables},
        runtime=tuple(variables),
    )
    layout = OutputLayout(run.project, plan.model.uuid, run.run_id)
    chosen = [uuid for uuid in plan.blocks if block in (None, uuid)]
    if not any(layout.stored(uuid) for uuid in chosen):
        what = f"the block '{block}'" if block is not None else f"the pipeline '{plan.model.uuid}'"
        hint = f"run it: streamline run {plan.model.uuid}"
        raise ConfigError(f"{what} has no stored outputs to test", hint=hint, code="output.missing")
    with LocalExecutor(plan, facts, BlockLines(run), run.masker) as executor:
        calls = Calls(facts, plan, layout, executor, lambda plan, instance, result: None)
        return list(await asyncio.gather(*(_block(plan.blocks[uuid], layout, calls) for uuid in chosen)))


async def _block(plan: BlockPlan, layout: OutputLayout, calls: Calls) -> BlockTests:
    uuid = plan.block.uuid
    stored = layout.stored(uuid)
    if stored is None:
        return BlockTests(uuid=uuid, stored=False)
    tests = BlockTests(uuid=uuid, stored=True)
    for call in stored.calls:
        if call.skipped:
            continue
        folder = layout.call(uuid, call.number, child=stored.child)
        ref = InputRef(block=uuid, type=plan.block.type, folder=str(folder))
        result = await calls.test(plan, Instance(number=call.number, ref=ref), child=stored.child)
        for test in result.tests:
            name = f"[{call.number}] {test.name}" if stored.child else test.name
            tests.tests.append(msgspec.structs.replace(test, name=name))
        if result.failure is not None and not result.tests and tests.failure is None:
            tests.failure = result.failure
    return tests
