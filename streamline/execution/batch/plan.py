"""The plan of a batch pipeline: its blocks with conditions and callbacks, and all checks that need no user code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.connector.role import connector_role, exported_upstream, takes_no_data
from streamline.blocks.registry import check_block, preload
from streamline.pipeline.block_settings import INTERVAL, block_settings
from streamline.pipeline.graph import reachable
from streamline.pipeline.graph_view import item_axes
from streamline.pipeline.kinds import ConnectorRole
from streamline.pipeline.limits import DynamicLimits, block_run_limit, dynamic_limits
from streamline.project.render import Renderer

if TYPE_CHECKING:
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project


# What workers would import one after the other is imported while the runner is still planning. Loading libraries for
# frames takes longer than anything else in a small run. All of these are safe to have when a process forks, which
# Polars is not: it starts threads when it is imported.
_ALWAYS = ("yaml", "streamline.pipeline.reader", "streamline.outputs.store", "streamline.blocks.registry")
_FRAMES = ("numpy", "pandas", "pyarrow.parquet")
_USE_FRAMES = frozenset({"pandas", "numpy", "pyarrow"})


class BlockPlan(msgspec.Struct, kw_only=True):
    """A block, as the runner uses it.

    Args:
        conditions: uuids of its conditionals; all must return True for it to run.
        callbacks: uuids of its callbacks.
        dynamic: the downstream blocks run once per item of its output.
        reduce: if it runs once per item itself: the downstream blocks get all its outputs as one list.
        secret: its output is never stored.
        isolated: it runs in the pipeline's own environment.
        connector: whether it is a source or a destination.
        advance_on_skip: of a source: a downstream block that is skipped does not hold back its positions.
        interval: of a sensor: seconds between two calls.
        patience: of a sensor: seconds after which it fails; None: no limit.
    """

    block: Block
    conditions: list[str] = []
    callbacks: list[str] = []
    dynamic: bool = False
    reduce: bool = False
    secret: bool = False
    isolated: bool = False
    connector: ConnectorRole | None = None
    advance_on_skip: bool = False
    interval: float = INTERVAL
    patience: float | None = None

    def fans_out(self, *, child: bool) -> bool:
        """Return whether the downstream blocks run once per item; not if they get the children's outputs as one list.

        Args:
            child: whether the block itself runs once per item.
        """
        return self.dynamic and not (self.reduce and child)


class BatchPlan(msgspec.Struct, kw_only=True):
    """A batch pipeline, checked.

    Args:
        blocks: by uuid, each after its upstream blocks.
        callbacks: uuids of the callbacks that belong to the whole pipeline.
        pipes: destinations by source that feeds them as it reads, because neither has another neighbour.
        concurrency: how many blocks may run at once; None: as many as the machine allows.
        modules: the modules that each block's, callback's and conditional's code imports.
    """

    model: PipelineModel
    blocks: dict[str, BlockPlan]
    callbacks: list[str]
    limits: DynamicLimits
    concurrency: int | None
    modules: dict[str, frozenset[str]]
    pipes: dict[str, str] = {}

    def destinations(self, source: str) -> list[str]:
        """Return the destinations that the records of a source reach; a destination has no output."""
        steps = {
            name: [] if plan.connector == "destination" else plan.block.downstream for name, plan in self.blocks.items()
        }
        downstream = set(reachable([source], steps))
        return [uuid for uuid, plan in self.blocks.items() if plan.connector == "destination" and uuid in downstream]

    def downstream(self, uuid: str) -> list[str]:
        """Return all blocks downstream of a block."""
        return list(reachable([uuid], {name: plan.block.downstream for name, plan in self.blocks.items()}))


def make_plan(project: Project, model: PipelineModel, runtime: Mapping[str, Any] | None = None) -> BatchPlan:
    """Check a batch pipeline and plan its run, without running user code.

    Args:
        runtime: variables of the trigger and of this run, as far as they are known.

    Raises:
        ConfigError: with file and line.
    """
    variables = {**project.variables, **model.variables}
    names = {"execution_date": datetime.now(UTC)}
    renderer = Renderer(project, variables, project.secrets, names=names, runtime=runtime)
    modules: dict[str, frozenset[str]] = {}
    for block in (*model.blocks.values(), *model.callbacks.values(), *model.conditionals.values()):
        modules[block.uuid] = check_block(project, model, block, renderer)
    blocks = {uuid: _block_plan(model, model.blocks[uuid]) for uuid in model.order()}
    for conditional in model.conditionals.values():
        for uuid in conditional.upstream:
            blocks[uuid].conditions.append(conditional.uuid)
    for callback in model.callbacks.values():
        for uuid in callback.upstream:
            blocks[uuid].callbacks.append(callback.uuid)
    return BatchPlan(
        model=model,
        blocks=blocks,
        callbacks=[callback.uuid for callback in model.callbacks.values() if not callback.upstream],
        limits=dynamic_limits(project, model),
        concurrency=block_run_limit(project, model),
        modules=modules,
        pipes=_pipes(model, blocks),
    )


def plan_of(project: Project, model: PipelineModel, blocks: Iterable[Block]) -> BatchPlan:
    """Return a plan of some of a pipeline's blocks, unchecked: for commands that run none of them."""
    plans = {block.uuid: _block_plan(model, block) for block in blocks}
    return BatchPlan(
        model=model,
        blocks=plans,
        callbacks=[],
        limits=dynamic_limits(project, model),
        concurrency=None,
        modules=dict.fromkeys(plans, frozenset()),
    )


def worth_loading(plan: BatchPlan, uuids: Iterable[str]) -> list[str]:
    """Return the modules to import before the first of these blocks runs."""
    blocks = [plan.blocks[uuid].block for uuid in uuids]
    imported = frozenset[str]().union(*(plan.modules[block.uuid] for block in blocks))
    modules = [*_ALWAYS, *preload(blocks), *(_FRAMES if imported & _USE_FRAMES else ())]
    return list(dict.fromkeys(modules))


def _pipes(model: PipelineModel, blocks: Mapping[str, BlockPlan]) -> dict[str, str]:
    """Return the destinations by source where neither has another neighbour to share records with."""
    axes = item_axes(model)
    pipes = {}
    for uuid, plan in blocks.items():
        sources = exported_upstream(plan.block) if plan.connector == "destination" else []
        if len(sources) != 1 or axes[uuid] or axes[sources[0]]:
            continue
        source = blocks[sources[0]]
        if source.connector == "source" and source.block.downstream == [uuid] and takes_no_data(plan.block, sources[0]):
            pipes[sources[0]] = uuid
    return pipes


def _block_plan(model: PipelineModel, block: Block) -> BlockPlan:
    settings = block_settings(model, block)
    return BlockPlan(
        block=block,
        dynamic=settings.dynamic,
        reduce=settings.reduce_output,
        secret=settings.secret_output,
        isolated=settings.isolated,
        connector=connector_role(block),
        advance_on_skip=settings.advance_on_skip,
        interval=settings.interval,
        patience=settings.give_up_after,
    )
