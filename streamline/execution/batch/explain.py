"""Says in words what a batch plan comes to: the order, what runs side by side, and what each block is held to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from streamline.blocks.registry import explain_block
from streamline.execution.batch.output_layout import OutputLayout
from streamline.pipeline.graph_view import item_axes
from streamline.pipeline.kinds import ConnectorRole

if TYPE_CHECKING:
    from streamline.execution.batch.plan import BatchPlan, BlockPlan
    from streamline.project.project import Project


class BlockWords(msgspec.Struct, kw_only=True):
    """A block of a plan.

    Args:
        step: how many blocks have to be done one after the other before it, and one more.
        after: its upstream blocks.
        engine: what runs it.
        per_item_of: the dynamic blocks whose items it runs for, once per item (or per combination of them).
        dynamic: what is behind it runs once per item of its output.
        gathers: its children's outputs go on as one list.
        conditions: conditionals that decide whether it runs.
        callbacks: callbacks that are told how it ended.
        retries: how often it is tried again, with the seconds before each try.
        timeout: seconds that one call may take.
        asked_every: of a sensor: seconds between two questions.
        gives_up_after: of a sensor: seconds.
        output: where its output is stored, relative to the project; None: never.
        writes: the table that it writes, and where.
        connector: whether it is a source or a destination.
        reads: the streams that a source reads.
        pipes_into: the destination that writes a source's records as they are read; None: they are stored.
    """

    block: str
    type: str
    language: str
    file: str | None
    step: int
    after: list[str]
    engine: str
    per_item_of: list[str] = []
    dynamic: bool = False
    gathers: bool = False
    conditions: list[str] = []
    callbacks: list[str] = []
    retries: list[float] = []
    timeout: float | None = None
    asked_every: float | None = None
    gives_up_after: float | None = None
    output: str | None = None
    writes: str | None = None
    connector: ConnectorRole | None = None
    reads: str | None = None
    pipes_into: str | None = None


class BatchExplanation(msgspec.Struct, kw_only=True):
    """A batch plan in words.

    Args:
        at_once: how many blocks, or children of dynamic ones, run at once at most.
        outputs: the folder that they are stored in, relative to the project.
        steps: blocks that may run side by side, step by step. A block starts as soon as those before it are done,
            whatever else is in their step.
        max_children: how many children a dynamic block may have, and what happens where it has more.
        callbacks: those that are told how the whole pipeline ended.
    """

    view: ClassVar[Literal["tasks"]] = "tasks"

    pipeline: str
    type: str
    at_once: int
    outputs: str
    steps: list[list[str]]
    blocks: list[BlockWords]
    callbacks: list[str] = []
    max_children: int | None = None
    on_exceeded: str | None = None
    children_at_once: int | None = None


def explain_batch(project: Project, plan: BatchPlan) -> BatchExplanation:
    """Return the plan in words. Nothing is connected to."""
    layout = OutputLayout(project, plan.model.uuid, "")
    axes = item_axes(plan.model)
    step: dict[str, int] = {}
    words = []
    for uuid, each in plan.blocks.items():
        step[uuid] = 1 + max((step[above] for above in each.block.upstream), default=0)
        words.append(_block(project, plan, each, step[uuid], axes[uuid], layout))
    steps: list[list[str]] = [[] for _ in range(max(step.values(), default=0))]
    for uuid, number in step.items():
        steps[number - 1].append(uuid)
    limited = any(each.dynamic for each in plan.blocks.values())
    return BatchExplanation(
        pipeline=plan.model.uuid,
        type=plan.model.type,
        at_once=plan.concurrency or max(4, os.cpu_count() or 1),
        outputs=project.shown(layout.root),
        steps=steps,
        blocks=words,
        callbacks=plan.callbacks,
        max_children=plan.limits.max_children if limited else None,
        on_exceeded=plan.limits.on_exceeded if limited and plan.limits.max_children is not None else None,
        children_at_once=plan.limits.max_concurrent if limited else None,
    )


def _block(
    project: Project, plan: BatchPlan, each: BlockPlan, step: int, axes: list[str], layout: OutputLayout
) -> BlockWords:
    block = each.block
    retry = block.retry_config
    explanation = explain_block(project, plan.model, block)
    folder = project.shown(layout.block(block.uuid))
    unstored = each.secret or each.connector == "destination" or block.uuid in plan.pipes
    return BlockWords(
        block=block.uuid,
        type=block.type,
        language=block.language,
        file=project.shown(block.file) if block.file is not None else None,
        step=step,
        after=block.upstream,
        engine=explanation.engine,
        per_item_of=axes,
        dynamic=each.dynamic and not (each.reduce and axes),
        gathers=each.reduce and bool(axes),
        conditions=each.conditions,
        callbacks=each.callbacks,
        retries=[retry.delay_before(number) for number in range(1, retry.retries + 1)] if retry else [],
        timeout=block.timeout,
        asked_every=each.interval if block.type == "sensor" else None,
        gives_up_after=each.patience,
        output=None if unstored else f"{folder}/<n>" if axes else folder,
        writes=explanation.writes,
        connector=each.connector,
        reads=explanation.reads,
        pipes_into=plan.pipes.get(block.uuid),
    )
