"""Pipelines that start or wait for other pipelines.

There is no scheduler yet: a triggered pipeline runs at once, in this process, and a status is looked up among
the runs that the project's state store has recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.api import Folder, Pipeline
from streamline.errors import PipelineFailed

if TYPE_CHECKING:
    from streamline.state.store import RunInfo, Store

_FAILED = ("failed", "cancelled", "killed", "upstream_failed")


class PipelineRun(msgspec.Struct, kw_only=True):
    """A run that `trigger_pipeline` started: its id, and how it ended (`completed` or `failed`)."""

    id: str
    pipeline_uuid: str
    status: str
    variables: dict[str, Any] = {}
    error: str | None = None


def trigger_pipeline(
    pipeline_uuid: str,
    variables: Mapping[str, Any] | None = None,
    check_status: bool = False,
    error_on_failure: bool = False,
    poll_interval: float = 60,
    poll_timeout: float | None = None,
    schedule_name: str | None = None,
    verbose: bool = True,
    *,
    repo_path: Folder | None = None,
) -> PipelineRun:
    """Run another pipeline now, to its end.

    Args:
        variables: variables of that run.
        error_on_failure: raise if it fails; else see the returned run's status.
        schedule_name: passed to its blocks as `kwargs['trigger_name']`.
        verbose: print how it ended.
        check_status, poll_interval, poll_timeout: accepted as in Mage, without effect: the run is
            over when this returns.

    Raises:
        PipelineFailed: it failed, and `error_on_failure` is set.
        ConfigError: there is no such pipeline, or something is wrong that is seen before anything runs.
        LeaseHeld: another run of it is in progress; a pipeline cannot trigger itself.
    """
    from streamline.execution.run import RunOptions

    pipeline = Pipeline(pipeline_uuid, repo_path)
    trigger = {} if schedule_name is None else {"trigger_name": schedule_name}
    result = pipeline.run(RunOptions(variables=dict(variables or {}), trigger_variables=trigger))
    failure = pipeline.failure(result)
    if verbose:
        print(f"Pipeline '{pipeline_uuid}': run {result.run_id} {result.status}")
        if failure is not None:
            print(failure)
    if failure is not None and error_on_failure:
        raise failure
    return PipelineRun(
        id=result.run_id,
        pipeline_uuid=pipeline_uuid,
        status=result.status,
        variables=dict(variables or {}),
        error=None if failure is None else str(failure),
    )


def check_status(
    pipeline_uuid: str,
    execution_date: datetime | None = None,
    block_uuid: str | None = None,
    hours: float = 24,
    *,
    repo_path: Folder | None = None,
) -> bool:
    """Return whether the newest run of a pipeline, or one block of it, has completed. For sensors.

    Args:
        execution_date: the newest run that began in the `hours` before it counts; without time zone it is UTC. A date
            that is itself less than `hours` ago, as a sensor's own `kwargs['execution_date']` is, stands for now: runs
            that begin while the sensor waits are seen.
        block_uuid: check this block of the run.

    Returns:
        False if nothing ran in that time, or it still runs.

    Raises:
        PipelineFailed: the run, or the block, failed or was cancelled: waiting longer does not help.
        ConfigError: there is no such pipeline or block.
    """
    from streamline.state import open_store

    pipeline = Pipeline(pipeline_uuid, repo_path)
    if block_uuid is not None:
        pipeline.model.block(block_uuid)
    now = datetime.now(UTC)
    end = now if execution_date is None else _aware(execution_date)
    begin = end - timedelta(hours=hours)
    if now - timedelta(hours=hours) < end < now:
        end = now
    store = open_store(pipeline.project.state_url, pipeline.project.root)
    try:
        found = _newest(store, pipeline_uuid, begin, end)
        if found is None:
            return False
        status = _status(store, found)
        if block_uuid is not None:
            blocks = {block.uuid: block.status for block in store.block_runs(found.run_id)}
            # A killed run has not recorded how its running blocks ended.
            status = blocks.get(block_uuid, status if status in _FAILED else "running")
    finally:
        store.close()
    if status in _FAILED:
        what = f"the pipeline '{pipeline_uuid}'"
        raise PipelineFailed(
            f"{what if block_uuid is None else f'the block {block_uuid!r} of {what}'}: {status} in run {found.run_id}",
            blocks=[block_uuid] if block_uuid is not None else [],
            hint=f"`streamline runs show {found.run_id}` shows why",
        )
    return status == "completed"


def _newest(store: Store, pipeline: str, begin: datetime, end: datetime) -> RunInfo | None:
    limit = 50
    while True:
        runs = store.runs(pipeline, limit)
        for run in runs:
            if begin <= _aware(datetime.fromisoformat(run.started)) <= end:
                return run
        if len(runs) < limit or _aware(datetime.fromisoformat(runs[-1].started)) < begin:
            return None
        limit *= 10


def _status(store: Store, run: RunInfo) -> str:
    """Return a run's status; a run recorded as running that does not hold its lease was killed."""
    if run.status != "running":
        return run.status
    holder = store.lease_holder(run.pipeline)
    if holder is not None and holder.run_id == run.run_id:
        return run.status
    # It may have ended between the two questions.
    now = store.run(run.run_id) or run
    return "killed" if now.status == "running" else now.status


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
