"""Reads the files of a streaming pipeline again while it runs."""

from __future__ import annotations

import anyio.to_thread

from streamline.errors import StreamlineError
from streamline.execution.run import Run
from streamline.execution.streaming.plan import Plan
from streamline.execution.streaming.planner import make_plan
from streamline.execution.streaming.singer import plan_plugins
from streamline.pipeline.reader import load_pipeline


async def read_again(run: Run) -> Plan | None:
    """Return the plan of the pipeline's files as they are now; None: it cannot be run, and the run goes on as it is."""
    try:
        model = await anyio.to_thread.run_sync(load_pipeline, run.project, run.pipeline)
        plan = await anyio.to_thread.run_sync(make_plan, run, model)
        planned = await plan_plugins(run, model, plan)
    except StreamlineError as error:
        run.warn("streamline", f"the pipeline goes on as it was: {error}")
        return None
    if planned:
        run.note("streamline", "the pipeline's files are read again; it goes on with them from the next position")
    return plan if planned else None
