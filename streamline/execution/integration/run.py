"""Runs an integration pipeline: lease, leftovers, attempts, retries, and the record of it all."""

from __future__ import annotations

import signal
from contextlib import closing
from functools import partial
from typing import Any

import anyio
import msgspec

from streamline.errors import ConfigError, LeaseHeld
from streamline.execution.integration.attempt import Attempt, Outcome
from streamline.execution.integration.block_runs import block_runs
from streamline.execution.integration.context import RunContext, RunOptions
from streamline.execution.integration.plan import GroupPlan, Plan
from streamline.execution.integration.planner import make_plan, refresh_positions
from streamline.execution.run import Interrupted, Stop, hold_lease, new_run_id, open_run, run_to_end
from streamline.flow.stages.schema_change import SchemaPaused
from streamline.flow.stages.versions import new_version
from streamline.flow.tasks import task_group
from streamline.pipeline.model import PipelineModel, RetryConfig
from streamline.project.project import Project
from streamline.state import open_store


class Result(msgspec.Struct):
    """How a run ended.

    Args:
        status: completed, failed or cancelled.
        signal: the signal that interrupted it, if one did.
        errors: what failed, by group or block.
        warnings: what taps and targets warned of.
    """

    run_id: str
    status: str
    summary: dict[str, Any]
    errors: dict[str, Exception]
    log: str
    signal: int | None = None
    notes: list[str] = []
    warnings: list[str] = []


class Listener:
    """What a run tells while it goes on. The command line shows it; this one keeps silent."""

    def planned(self, plan: Plan, context: RunContext) -> None:
        """Everything is known; nothing has moved yet."""

    def attempt_failed(self, outcomes: list[Outcome], delay: float | None) -> None:
        """Groups failed; the next attempt begins after `delay` seconds, or there is none."""

    async def watch(self, context: RunContext) -> None:
        """Runs beside the attempts, and is cancelled after them."""


def run_integration(
    project: Project, model: PipelineModel, options: RunOptions, listener: Listener | None = None
) -> Result:
    """Run the pipeline once, to its end.

    Raises:
        ConfigError: something is wrong that is seen before anything moves.
        LeaseHeld: another run of this pipeline is in progress.
    """
    return run_to_end(partial(run_integration_async, project, model, options, listener), uvloop=True)


async def run_integration_async(
    project: Project,
    model: PipelineModel,
    options: RunOptions,
    listener: Listener | None = None,
    stop: Stop | None = None,
) -> Result:
    """Run it in the caller's event loop (asyncio); cancelling it ends the run at once."""
    project.ensure_work_dir()
    run_id = new_run_id()
    with (
        closing(open_store(project.state_url, project.root)) as store,
        hold_lease(store, project, model.uuid, run_id),
        open_run(project, store, model.uuid, run_id, options) as run,
        run.record() as record,
    ):
        try:
            with run.signals(lambda: None, stop):
                result = await _planned(run, model, listener or Listener())
        finally:
            record.summary = run.progress.summary()
        record.status = result.status
        if result.errors:
            record.error = "; ".join(f"{name}: {failure}" for name, failure in result.errors.items())
        return result


async def _planned(context: RunContext, model: PipelineModel, listener: Listener) -> Result:
    plan = await _plan(context, model)
    listener.planned(plan, context)
    for source in plan.sources.values():
        for note in source.notes:
            context.note(source.id, note, "WARNING")
    async with task_group() as tasks:
        tasks.start_soon(listener.watch, context)
        every: list[Outcome] = []
        outcomes = await _attempts(context, plan, listener, every)
        tasks.cancel_scope.cancel()
    for block in block_runs(context, plan, every):
        context.store.save_block_run(context.run_id, block)
    failed = {_name(outcome): outcome.error for outcome in outcomes if outcome.error is not None}
    interrupted = context.interrupted
    status = "cancelled" if interrupted is not None else "failed" if failed else "completed"
    return Result(
        run_id=context.run_id,
        status=status,
        summary=context.progress.summary(),
        errors=failed,
        log=str(context.log.path),
        signal=interrupted,
        notes=[f"{source.id}: {note}" for source in plan.sources.values() for note in source.notes],
        warnings=list(context.warnings),
    )


