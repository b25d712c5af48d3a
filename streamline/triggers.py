"""Start other pipelines, and check their status.

There is no scheduler yet: a triggered pipeline runs immediately in this process, and the status comes from the runs
recorded in the project's state store.
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
    """A run started by `trigger_pipeline`: its id and status (`completed` or `failed`)."""

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
    """Run another pipeline and wait until it ends.

    Args:
        variables: runtime variables of the run.
        error_on_failure: raise an error if the run fails; otherwise check the status of the returned run.
        schedule_name: passed to its blocks as `kwargs['trigger_name']`.
        verbose: print the run's status.
        check_status, poll_interval, poll_timeout: accepted for compatibility with Mage, without effect: the run has
            ended when this function returns.

    Raises:
        PipelineFailed: the run failed, and `error_on_failure` is set.
        ConfigError: the pipeline does not exist or is invalid.
        LeaseHeld: another run of the pipeline is in progress; so a pipeline cannot trigger itself.
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
    """Return whether the last run of a pipeline, or a block of it, has completed. For sensors.

    Args:
        execution_date: check the last run that started in the `hours` before this date (UTC, unless it has a time
            zone). A date less than `hours` ago, such as a sensor's own `kwargs['execution_date']`, means now, so that
            runs that start while the sensor waits count.
        block_uuid: check this block of the run.

    Returns:
        False if no run started in that time, or the run is still in progress.

    Raises:
        PipelineFailed: the run or the block failed or was cancelled, so waiting longer is useless.
        ConfigError: the pipeline or the block does not exist.
    """
    from streamline.state import project_store
    from streamline.state.store import current_run

    pipeline = Pipeline(pipeline_uuid, repo_path)
    if block_uuid is not None:
        pipeline.model.block(block_uuid)
    now = datetime.now(UTC)
    end = now if execution_date is None else _aware(execution_date)
    begin = end - timedelta(hours=hours)
    if now - timedelta(hours=hours) < end < now:
        end = now
    with project_store(pipeline.project) as store:
        run = _newest(store, pipeline_uuid, begin, end)
        if run is None:
            return False
        status = current_run(store, run).status
        if block_uuid is not None:
            blocks = {block.uuid: block.status for block in store.block_runs(run.run_id)}
            # A killed run has no final status of its running blocks.
            status = blocks.get(block_uuid, status if status in _FAILED else "running")
    if status in _FAILED:
        what = f"the pipeline '{pipeline_uuid}'"
        raise PipelineFailed(
            f"{what if block_uuid is None else f'the block {block_uuid!r} of {what}'}: {status} in run {run.run_id}",
            blocks=[block_uuid] if block_uuid is not None else [],
            hint=f"streamline runs show {run.run_id}",
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


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
