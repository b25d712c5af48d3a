"""What runs that move records share, whichever planner made their plan."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import anyio

from streamline.errors import StreamlineError
from streamline.execution.events import Bus, ProgressMade, failure_from, masked
from streamline.execution.run import Run, RunOptions, RunResult, Stop, hold_lease, new_run_id, open_run
from streamline.execution.user_code import user_code
from streamline.flow.tasks import keep_shields
from streamline.pipeline.model import Block, PipelineModel
from streamline.processes.job import Failure
from streamline.project.project import Project
from streamline.project.render import Renderer

if TYPE_CHECKING:
    from streamline.connectors.singer.build import Workspace

INTERRUPT_SECONDS = float(os.environ.get("STREAMLINE_INTERRUPT_SECONDS") or 20.0)
"""How long destinations may take to end when the run was interrupted, from the signal on."""

PROGRESS_SECONDS = 0.25
"""How often counts are published."""


@contextmanager
def open_planning(project: Project, model: PipelineModel, options: RunOptions, purpose: str) -> Iterator[Run]:
    """Open what planning needs of a run, in a temporary folder. No lease is held: nothing moves."""
    from streamline.blocks.connector.source import private_folder
    from streamline.state import project_store

    with (
        project_store(project) as store,
        private_folder(project, purpose) as folder,
        open_run(project, store, model.uuid, folder.name, options, run_dir=folder) as run,
        user_code(project, model, renderer_of(run, model)),
    ):
        yield run


def workspace_of(context: Run) -> Workspace:
    """Return where the plugins of a run run."""
    from streamline.connectors.singer.build import Workspace

    return Workspace(run_dir=context.run_dir, root=context.project.root, masker=context.masker, log=context.child_line)


async def record_run(
    project: Project,
    model: PipelineModel,
    options: RunOptions,
    bus: Bus,
    stop: Stop | None,
    work: Callable[[Run], Coroutine[Any, Any, RunResult]],
    *,
    reloads: bool = False,
) -> RunResult:
    """Open a run, do its work, and record how it ended; cancelling it ends the work at once.

    Args:
        reloads: see `Run.signals`.
    """
    from streamline.state import project_store

    project.ensure_work_dir()
    run_id = new_run_id()
    with (
        project_store(project) as store,
        hold_lease(store, project, model.uuid, run_id),
        open_run(project, store, model.uuid, run_id, options, bus=bus) as run,
        user_code(project, model, renderer_of(run, model)),
    ):
        with run.record() as record:
            try:
                with run.signals(lambda: None, stop, reloads=reloads):
                    result = await keep_shields(work(run))
            finally:
                record.summary = run.progress.summary()
            record.status = result.status
            record.fail(result.errors)
        result.warnings = list(run.warnings)
        return result


def renderer_of(run: Run, model: PipelineModel) -> Renderer:
    """Return what renders the templates of a pipeline. Variables of the command line are data, and never rendered."""
    variables = {**run.project.variables, **model.variables}
    return Renderer(run.project, variables, run.project.secrets, runtime=run.options.variables)


def rendered_variables(run: Run, renderer: Renderer, names: Collection[str] | None = None) -> dict[str, Any]:
    """Return the variables as blocks get them.

    Args:
        names: those to render; None: all.
    """
    return {
        name: renderer.render(value, f"variable {name}")
        if (names is None or name in names) and name not in run.options.variables
        else value
        for name, value in renderer.variables.items()
    }


def block_keywords(run: Run, variables: Mapping[str, Any], block: Block, attempt: int) -> dict[str, Any]:
    """Return the keyword arguments of a block's function: variables, then facts about the run.

    Args:
        variables: rendered.
        attempt: its number, from 1.
    """
    date = variables.get("execution_date", run.started)
    moment = date if isinstance(date, datetime) else run.started
    return {
        "interval_start_datetime": date,
        "interval_end_datetime": None,
        "interval_seconds": None,
        **variables,
        "env": variables.get("env") or os.environ.get("ENV") or "dev",
        "execution_date": date,
        "ds": moment.strftime("%Y-%m-%d"),
        "hr": moment.strftime("%H"),
        "pipeline_uuid": run.pipeline,
        "block_uuid": block.uuid,
        "run_id": run.run_id,
        "configuration": block.configuration,
        "context": {},
        "retry": {"attempts": attempt},
    }


def failure_of(run: Run, error: Exception) -> Failure:
    """Describe an error, masked: with a traceback if the run is debugged; that of a bug is logged."""
    failure = failure_from(error)
    trace = "".join(traceback.format_exception(error))
    if run.options.debug:
        failure.trace = trace
    elif not isinstance(error, StreamlineError):
        run.note("streamline", trace, "ERROR")
    return masked(failure, run.masker)


async def publish_progress(run: Run) -> None:
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
