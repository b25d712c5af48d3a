"""What a block that runs alone is given: the outputs that earlier runs have stored."""

from __future__ import annotations

from streamline.errors import ConfigError
from streamline.execution.batch.fanout import COMPLETED, SKIPPED, Finished, Instance
from streamline.execution.batch.output_layout import Places
from streamline.execution.batch.plan import BatchPlan
from streamline.execution.batch.task import InputRef


def stored_upstream(plan: BatchPlan, places: Places, uuid: str) -> dict[str, Finished]:
    """The upstream blocks as earlier runs left them.

    Raises:
        ConfigError: one of them has no stored output.
    """
    found = {}
    for name in plan.blocks[uuid].block.upstream:
        block = plan.blocks[name]
        secret = block.secret
        stored = None if secret else places.remembered(name)
        if stored is None:
            raise ConfigError(
                f"the block '{name}', which '{uuid}' needs, has no stored output",
                where=plan.model.where(uuid),
                hint=f"its output is secret and never stored: run the whole pipeline `{plan.model.uuid}`"
                if secret
                else f"run it first: streamline run {plan.model.uuid} --block-uuid {name}",
            )
        instances = [
            Instance(
                number=one.number,
                key=one.key,
                gate=one.gate,
                items=one.items,
                described=one.described,
                status=SKIPPED if one.skipped else COMPLETED,
                ref=None
                if one.skipped
                else InputRef(
                    block=name,
                    type=block.block.type,
                    folder=str(places.block(name) / str(one.number) if stored.child else places.block(name)),
                    child=stored.child,
                ),
            )
            for one in stored.calls
        ]
        reduce = block.reduce and stored.child
        if block.dynamic and not reduce and any(one.ref is not None and one.items is None for one in instances):
            raise ConfigError(
                f"the block '{name}', which '{uuid}' needs, was not dynamic when its output was stored",
                where=plan.model.where(name),
                hint=f"run it again: streamline run {plan.model.uuid} --block-uuid {name}",
            )
        found[name] = Finished(
            uuid=name,
            type=block.block.type,
            dynamic=block.dynamic and not reduce,
            reduce=reduce,
            child=stored.child,
            instances=instances,
        )
    return found
