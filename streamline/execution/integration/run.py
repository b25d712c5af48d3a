"""Runs an integration pipeline: lease, leftovers, attempts, retries, and the record of it all."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread

from streamline.connectors.singer.discovery import DiscoveryFailed
from streamline.errors import ConfigError
from streamline.execution.events import (
    BlockOutcome,
    Bus,
    PlannedSource,
    RunPlanned,
    failure_from,
    masked,
)
from streamline.execution.flow_runs import failure_of, publish_progress, record_run
from streamline.execution.integration.attempt import GroupOutcome
from streamline.execution.integration.attempts import run_attempts, unless_interrupted
from streamline.execution.integration.block_runs import block_outcomes, blocks_of
from streamline.execution.integration.destination_identity import keep_destinations
from streamline.execution.integration.plan import Plan
from streamline.execution.integration.planner import make_plan
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
)
from streamline.flow.tasks import task_group
from streamline.pipeline.model import PipelineModel
from streamline.project.project import Project


async def run_integration(
    project: Project, model: PipelineModel, options: RunOptions, bus: Bus, stop: Stop | None = None
) -> RunResult:
    """Run an integration pipeline to its end; cancelling it ends the run at once. See `Engine.run`."""
    return await record_run(project, model, options, bus, stop, lambda run: _gated(run, model))


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
    plan = await unless_interrupted(run, make_plan(run, model, retry=True))
    if plan is None:
        raise Interrupted(run.interrupted or signal.SIGINT)
    run.bus.publish(_planned_event(run, plan))
    for source in plan.sources.values():
        for note in source.notes:
            run.note(source.id, note, "WARNING")
    await anyio.to_thread.run_sync(keep_destinations, run, plan)
    async with task_group() as tasks:
        tasks.start_soon(publish_progress, run)
        every: list[GroupOutcome] = []
        outcomes = await run_attempts(run, plan, every)
        tasks.cancel_scope.cancel()
    blocks = block_outcomes(run, plan, every)
    failed = {
        outcome.fault or outcome.group.id: failure_of(run, outcome.error)
        for outcome in outcomes
        if outcome.error is not None
    }
    gone = _gone(plan)
    for (uuid, stream), error in gone.items():
        failed[f"{uuid}.{stream}"] = failure_of(run, error)
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
