"""Runs a streaming pipeline: the plan, attempts at it, and what became of each block."""

from __future__ import annotations

from functools import partial

import anyio
import anyio.to_thread
import msgspec

from streamline.errors import StreamlineError
from streamline.execution.events import BlockOutcome, Bus, PlannedSource, RunPlanned, failure_from, masked
from streamline.execution.flow_runs import failure_of, record_run
from streamline.execution.imports import check_imports
from streamline.execution.run import CANCELLED, COMPLETED, FAILED, Run, RunOptions, RunResult, Stop
from streamline.execution.streaming.attempts import run_attempts
from streamline.execution.streaming.instance import InstanceEnded
from streamline.execution.streaming.instances import run_instances
from streamline.execution.streaming.plan import Plan
from streamline.execution.streaming.planner import make_plan
from streamline.execution.streaming.reload import read_again
from streamline.execution.streaming.settings import MetricsSettings
from streamline.execution.streaming.shared_groups import check_groups
from streamline.execution.streaming.singer import plan_plugins
from streamline.pipeline.graph import reachable
from streamline.pipeline.model import PipelineModel
from streamline.processes.job import Failure
from streamline.project.project import Project


async def run_streaming(
    project: Project, model: PipelineModel, options: RunOptions, bus: Bus, stop: Stop | None = None
) -> RunResult:
    """Run a streaming pipeline until its sources end, it is stopped, or it fails. See `Engine.run`."""
    return await record_run(project, model, options, bus, stop, lambda run: _with_callbacks(run, model), reloads=True)


async def _with_callbacks(run: Run, model: PipelineModel) -> RunResult:
    """Run it, and call the pipeline's callbacks."""
    if not model.callbacks:
        return await _run(run, model)
    # Imported here: it imports the worker pool.
    from streamline.execution.hooks import Hooks

    hooks = Hooks(run, model)
    try:
        result = await _run(run, model)
    except StreamlineError as error:
        await hooks.ended(FAILED, [], masked(failure_from(error), run.masker))
        raise
    await hooks.ended(result.status, result.blocks)
    return result


async def _run(run: Run, model: PipelineModel) -> RunResult:
    plan = await anyio.to_thread.run_sync(make_plan, run, model)
    await anyio.to_thread.run_sync(check_imports, run, model)
    await anyio.to_thread.run_sync(check_groups, run, plan)
    settings = _metrics_of(run, plan)
    if settings is None:
        return await _run_plan(run, model, plan)
    # Imported here: few runs serve metrics.
    from streamline.execution.streaming.monitor import served

    with served(run, settings) as url:
        return await _run_plan(run, model, plan, url)


def _metrics_of(run: Run, plan: Plan) -> MetricsSettings | None:
    """Return where metrics are to be served: an option of the command wins over the pipeline's port."""
    settings, port = plan.settings.metrics, run.options.metrics_port
    if port is None:
        return settings
    return msgspec.structs.replace(settings, port=port) if settings is not None else MetricsSettings(port=port)


async def _run_plan(run: Run, model: PipelineModel, plan: Plan, metrics: str | None = None) -> RunResult:
    planned = await plan_plugins(run, model, plan)
    run.bus.publish(_planned(run, plan, metrics))
    if planned:
        ended, plan = await _ended(run, plan)
    else:
        ended = InstanceEnded(summary=run.progress.summary())
    errors = {ended.block or "streamline": ended.failure} if ended.failure is not None else {}
    if run.interrupted is not None:
        status = CANCELLED if ended.unfinished or errors else COMPLETED
    else:
        status = FAILED if errors else COMPLETED
    blocks = _block_outcomes(run, plan, status, ended, errors)
    for block in blocks:
        run.finish_block(block)
    return RunResult(
        run_id=run.run_id,
        status=status,
        blocks=blocks,
        errors=errors,
        summary={**ended.summary, "seconds": round(run.progress.seconds, 3)},
        log=str(run.log.path),
        signal=run.interrupted,
    )


async def _ended(run: Run, plan: Plan) -> tuple[InstanceEnded, Plan]:
    """Make attempts, here or in several processes; return how they ended, and the plan that they had then."""
    if plan.settings.instances > 1:
        return await run_instances(run, plan), plan
    outcome, attempts, plan = await run_attempts(run, plan, partial(read_again, run))
    ended = InstanceEnded(
        summary=run.progress.summary(),
        failure=failure_of(run, outcome.error) if outcome.error is not None else None,
        block=outcome.block,
        unfinished=outcome.unfinished,
        attempts=attempts,
    )
    return ended, plan


def _planned(run: Run, plan: Plan, metrics: str | None) -> RunPlanned:
    sources = [
        PlannedSource(
            block=uuid,
            plugin=source.name,
            streams=None,
            destinations={sink: plan.sinks[sink].name for sink in plan.sinks_of(uuid)},
        )
        for uuid, source in plan.sources.items()
    ]
    return RunPlanned(
        run_id=run.run_id,
        pipeline=plan.pipeline,
        blocks=plan.blocks(),
        sources=sources,
        endless=True,
        metrics=metrics,
    )


def _block_outcomes(
    run: Run, plan: Plan, status: str, ended: InstanceEnded, errors: dict[str, Failure]
) -> list[BlockOutcome]:
    """Return the status of every block: the one at fault has failed, and the others were cut short by it."""
    summary, fault = ended.summary, ended.block
    behind = reachable([fault], plan.downstream) if fault is not None else set()
    outcomes = []
    for uuid in plan.blocks():
        own = status
        if errors and uuid == fault:
            own = FAILED
        elif errors:
            own = "upstream_failed" if uuid in behind else CANCELLED
        outcomes.append(
            BlockOutcome(
                uuid=uuid,
                status=own,
                seconds=round(run.progress.seconds, 3),
                attempts=ended.attempts,
                results=[
                    {key: value for key, value in counts.items() if key != "block"}
                    for counts in (*summary.get("streams", ()), *summary.get("tables", ()))
                    if counts["block"] == uuid
                ],
                failure=errors.get(uuid),
            )
        )
    return outcomes
