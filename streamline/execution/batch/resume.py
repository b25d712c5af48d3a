"""Decides what a run can use of stored outputs: a resumed run its own, a run of one block those of earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError
from streamline.execution.batch.fanout import COMPLETED, SKIPPED, CallPlan, Finished, Instance, calls_of, is_child
from streamline.execution.batch.journal import Ended, Journal, Past, Undone
from streamline.execution.batch.output_layout import OutputLayout
from streamline.execution.batch.plan import BatchPlan, BlockPlan
from streamline.execution.batch.task import InputRef
from streamline.execution.events import BlockOutcome
from streamline.outputs.store import read_manifest

if TYPE_CHECKING:
    from streamline.pipeline.model import PipelineModel


class Reuse(msgspec.Struct):
    """Finds blocks and calls that need not run again.

    Args:
        past: what the run's journal records.
        journal: records what is invalidated.
        run_id: the run, whose outputs alone count.
        max_children: how many calls of a dynamic block's child are made at most.
        finished, outcomes: the blocks that have ended in this part of the run.
        pipes: destinations by source that shares a flow with it.
    """

    past: Past
    journal: Journal | None
    layout: OutputLayout
    run_id: str
    max_children: int | None
    finished: Mapping[str, Finished]
    outcomes: Mapping[str, BlockOutcome]
    pipes: Mapping[str, str] = {}

    def block(self, plan: BlockPlan) -> tuple[Ended, list[Instance]] | None:
        """Return how the block ended, and its calls; None if it has to run."""
        uuid = plan.block.uuid
        ended = self.past.ended.get(uuid)
        if ended is None or plan.secret or self._made_anew(plan):
            return None
        called = self.past.calls.get(uuid, {})
        skipped = dict(ended.skipped)
        instances = []
        for number in range(ended.calls):
            if number in skipped:
                instances.append(Instance(number=number, key=skipped[number], status=SKIPPED))
                continue
            if number not in called:
                return None
            ref = self._piped(plan) or self._stored(plan, number, child=ended.child, staged=False)
            if ref is None:
                return None
            instances.append(Instance(ref=ref, **called[number].facts()))
        if not self._needs_the_same(plan, ended, instances):
            return None
        if plan.fans_out(child=ended.child) and any(
            instance.ref is not None and instance.items is None for instance in instances
        ):
            return None  # it was not dynamic then
        return ended, instances

    def _piped(self, plan: BlockPlan) -> InputRef | None:
        """Return the output of a source that a destination wrote as it was read, if that has completed."""
        uuid = plan.block.uuid
        if self.pipes.get(uuid) not in self.past.ended:
            return None
        return InputRef(block=uuid, type=plan.block.type, live=True)

    def call(self, plan: BlockPlan, call: CallPlan, number: int) -> tuple[Instance, list[dict[str, Any]]] | None:
        """Return a child's finished call and its outputs, for a block that had not ended."""
        if plan.secret:
            return None
        called = self.past.calls.get(plan.block.uuid, {}).get(number)
        if called is None or called.key != call.key or (plan.fans_out(child=True) and called.items is None):
            return None
        ref = self._stored(plan, number, child=True, staged=True)
        return (Instance(ref=ref, **called.facts()), called.outputs) if ref is not None else None

    def forget_what_changed(self, plan: BlockPlan) -> None:
        """Invalidate what a block that has to run must not reuse."""
        uuid, past = plan.block.uuid, self.past
        if uuid in past.ended or (self._made_anew(plan) and uuid in past.calls):
            if self.journal is not None:
                self.journal.add(Undone(block=uuid))
            past.calls.pop(uuid, None)
        self.layout.keep_staged(uuid, past.calls.get(uuid, {}))

    def _made_anew(self, plan: BlockPlan) -> bool:
        """Return whether an upstream block ran again, or runs again with this one."""
        return any(name not in self.outcomes or not self.outcomes[name].reused for name in plan.block.upstream)

    def _needs_the_same(self, plan: BlockPlan, ended: Ended, instances: Sequence[Instance]) -> bool:
        """Return whether the pipeline, which may have been edited since, still needs the same calls."""
        upstream = [self.finished[name] for name in plan.block.upstream]
        if ended.upstream != plan.block.upstream or ended.child != is_child(upstream):
            return False
        calls = calls_of(upstream)
        if ended.child:
            calls = calls[: self.max_children]
        return [call.key for call in calls] == [instance.key for instance in instances]

    def _stored(self, plan: BlockPlan, number: int, *, child: bool, staged: bool) -> InputRef | None:
        """Return the output that this run stored; None if it is missing or incomplete."""
        uuid = plan.block.uuid
        folder = self.layout.staged(uuid) if staged else self.layout.block(uuid)
        folder = folder / str(number) if child else folder
        manifest = read_manifest(folder)
        if manifest is None or manifest.run_id != self.run_id:
            return None
        return InputRef(block=uuid, type=plan.block.type, folder=str(folder), child=child, run_id=self.run_id)


def stamp_of(file: Path | None) -> str | None:
    """Return a stamp that changes with the block's file."""
    if file is None:
        return None
    try:
        status = file.stat()
    except OSError:
        return None
    return f"{status.st_mtime_ns} {status.st_size}"


def stored_upstream(plan: BatchPlan, layout: OutputLayout, uuid: str) -> dict[str, Finished]:
    """Return the upstream blocks as earlier runs left them.

    Raises:
        ConfigError: one of them has no stored output.
    """
    return {
        name: stored_block(plan.model, plan.blocks[name], layout, needed_by=uuid)
        for name in plan.blocks[uuid].block.upstream
    }


def stored_block(model: PipelineModel, plan: BlockPlan, layout: OutputLayout, *, needed_by: str) -> Finished:
    """Return a block as earlier runs left it.

    Raises:
        ConfigError: it has no stored output.
    """
    block, name = plan.block, plan.block.uuid
    stored = None if plan.secret else layout.remembered(name)
    if stored is None:
        raise ConfigError(
            f"the block '{name}', which '{needed_by}' needs, has no stored output",
            where=model.where(needed_by),
            hint=f"its output is secret and never stored: run the whole pipeline `{model.uuid}`"
            if plan.secret
            else f"run it first: streamline run {model.uuid} --block-uuid {name}",
            code="block.no_stored_output",
        )
    instances = [
        Instance(
            **call.facts(),
            status=SKIPPED if call.skipped else COMPLETED,
            ref=None
            if call.skipped
            else InputRef(
                block=name,
                type=block.type,
                folder=str(layout.call(name, call.number, child=stored.child)),
                child=stored.child,
            ),
        )
        for call in stored.calls
    ]
    reduce = plan.reduce and stored.child
    if (
        plan.dynamic
        and not reduce
        and any(instance.ref is not None and instance.items is None for instance in instances)
    ):
        raise ConfigError(
            f"the block '{name}', which '{needed_by}' needs, was not dynamic when its output was stored",
            where=model.where(name),
            hint=f"run it again: streamline run {model.uuid} --block-uuid {name}",
            code="block.no_stored_output",
        )
    return Finished(
        uuid=name,
        type=block.type,
        dynamic=plan.dynamic and not reduce,
        reduce=reduce,
        child=stored.child,
        instances=instances,
    )
