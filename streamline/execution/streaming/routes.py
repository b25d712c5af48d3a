"""The way of a source's messages through a streaming pipeline: where they are decoded, copied and addressed.

Messages are decoded only where somebody needs their data. They are copied where two branches would share a mutable
object and one of them may change it: transformers, and sinks whose user's code gets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import msgspec

from streamline.execution.streaming.plan import Plan

Step: TypeAlias = Literal["decode", "copy", "transform", "rekey", "address", "messages", "changes"]


class RouteStep(msgspec.Struct, frozen=True):
    """A stage.

    Args:
        block: of `transform` the transformer, of `address` and `rekey` (messages get another key) the sink; of `copy`
            the block that gets the copy; of `messages` (what it returns passes) and `changes` (changes of its state
            pass) the transformer.
    """

    kind: Step
    block: str = ""


class RoutePlan(msgspec.Struct, frozen=True):
    """As a `flow.router.Route`: through the steps, then into the sinks and branches."""

    steps: Sequence[RouteStep] = ()
    sinks: Sequence[str] = ()
    branches: Sequence[RoutePlan] = ()

    def all_steps(self) -> Iterator[RouteStep]:
        """Yield the steps of this route and of its branches."""
        yield from self.steps
        for branch in self.branches:
            yield from branch.all_steps()

    def all_sinks(self) -> list[str]:
        """Return the sinks of this route and of its branches, each once."""
        return list(dict.fromkeys([*self.sinks, *(sink for branch in self.branches for sink in branch.all_sinks())]))


def route_plan(plan: Plan, source: str) -> RoutePlan:
    """Return the way of a source's messages to all its sinks."""
    traits = plan.sources[source].traits
    below = plan.downstream[source]
    if traits.decoder is None and not traits.include_metadata:
        return fan_out(plan, below)
    undecoded = [uuid for uuid in below if takes_undecoded(plan, uuid, traits.format)]
    decoded = [uuid for uuid in below if uuid not in undecoded]
    if not decoded:
        return _joined(plan, [_sink(plan, uuid) for uuid in undecoded])
    inner = fan_out(plan, decoded)
    inner = RoutePlan([RouteStep("decode"), *inner.steps], inner.sinks, inner.branches)
    return _joined(plan, [*(_sink(plan, uuid) for uuid in undecoded), inner])


def takes_undecoded(plan: Plan, block: str, format: str | None) -> bool:
    """Return whether a block is a sink that writes values of a format as they were read."""
    return format is not None and block in plan.sinks and plan.sinks[block].traits.format == format


def fan_out(plan: Plan, blocks: Sequence[str]) -> RoutePlan:
    """Return the way of decoded messages into several blocks."""
    readers = [uuid for uuid in blocks if uuid in plan.sinks and not plan.sinks[uuid].traits.changes_data]
    changers = [uuid for uuid in blocks if uuid not in readers]
    # The last one may have the original, unless somebody still looks at it.
    kept = any(plan.sinks[uuid].traits.keeps_data for uuid in readers)
    copied = changers if kept else changers[:-1]
    ways = [_sink(plan, uuid) for uuid in readers]
    for uuid in changers:
        way = way_into(plan, uuid)
        if uuid in copied:
            way = RoutePlan([RouteStep("copy", uuid), *way.steps], way.sinks, way.branches)
        ways.append(way)
    return _joined(plan, ways)


def way_into(plan: Plan, block: str) -> RoutePlan:
    """Return the way of decoded messages into a transformer or sink, and on from there."""
    if block in plan.sinks:
        return _sink(plan, block)
    after = fan_out(plan, plan.downstream[block])
    if (state := plan.states.get(block)) is not None:
        returned = RoutePlan([RouteStep("messages", block), *after.steps], after.sinks, after.branches)
        changed = RoutePlan([RouteStep("changes", block)], [state.sink])
        return RoutePlan([RouteStep("transform", block)], branches=[changed, returned])
    return RoutePlan([RouteStep("transform", block), *after.steps], after.sinks, after.branches)


def _sink(plan: Plan, block: str) -> RoutePlan:
    """Return the way into one sink; under exactly-once delivery one sink serves all blocks."""
    steps = [RouteStep("rekey", block)] if plan.rekeyed(block) is not None else []
    if plan.exactly_once:
        steps.append(RouteStep("address", block))
    return RoutePlan(steps, [block])


def _joined(plan: Plan, ways: Sequence[RoutePlan]) -> RoutePlan:
    if len(ways) == 1:
        return ways[0]
    # In their order: a sink that has nothing before it may stand beside others only if all before it are such.
    plain = 0
    while plain < len(ways) and not ways[plain].steps and not ways[plain].branches:
        plain += 1
    return RoutePlan([], [sink for way in ways[:plain] for sink in way.sinks], list(ways[plain:]))
