"""The engine of batch pipelines (python, dbt)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamline.execution.batch.explain import BatchExplanation
    from streamline.execution.batch.stored_tests import BlockTests
    from streamline.execution.checklist import Checklist
    from streamline.execution.events import Bus
    from streamline.execution.run import RunOptions, RunResult, Stop
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project


class BatchEngine:
    """See `Engine`. Modules are imported on use: none of the methods needs those of another."""

    uvloop = False

    async def run(
        self, project: Project, model: PipelineModel, options: RunOptions, bus: Bus, stop: Stop | None = None
    ) -> RunResult:
        """See `Engine.run`."""
        from streamline.execution.batch.run import run_batch

        return await run_batch(project, model, options, bus, stop)

    def explain(
        self, project: Project, model: PipelineModel, options: RunOptions, *, dry_run: bool = False
    ) -> BatchExplanation:
        """See `Engine.explain`."""
        from streamline.execution.batch.explain import explain_batch
        from streamline.execution.batch.plan import make_plan

        if dry_run:
            from streamline.execution.batch.templates import check_templates

            check_templates(project, model, options.variables, options.block)
        return explain_batch(project, make_plan(project, model, options.variables))

    def check(self, project: Project, model: PipelineModel, options: RunOptions, checklist: Checklist) -> None:
        """See `Engine.check`."""
        from streamline.execution.batch.check import check_batch

        check_batch(project, model, checklist, options.variables)

    def test(self, project: Project, model: PipelineModel, options: RunOptions, bus: Bus) -> list[BlockTests]:
        """See `Engine.test`."""
        from streamline.execution.batch.stored_tests import run_stored_tests

        return run_stored_tests(project, model, options, bus)
