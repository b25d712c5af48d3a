"""Checks the sources and destinations of a run before its first block runs, as far as no block's output is needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from streamline.blocks.connector.prepared import PreparedSource
from streamline.blocks.connector.spec import DestinationSpec, SourceSpec, load_spec
from streamline.connectors.singer.capabilities import check_config, probe
from streamline.connectors.singer.discovery import DiscoveryFailed
from streamline.execution.connector_blocks.plans import open_prepared, plan_source_groups, resolve_target
from streamline.execution.integration.attempts import unless_interrupted
from streamline.execution.integration.planner import (
    check_bookmark_blocks,
    check_bookmark_names,
    choose_streams,
    resolve_connector,
)
from streamline.execution.integration.positions import BOOKMARK_VARIABLE
from streamline.execution.run import checking_options
from streamline.flow.tasks import task_group
from streamline.project.render import Renderer

if TYPE_CHECKING:
    from streamline.blocks.connector.source import OpenedSource
    from streamline.execution.batch.calls import RunFacts
    from streamline.execution.batch.plan import BatchPlan, BlockPlan
    from streamline.execution.integration.plan import SourcePlan


async def check_before_run(
    facts: RunFacts, plan: BatchPlan, blocks: Iterable[BlockPlan]
) -> dict[str, OpenedSource] | None:
    """Check blocks whose file says all without an upstream output; return the sources that were opened, by uuid.

    None: a signal interrupted it.

    The streams of a source are discovered where no block runs before it, which could change them. A tap that fails to
    discover them is no error here: the block's attempts will tell.

    Raises:
        ConfigError: a plugin, a config, a stream or a position that cannot be.
    """
    return await unless_interrupted(facts.run, _check(facts, plan, blocks))


async def _check(facts: RunFacts, plan: BatchPlan, blocks: Iterable[BlockPlan]) -> dict[str, OpenedSource]:
    check = _Check(facts, plan)
    sources = {uuid for uuid, each in plan.blocks.items() if each.connector == "source"}
    check_bookmark_blocks(plan.model, sources, check.variables)
    async with task_group() as tasks:
        for block in blocks:
            if block.connector is not None:
                tasks.start_soon(check.block, block)
    if sources <= check.planned.keys():
        with checking_options():
            check_bookmark_names(facts.run, check.planned)
    return check.opened


def bookmark_variables(facts: RunFacts) -> dict[str, Any]:
    """Return the variables, with the template of the bookmark overrides rendered."""
    variables, project = facts.variables, facts.run.project
    if BOOKMARK_VARIABLE not in variables or BOOKMARK_VARIABLE in facts.runtime:
        return variables
    renderer = Renderer(project, {**project.variables, **variables}, project.secrets)
    values = renderer.render(variables[BOOKMARK_VARIABLE], f"variable {BOOKMARK_VARIABLE}")
    return {**variables, BOOKMARK_VARIABLE: values}


class _Check:
    def __init__(self, facts: RunFacts, plan: BatchPlan) -> None:
        self.variables = bookmark_variables(facts)
        self.opened: dict[str, OpenedSource] = {}
        self.planned: dict[str, SourcePlan] = {}
        self._plan = plan
        self._run = facts.run
        project = facts.run.project
        self._renderer = Renderer(
            project,
            {**project.variables, **facts.variables},
            project.secrets,
            names={"execution_date": facts.execution_date},
            runtime={name: facts.variables[name] for name in facts.runtime if name in facts.variables},
        )

    async def block(self, plan: BlockPlan) -> None:
        block = plan.block
        if block.language != "yaml" or block.file is None or "block_output" in block.file.read_text("utf-8"):
            return
        spec = load_spec(block, self._renderer, streaming=False)
        if isinstance(spec, DestinationSpec):
            await resolve_target(self._run, block, spec)
        elif isinstance(spec, SourceSpec):
            if block.upstream or plan.conditions:
                plugin = await resolve_connector(self._run, spec.source, "tap", block)
                capabilities = await probe(plugin, store=self._run.store, masker=self._run.masker)
                check_config(plugin, spec.config, capabilities, where=spec.where or block.uuid)
            else:
                await self._source(plan, spec)

    async def _source(self, plan: BlockPlan, spec: SourceSpec) -> None:
        uuid = plan.block.uuid
        try:
            opened = await open_prepared(self._run, self._plan.model, plan.block, PreparedSource(spec=spec))
        except DiscoveryFailed:
            return
        # A pipe has other rules about which destination proves which stream; it is planned with its destination.
        proven_by = [] if uuid in self._plan.pipes else self._plan.destinations(uuid)
        source = choose_streams(self._run, opened, proven_by)
        plan_source_groups(self._run, source, opened, lambda stream, selected: proven_by, self.variables)
        self.opened[uuid], self.planned[uuid] = opened, source
