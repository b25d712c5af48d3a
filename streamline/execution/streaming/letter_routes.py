"""Where dead letters enter a streaming pipeline again: at the stage that refused them, and from there on."""

from __future__ import annotations

import msgspec

from streamline.execution.streaming.plan import Plan
from streamline.execution.streaming.routes import RoutePlan, RouteStep, fan_out, route_plan, takes_undecoded, way_into
from streamline.flow.stages.park import PARKED
from streamline.state.store import DeadLetter

DECODE = "decode"

AT_DESTINATION = frozenset({PARKED, "validate", "schema_change"})
"""Stages right before a destination."""


class UnsendableError(Exception):
    """A letter cannot be sent; the text says why."""


class Entry(msgspec.Struct, frozen=True):
    """Where letters enter.

    Args:
        stage: the block that they enter at; None: the way of the source's messages, from its beginning.
        destination: only this sink gets them; None: all that are downstream.
        decode: they are values, which are decoded first.
        output: they are what `stage` returned.
    """

    source: str
    stage: str | None = None
    destination: str | None = None
    decode: bool = False
    output: bool = False


def entry_of(plan: Plan, letter: DeadLetter) -> Entry:
    """Return where a letter enters.

    Raises:
        UnsendableError: nowhere: the pipeline was changed, or its data cannot be restored.
    """
    source, stage, destination = letter.block, letter.stage, letter.destination
    if source not in plan.sources:
        raise UnsendableError(f"'{source}' is no source of this pipeline any more; {_renamed(source)}")
    if destination is not None and destination not in plan.sinks_of(source):
        what = f"destination '{destination}' is no longer downstream of '{source}'"
        raise UnsendableError(f"{what}; {_renamed(destination)}")
    if stage in AT_DESTINATION and destination is not None:
        stage = destination
    if letter.form == "text":
        # Its data is lost; the message that it was made of may be there.
        if letter.topic is None:
            raise UnsendableError("its data is of a type that cannot be restored, and the message is not known")
        return Entry(source, destination=destination)
    if stage in (DECODE, PARKED):
        return Entry(source, destination=destination)
    if stage not in plan.transforms and stage not in plan.sinks:
        raise UnsendableError(f"block '{stage}', which refused it, is no longer in the pipeline; {_renamed(stage)}")
    if not any(stage in path for path in plan.paths(source)):
        raise UnsendableError(f"block '{stage}', which refused it, is no longer downstream of '{source}'")
    return Entry(source, stage, destination, decode=letter.form == "value", output=letter.output)


def _renamed(block: str) -> str:
    """Return what to do about letters of a block that is not there under its name."""
    return (
        f"if it was renamed in an editor, `streamline rename {block} NEW-NAME` renames it in its dead letters; else "
        "put it back, or discard them with `streamline dead-letters discard`"
    )


def route_of(plan: Plan, entry: Entry) -> RoutePlan:
    """Return the way of letters from where they enter."""
    if entry.stage is None:
        return _only(route_plan(plan, entry.source), entry.destination)
    below = plan.downstream[entry.stage] if entry.output else [entry.stage]
    way = fan_out(plan, below) if entry.output else way_into(plan, entry.stage)
    traits = plan.sources[entry.source].traits
    undecoded = takes_undecoded(plan, entry.stage, traits.format)
    if entry.decode and not undecoded and (traits.decoder is not None or traits.include_metadata):
        way = RoutePlan([RouteStep("decode"), *way.steps], way.sinks, way.branches)
    return _only(way, entry.destination)


def _only(way: RoutePlan, destination: str | None) -> RoutePlan:
    """Return a way without its ends in other sinks."""
    if destination is None:
        return way
    branches = [_only(branch, destination) for branch in way.branches]
    return RoutePlan(
        way.steps,
        [sink for sink in way.sinks if sink == destination],
        [branch for branch in branches if branch.sinks or branch.branches],
    )
