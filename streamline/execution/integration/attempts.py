"""Makes attempts at the groups of a plan until each is done or may not be retried."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import anyio
import anyio.to_thread

from streamline.errors import ConfigError, LeaseHeld
from streamline.execution.events import AttemptFailed, failure_from, masked
from streamline.execution.integration.attempt import Attempt, GroupOutcome
from streamline.execution.integration.plan import GroupPlan, Plan
from streamline.execution.integration.planner import refresh_positions
from streamline.execution.run import Run
from streamline.flow.stages.schema_change import SchemaPaused
from streamline.flow.stages.versions import new_version
from streamline.flow.tasks import task_group
from streamline.pipeline.model import RetryConfig

T = TypeVar("T")

TABLE_VERSION = "table_version"
"""Kind of the cached table version of a pipeline's last replacements: the next is higher, whatever the clock says."""


async def run_attempts(run: Run, plan: Plan, every: list[GroupOutcome], *, retries: bool = True) -> list[GroupOutcome]:
    """Make attempts until every group is done or may not be retried.

    Args:
        every: is given the outcomes of all attempts; those of each group's last one are returned.
        retries: retry failed groups by `retry_config`; else once more at most, with every record validated.
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
            elif retries and tried[group.id] - (group.id in validated) <= retry.retries:
                delay = max(delay, retry.delay_before(tried[group.id]))
                again.append(group)
        # A target that failed is told once, however many groups it served.
        for block, outcome in {each.fault or each.group.id: each for each in outcomes if each.error}.items():
            assert outcome.error is not None
            failure = masked(failure_from(outcome.error), run.masker)
            retried = delay if outcome.group in again else None
            streams = list(outcome.stopped) if outcome.only_streams else []
            if retried is None and not retries:
                continue  # the caller tells of it, and may try again
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


async def unless_interrupted(run: Run, work: Awaitable[T]) -> T | None:
    """Return what `work` returns; None if a signal interrupts the run first: a tap's discovery may take long."""
    result: T | None = None

    async def give_up() -> None:
        while run.interrupted is None:
            await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()

    async with task_group() as tasks:
        tasks.start_soon(give_up)
        result = await work
        tasks.cancel_scope.cancel()
    return result


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
    # A sink in this process, such as a stored output, takes every record: what made it fail is no record.
    sinks = [plan.sinks[sink] for sink in plan.paths[source.id].all_sinks() if plan.sinks[sink].open is None]
    return any(sink.setting("on_bad_record", source.id, stream) == "pass" for sink in sinks for stream in streams)
