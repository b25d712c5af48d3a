"""The engine of integration pipelines."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.execution.checklist import Checklist
    from streamline.execution.events import Bus
    from streamline.execution.integration.explanation import FlowExplanation
    from streamline.execution.run import RunOptions, RunResult, Stop
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project


class IntegrationEngine:
    """See `Engine`. Modules are imported on use: none of the methods needs those of another."""

    uvloop = True

    async def run(
        self, project: Project, model: PipelineModel, options: RunOptions, bus: Bus, stop: Stop | None = None
    ) -> RunResult:
        """See `Engine.run`."""
        from streamline.execution.integration.run import run_integration

        return await run_integration(project, model, options, bus, stop)

    def explain(
        self, project: Project, model: PipelineModel, options: RunOptions, *, dry_run: bool = False
    ) -> FlowExplanation:
        """See `Engine.explain`. Plugins are asked for capabilities and streams where these are not known yet."""
        import anyio

        from streamline.execution.flow_runs import open_planning
        from streamline.execution.integration.explain import explain
        from streamline.execution.integration.planner import make_plan
        from streamline.execution.integration.topology import check_hooks

        check_hooks(project, model)
        with open_planning(project, model, options, "explain") as run:
            return explain(run, model, anyio.run(partial(make_plan, run, model, show=True)))

    def check(self, project: Project, model: PipelineModel, options: RunOptions, checklist: Checklist) -> None:
        """See `Engine.check`."""
        import anyio

        from streamline.execution.flow_runs import open_planning
        from streamline.execution.integration.check import check_pipeline

        with open_planning(project, model, options, "check") as run:
            holder = run.store.lease_holder(model.uuid)
            if holder is not None:
                checklist.notify(
                    f"Warning: run {holder.run_id} of this pipeline is in progress; files it has locked cannot be "
                    "opened now"
                )
            anyio.run(partial(check_pipeline, run, model, checklist))

    def test(self, project: Project, model: PipelineModel, options: RunOptions, bus: Bus) -> NoReturn:
        """Refuse: integration pipelines store no outputs."""
        raise ConfigError(
            f"a pipeline of type {model.type} has no stored outputs", where=model.uuid, code="output.never_stored"
        )
