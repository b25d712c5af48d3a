"""Runs an integration pipeline: lease, leftovers, attempts, retries, and the record of it all."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread

from streamline.connectors.singer.discovery import DiscoveryFailed
from streamline.errors import ConfigError, LeaseHeld, StreamlineError
from streamline.execution.events import (
    AttemptFailed,
    BlockOutcome,
    Bus,
    PlannedSource,
    ProgressMade,
    RunPlanned,
    failure_from,
    masked,
)
from streamline.execution.integration.attempt import Attempt, GroupOutcome
from streamline.execution.integration.block_runs import block_outcomes, blocks_of
from streamline.execution.integration.destination_identity import keep_destinations
from streamline.execution.integration.plan import GroupPlan, Plan
from streamline.execution.integration.planner import make_plan, refresh_positions
from streamline.execution.integration.topology import check_hooks, without
from streamline.execution.run import (
    CANCELLED,
    COMPLETED,
    FAILED,
    Interrupted,
    Run,
    RunOptions,
    RunResult,
    Stop,
    hold_lease,
    new_run_id,
    open_run,
)
from streamline.flow.stages.schema_change import SchemaPaused
from streamline.flow.stages.versions import new_version
from streamline.flow.tasks import keep_shields, task_group
from streamline.pipeline.model import PipelineModel, RetryConfig
from streamline.processes.job import Failure
from streamline.project.project import Project
from streamline.state import project_store

PROGRESS_SECONDS = 0.25
"""How often counts are published."""


TABLE_VERSION = "table_version"
"""Kind of the cached table version of a pipeline's last replacements: the next is higher, whatever the clock says."""


async def run_integration(
    project: Project, model: PipelineModel, options: RunOptions, bus: Bus, stop: Stop | None = None
) -> RunResult:
    """Run an integration pipeline to its end; cancelling it ends the run at once. See `Engine.run`."""
    project.ensure_work_dir()
    run_id = new_run_id()
    with (
        project_store(project) as store,
        hold_lease(store, project, model.uuid, run_id),
        open_run(project, store, model.uuid, run_id, options, bus=bus) as run,
    ):
        with run.record() as record:
            try:
                with run.signals(lambda: None, stop):
                    result = await keep_shields(_gated(run, model))
            finally:
                record.summary = run.progress.summary()
            record.status = result.status
            record.fail(result.errors)
        result.warnings = list(run.warnings)
        return result


async def _gated(run: Run, model: PipelineModel) -> RunResult:
    """Run the sources that no conditional refuses, and call the callbacks, also of a run that cannot be planned."""
    if not model.conditionals and not model.callbacks:
        return await _planned(run, model)
    # Imported here: it imports the worker pool, which most integration pipelines do without.
    from streamline.execution.hooks import Hooks

    hooks = Hooks(run, model)
    try:
        check_hooks(run.project, model)  # before one of them decides anything
        gated = await hooks.gated()
        skipped = [
            BlockOutcome(uuid=uuid, status="skipped", reason=f"{gate} returned false") for uuid, gate in gated.items()
        ]
        remaining = without(model, gated) if gated else model
        if gated and not any(block.type == "data_loader" for block in remaining.blocks.values()):
            result = RunResult(
                run_id=run.run_id, status=COMPLETED, summary=run.progress.summary(), log=str(run.log.path)
            )
        else:
            result = await _planned(run, remaining)
        for outcome in skipped:
            run.finish_block(outcome)
        result.blocks += skipped
    except Exception as error:
        status = CANCELLED if isinstance(error, Interrupted) or run.interrupted is not None else FAILED
        failure = masked(failure_from(error), run.masker)
        source = error.block if isinstance(error, DiscoveryFailed) else None
        blocks = [BlockOutcome(uuid=source, status=FAILED, failure=failure)] if source is not None else []
        await hooks.ended(status, blocks, failure)
        raise
    await hooks.ended(result.status, result.blocks)
    return result


