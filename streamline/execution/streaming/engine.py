"""The engine of streaming pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.execution.checklist import Checklist
    from streamline.execution.events import Bus
    from streamline.execution.run import RunOptions, RunResult, Stop
    from streamline.execution.streaming.explain import StreamExplanation
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project


class StreamingEngine:
    """See `Engine`. Modules are imported on use: none of the methods needs those of another."""

    uvloop = True

    async def run(
        self, project: Project, model: PipelineModel, options: RunOptions, bus: Bus, stop: Stop | None = None
    ) -> RunResult:
        """See `Engine.run`."""
        from streamline.execution.streaming.run import run_streaming

        return await run_streaming(project, model, options, bus, stop)

    def explain(
        self, project: Project, model: PipelineModel, options: RunOptions, *, dry_run: bool = False
    ) -> StreamExplanation:
        """See `Engine.explain`. Nothing is connected; taps and targets are asked for what is not known of them yet."""
        from streamline.execution.flow_runs import open_planning
        from streamline.execution.streaming.explain import explain
        from streamline.execution.streaming.planner import make_plan
        from streamline.execution.streaming.singer import plan_plugins_now

        with open_planning(project, model, options, "explain") as run:
            plan = make_plan(run, model)
            plan_plugins_now(run, model, plan)
            return explain(model, plan)

    def check(self, project: Project, model: PipelineModel, options: RunOptions, checklist: Checklist) -> None:
        """See `Engine.check`."""
        from streamline.execution.flow_runs import open_planning
        from streamline.execution.streaming.check import check_pipeline

        with open_planning(project, model, options, "check") as run:
            check_pipeline(run, model, checklist)

    def test(self, project: Project, model: PipelineModel, options: RunOptions, bus: Bus) -> NoReturn:
        """Refuse: streaming pipelines store no outputs."""
        raise ConfigError(
            f"a pipeline of type {model.type} has no stored outputs", where=model.uuid, code="output.never_stored"
        )
