"""Decides what a resumed run can reuse of what it did before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamline.execution.batch.fanout import SKIPPED, CallPlan, Finished, Instance, calls_of, is_child
from streamline.execution.batch.journal import Ended, Journal, Past, Undone
from streamline.execution.batch.output_layout import OutputLayout
from streamline.execution.batch.plan import BlockPlan
from streamline.execution.batch.task import InputRef
from streamline.execution.events import BlockOutcome


class Reuse:
    """Finds blocks and calls that need not run again.

    Args:
        past: what the run's journal records.
        journal: records what is invalidated.
        layout: the folders of the outputs.
        run_id: the run, whose outputs alone count.
        max_children: how many calls of a dynamic block's child are made at most.
        finished, outcomes: the blocks that have ended in this part of the run.
    """

    def __init__(
        self,
        past: Past,
        journal: Journal | None,
        layout: OutputLayout,
        run_id: str,
        max_children: int | None,
        finished: Mapping[str, Finished],
        outcomes: Mapping[str, BlockOutcome],
    ) -> None:
        self._past = past
        self._journal = journal
        self._layout = layout
        self._run_id = run_id
        self._max_children = max_children
        self._finished = finished
        self._outcomes = outcomes

    def block(self, plan: BlockPlan) -> tuple[Ended, list[Instance]] | None:
        """Return how the block ended, and its calls; None if it has to run."""
        uuid = plan.block.uuid
        ended = self._past.ended.get(uuid)
        if ended is None or plan.secret or self._made_anew(plan):
            return None
        called = self._past.calls.get(uuid, {})
        skipped = dict(ended.skipped)
        instances = []
        for number in range(ended.calls):
            if number in skipped:
                instances.append(Instance(number=number, key=skipped[number], status=SKIPPED))
                continue
            if number not in called:
                return None
            ref = self._stored(plan, number, child=ended.child, staged=False)
            if ref is None:
                return None
            instances.append(Instance(ref=ref, **called[number].facts()))
        if not self._needs_the_same(plan, ended, instances):
            return None
        if plan.fans_out(child=ended.child) and any(one.ref is not None and one.items is None for one in instances):
            return None  # it was not dynamic then
        return ended, instances

    def call(self, plan: BlockPlan, call: CallPlan, number: int) -> tuple[Instance, list[dict[str, Any]]] | None:
        """Return a child's finished call and its outputs, for a block that had not ended."""
        if plan.secret:
            return None
        called = self._past.calls.get(plan.block.uuid, {}).get(number)
        if called is None or called.key != call.key or (plan.fans_out(child=True) and called.items is None):
            return None
        ref = self._stored(plan, number, child=True, staged=True)
        return (Instance(ref=ref, **called.facts()), called.outputs) if ref is not None else None

    def forget_what_changed(self, plan: BlockPlan) -> None:
        """Invalidate what a block that has to run must not reuse."""
        uuid, past = plan.block.uuid, self._past
        if uuid in past.ended or (self._made_anew(plan) and uuid in past.calls):
            if self._journal is not None:
                self._journal.add(Undone(block=uuid))
            past.calls.pop(uuid, None)
        self._layout.keep_staged(uuid, past.calls.get(uuid, {}))

    def _made_anew(self, plan: BlockPlan) -> bool:
        """Return whether an upstream block ran again."""
        return any(not self._outcomes[name].reused for name in plan.block.upstream)

    def _needs_the_same(self, plan: BlockPlan, ended: Ended, instances: Sequence[Instance]) -> bool:
        """Return whether the pipeline, which may have been edited since, still needs the same calls."""
        upstream = [self._finished[name] for name in plan.block.upstream]
        if ended.upstream != plan.block.upstream or ended.child != is_child(upstream):
            return False
        calls = calls_of(upstream)
        if ended.child:
            calls = calls[: self._max_children]
        return [call.key for call in calls] == [one.key for one in instances]

    def _stored(self, plan: BlockPlan, number: int, *, child: bool, staged: bool) -> InputRef | None:
        """Return the output that this run stored; None if it is missing or incomplete."""
        from streamline.outputs.store import read_manifest

        uuid = plan.block.uuid
        folder = self._layout.staged(uuid) if staged else self._layout.block(uuid)
        folder = folder / str(number) if child else folder
        manifest = read_manifest(folder)
        if manifest is None or manifest.run_id != self._run_id:
            return None
        return InputRef(block=uuid, type=plan.block.type, folder=str(folder), child=child, run_id=self._run_id)


def stamp_of(file: Path | None) -> str | None:
    """Return a stamp that changes with the block's file."""
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError:
        return None
    return f"{found.st_mtime_ns} {found.st_size}"