async def _planned(run: Run, model: PipelineModel) -> RunResult:
    plan = await _plan(run, model)
    run.bus.publish(_planned_event(run, plan))
    for source in plan.sources.values():
        for note in source.notes:
            run.note(source.id, note, "WARNING")
    await anyio.to_thread.run_sync(keep_destinations, run, plan)
    async with task_group() as tasks:
        tasks.start_soon(_publish_progress, run)
        every: list[GroupOutcome] = []
        outcomes = await _attempts(run, plan, every)
        tasks.cancel_scope.cancel()
    blocks = block_outcomes(run, plan, every)
    failed = {
        outcome.fault or outcome.group.id: _failure(run, outcome.error)
        for outcome in outcomes
        if outcome.error is not None
    }
    gone = _gone(plan)
    for (uuid, stream), error in gone.items():
        failed[f"{uuid}.{stream}"] = _failure(run, error)
    for outcome in blocks:
        if any(uuid == outcome.uuid for uuid, _ in gone):
            outcome.status = FAILED
        run.finish_block(outcome)
    return RunResult(
        run_id=run.run_id,
        status=CANCELLED if run.interrupted is not None else FAILED if failed else COMPLETED,
        blocks=blocks,
        errors=failed,
        summary=_summary(run, plan, outcomes),
        log=str(run.log.path),
        signal=run.interrupted,
    )


def _gone(plan: Plan) -> dict[tuple[str, str], ConfigError]:
    """Return the streams that the run should read and cannot, by source."""
    return {(source.id, stream): error for source in plan.sources.values() for stream, error in source.gone.items()}


def _summary(run: Run, plan: Plan, outcomes: Sequence[GroupOutcome]) -> dict[str, Any]:
    """Return the counts of the run, with the streams that failed alone marked."""
    summary = run.progress.summary()
    streams = {(entry["block"], entry["stream"]): entry for entry in summary["streams"]}
    failed = [(outcome.group.source, stream) for outcome in outcomes for stream in outcome.stopped]
    for block, stream in [*failed, *_gone(plan)]:
        empty = {"block": block, "stream": stream, "read": 0, "quarantined": 0}
        streams.setdefault((block, stream), empty)["failed"] = True
    return {**summary, "streams": list(streams.values()), "seconds": round(run.progress.seconds, 3)}


def _planned_event(run: Run, plan: Plan) -> RunPlanned:
    mask = run.masker.mask
    sources = [
        PlannedSource(
            block=source.id,
            plugin=source.plugin.name,
            streams=len(source.selected) if source.catalog is not None else None,
            destinations={sink: plan.sinks[sink].plugin.name for sink in plan.paths[source.id].all_sinks()},
            notes=[mask(note) for note in source.notes],
        )
        for source in plan.sources.values()
    ]
    return RunPlanned(run_id=run.run_id, pipeline=plan.pipeline, blocks=blocks_of(plan), sources=sources)


async def _publish_progress(run: Run) -> None:
    """Publish the counts several times a second, until it is cancelled."""
    while True:
        await anyio.sleep(PROGRESS_SECONDS)
        saved = max(run.progress.saved.values(), default=None)
        run.bus.publish(
            ProgressMade(
                **run.progress.summary(),
                seconds=run.progress.seconds,
                saved_ago=time.monotonic() - saved if saved is not None else None,
            )
        )


def _failure(run: Run, error: Exception) -> Failure:
    failure = failure_from(error)
    trace = "".join(traceback.format_exception(error))
    if run.options.debug:
        failure.trace = trace
    elif not isinstance(error, StreamlineError):
        run.note("streamline", trace, "ERROR")
    return masked(failure, run.masker)