async def _plan(context: RunContext, model: PipelineModel) -> Plan:
    """The plan; a signal ends what is asked for it, for a tap's discovery may take its time.

    Raises:
        Interrupted: by a signal.
    """
    plan: Plan | None = None

    async def give_up() -> None:
        while context.interrupted is None:
            await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()

    async with task_group() as tasks:
        tasks.start_soon(give_up)
        plan = await make_plan(context, model)
        tasks.cancel_scope.cancel()
    if plan is None:
        raise Interrupted(context.interrupted or signal.SIGINT)
    return plan


def _name(outcome: Outcome) -> str:
    return outcome.group.id


async def _attempts(context: RunContext, plan: Plan, listener: Listener, every: list[Outcome]) -> list[Outcome]:
    """Attempts until every group is done, or no group may be tried again.

    Args:
        every: is given the outcomes of all attempts; those of each group's last one are returned.
    """
    finished: dict[str, Outcome] = {}
    waiting: list[GroupPlan] = plan.groups()
    tried = dict.fromkeys((group.id for group in waiting), 0)
    validated: set[str] = set()
    version = 0
    while waiting:
        version = new_version(version)
        validate = any(group.id in validated for group in waiting)
        outcomes = await Attempt(
            context, plan, waiting, validate=validate, version=version, number=1 + max(tried.values())
        ).run()
        every += outcomes
        again: list[GroupPlan] = []
        delay = 0.0
        for outcome in outcomes:
            group = outcome.group
            tried[group.id] += 1
            finished[group.id] = outcome
            if outcome.error is None or context.interrupted is not None or not _may_help(plan, outcome):
                continue
            retry = _retry_config(plan, group)
            if _validation_may_help(plan, outcome) and group.id not in validated:
                # A record may have broken the target: once more, with every record looked at.
                validated.add(group.id)
                again.append(group)
            elif tried[group.id] - (group.id in validated) <= retry.retries:
                delay = max(delay, retry.delay_before(tried[group.id]))
                again.append(group)
        if any(outcome.error is not None for outcome in outcomes):
            listener.attempt_failed(
                [outcome for outcome in outcomes if outcome.error is not None], delay if again else None
            )
        if not again:
            break
        with anyio.move_on_after(delay):
            while context.interrupted is None:
                await anyio.sleep(0.1)
        if context.interrupted is not None:
            break
        waiting = [await refresh_positions(context, plan, group) for group in again]
    return list(finished.values())


def _may_help(plan: Plan, outcome: Outcome) -> bool:
    """Whether trying again could end otherwise, and does no harm."""
    if outcome.started and any(plan.sinks[sink].overwrites for sink in plan.paths[outcome.group.source].all_sinks()):
        return False
    return not isinstance(outcome.error, LeaseHeld | ConfigError | SchemaPaused)


def _retry_config(plan: Plan, group: GroupPlan) -> RetryConfig:
    """The most patient of the blocks that a group's records pass; a block without its own has the pipeline's."""
    path = plan.paths[group.source]
    blocks = [
        plan.sources[group.source].block,
        *(transform.block for transform in path.all_transforms()),
        *(plan.sinks[sink].block for sink in path.all_sinks()),
    ]
    configs = [block.retry_config for block in blocks if block.retry_config is not None]
    return max(configs, key=lambda config: config.retries, default=RetryConfig())


def _validation_may_help(plan: Plan, outcome: Outcome) -> bool:
    sinks = plan.paths[outcome.group.source].all_sinks()
    return outcome.sink_failed and any(plan.sinks[sink].spec.on_bad_record == "pass" for sink in sinks)
