"""What a batch pipeline comes to: which blocks run, what gates and watches them, and everything that can be checked
before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.registry import check_block, preload
from streamline.errors import ConfigError
from streamline.pipeline.block_settings import INTERVAL, block_settings
from streamline.pipeline.limits import DynamicLimits, block_run_limit, dynamic_limits
from streamline.pipeline.model import BATCH_TYPES
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
    """A block as the runner sees it.

    Args:
        conditions: uuids of the conditionals that gate it; all must say yes.
        callbacks: uuids of the callbacks that watch it.
        dynamic: the blocks behind it run once per item of its output.
        reduce: where it is such a block itself: what is behind it gets all its outputs as one list.
        secret: its output is never stored.
        isolated: it runs in the pipeline's own environment.
        interval: of a sensor: seconds between two questions.
        patience: of a sensor: seconds after which it has failed; None: it is asked for ever.
    """

    block: Block
    conditions: list[str] = []
    callbacks: list[str] = []
    dynamic: bool = False
    reduce: bool = False
    secret: bool = False
    isolated: bool = False
    interval: float = INTERVAL
    patience: float | None = None

    def fans_out(self, *, child: bool) -> bool:
        """Whether the blocks behind it run once per item. What gathers its children's outputs has one list.

        Args:
            child: whether the block is a dynamic block's child itself.
        """
        return self.dynamic and not (self.reduce and child)


class BatchPlan(msgspec.Struct, kw_only=True):
    """A batch pipeline, checked.

    Args:
        blocks: by uuid, each after its upstream blocks.
        callbacks: uuids of the callbacks that belong to the whole pipeline.
        concurrency: how many blocks may run at once; None: as many as the machine has room for.
        modules: what each block's, callback's and conditional's code imports.
    """

    model: PipelineModel
    blocks: dict[str, BlockPlan]
    callbacks: list[str]
    limits: DynamicLimits
    concurrency: int | None
    modules: dict[str, frozenset[str]]

    def code(self, uuid: str) -> Block:
        """A block, callback or conditional by its uuid."""
        for group in (self.model.blocks, self.model.callbacks, self.model.conditionals):
            if uuid in group:
                return group[uuid]
        raise KeyError(uuid)


def make_plan(project: Project, model: PipelineModel, given: Mapping[str, Any] | None = None) -> BatchPlan:
    """Check a batch pipeline and say what running it means. Runs nothing of the user's.

    Args:
        given: variables of the trigger and of this run, as far as they are known.

    Raises:
        ConfigError: something is wrong: it names file and line.
    """
    if model.type not in BATCH_TYPES:
        raise ConfigError(f"pipelines of type {model.type} are no batch pipelines", where=model.yaml.where(("type",)))
    renderer = Renderer(project, {**project.variables, **model.variables}, project.secrets, runtime=given)
    modules: dict[str, frozenset[str]] = {}
    for block in (*model.blocks.values(), *model.callbacks.values(), *model.conditionals.values()):
        modules[block.uuid] = check_block(project, model, block, renderer)
    blocks = {uuid: _block_plan(model, model.blocks[uuid]) for uuid in model.order()}
    for one in model.conditionals.values():
        for uuid in one.upstream:
            blocks[uuid].conditions.append(one.uuid)
    for one in model.callbacks.values():
        for uuid in one.upstream:
            blocks[uuid].callbacks.append(one.uuid)
    return BatchPlan(
        model=model,
        blocks=blocks,
        callbacks=[one.uuid for one in model.callbacks.values() if not one.upstream],
        limits=dynamic_limits(project, model),
        concurrency=block_run_limit(project, model),
        modules=modules,
    )


def worth_loading(plan: BatchPlan, uuids: Iterable[str]) -> list[str]:
    """The modules to import before the first of these blocks runs."""
    blocks = [plan.blocks[uuid].block for uuid in uuids]
    imported = frozenset[str]().union(*(plan.modules[block.uuid] for block in blocks))
    modules = [*_ALWAYS, *preload(blocks), *(_FRAMES if imported & _USE_FRAMES else ())]
    return list(dict.fromkeys(modules))


def _block_plan(model: PipelineModel, block: Block) -> BlockPlan:
    settings = block_settings(model, block)
    return BlockPlan(
        block=block,
        dynamic=settings.dynamic,
        reduce=settings.reduce_output,
        secret=settings.secret_output,
        isolated=settings.isolated,
        interval=settings.interval,
        patience=settings.give_up_after,
    )
