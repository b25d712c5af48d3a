"""Inputs of a block that runs alone: the outputs that earlier runs stored."""

from __future__ import annotations

from streamline.errors import ConfigError
from streamline.execution.batch.fanout import COMPLETED, SKIPPED, Finished, Instance
from streamline.execution.batch.output_layout import OutputLayout
from streamline.execution.batch.plan import BatchPlan
from streamline.execution.batch.task import InputRef


def stored_upstream(plan: BatchPlan, layout: OutputLayout, uuid: str) -> dict[str, Finished]:
    """Return the upstream blocks as earlier runs left them.

    Raises:
        ConfigError: one of them has no stored output.
    """
    finished = {}
    for name in plan.blocks[uuid].block.upstream:
        block = plan.blocks[name]
        secret = block.secret
        stored = None if secret else layout.remembered(name)
        if stored is None:
            raise ConfigError(
                f"the block '{name}', which '{uuid}' needs, has no stored output",
                where=plan.model.where(uuid),
                hint=f"its output is secret and never stored: run the whole pipeline `{plan.model.uuid}`"
                if secret
                else f"run it first: streamline run {plan.model.uuid} --block-uuid {name}",
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
                    type=block.block.type,
                    folder=str(layout.block(name) / str(call.number) if stored.child else layout.block(name)),
                    child=stored.child,
                ),
            )
            for call in stored.calls
        ]
        reduce = block.reduce and stored.child
        if (
            block.dynamic
            and not reduce
            and any(instance.ref is not None and instance.items is None for instance in instances)
        ):
            raise ConfigError(
                f"the block '{name}', which '{uuid}' needs, was not dynamic when its output was stored",
                where=plan.model.where(name),
                hint=f"run it again: streamline run {plan.model.uuid} --block-uuid {name}",
                code="block.no_stored_output",
            )
        finished[name] = Finished(
            uuid=name,
            type=block.block.type,
            dynamic=block.dynamic and not reduce,
            reduce=reduce,
            child=stored.child,
            instances=instances,
        )
    return finished