async def _plan(run: Run, model: PipelineModel) -> Plan:
    """Make the plan. A signal interrupts it: a tap's discovery may take long.

    Raises:
        Interrupted: by a signal.
    """
    plan: Plan | None = None

    async def give_up() -> None:
        while run.interrupted is None:
            await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()

    async with task_group() as tasks:
        tasks.start_soon(give_up)
        plan = await make_plan(run, model, retry=True)
        tasks.cancel_scope.cancel()
    if plan is None:
        raise Interrupted(run.interrupted or signal.SIGINT)
    return plan


async def _attempts(run: Run, plan: Plan, every: list[GroupOutcome]) -> list[GroupOutcome]:
    """Make attempts until every group is done or may not be retried.

    Args:
        every: is given the outcomes of all attempts; those of each group's last one are returned.
    """
    finished: dict[str, GroupOutcome] = {}
    waiting: list[GroupPlan] = plan.groups()
    tried = dict.fromkeys((group.id for group in waiting), 0)
    validated: set[str] = set()
    version = int(run.store.cache_get(TABLE_VERSION, plan.pipeline) or 0)
    while waiting:
        version = new_version(version)
        await anyio.to_thread.run_sync(run.store.cache_put, TABLE_VERSION, plan.pipeline, str(version))
        validate = any(group.id in validated for group in waiting)
        outcomes = await Attempt(
            run, plan, waiting, validate=validate, version=version, number=1 + max(tried.values())
        ).run()
        every += outcomes
        again: list[GroupPlan] = []
        delay = 0.0
        for outcome in outcomes:
            group = outcome.group
            tried[group.id] += 1
            finished[group.id] = outcome
            if outcome.error is None or run.interrupted is not None or not _may_help(plan, outcome):
                continue
            retry = _retry_config(plan, group)
            if _validation_may_help(plan, outcome) and group.id not in validated:
                # A record may have broken the target: once more, with every record looked at.
                validated.add(group.id)
                again.append(group)
            elif tried[group.id] - (group.id in validated) <= retry.retries:
                delay = max(delay, retry.delay_before(tried[group.id]))
                again.append(group)
        # A target that failed is told once, however many groups it served.
        for block, outcome in {each.fault or each.group.id: each for each in outcomes if each.error}.items():
            assert outcome.error is not None
            failure = masked(failure_from(outcome.error), run.masker)
            retried = delay if outcome.group in again else None
            streams = list(outcome.stopped) if outcome.only_streams else []
            run.bus.publish(AttemptFailed(block=block, failure=failure, delay=retried, streams=streams))
        if not again:
            break
        with anyio.move_on_after(delay):
            while run.interrupted is None:
                await anyio.sleep(0.1)
        if run.interrupted is not None:
            break
        waiting = [await refresh_positions(run, plan, group) for group in again]
    return list(finished.values())


def _may_help(plan: Plan, outcome: GroupOutcome) -> bool:
    """Return whether another attempt could succeed and does no harm."""
    if outcome.started and any(plan.sinks[sink].overwrites for sink in plan.paths[outcome.group.source].all_sinks()):
        return False
    return not isinstance(outcome.error, LeaseHeld | ConfigError | SchemaPaused)


def _retry_config(plan: Plan, group: GroupPlan) -> RetryConfig:
    """Return the retry_config with the most retries among the blocks that a group's records pass."""
    path = plan.paths[group.source]
    blocks = [
        plan.sources[group.source].block,
        *(transform.block for transform in path.all_transforms()),
        *(plan.sinks[sink].block for sink in path.all_sinks()),
    ]
    configs = [block.retry_config for block in blocks if block.retry_config is not None]
    return max(configs, key=lambda config: config.retries, default=RetryConfig())


def _validation_may_help(plan: Plan, outcome: GroupOutcome) -> bool:
    if not outcome.sink_failed:
        return False
    source = plan.sources[outcome.group.source]
    streams = ["", *(stream.stream for stream in source.selected)]
    sinks = [plan.sinks[sink] for sink in plan.paths[source.id].all_sinks()]
    return any(sink.setting("on_bad_record", source.id, stream) == "pass" for sink in sinks for stream in streams)
