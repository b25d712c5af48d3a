"""Which calls a block needs: one, or one per item of a dynamic parent, per combination of several parents' items.

Every dynamic parent opens an *axis*; a call's *key* says where it stands on each axis that it depends on. Children of
one parent line up by their keys; items of different parents are multiplied. A child that is dynamic itself opens one
more axis, whose length may differ from child to child. `reduce_output` closes a block's axes: what is behind it gets
one list, in the items' order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from streamline.execution.batch.task import InputRef

Key: TypeAlias = tuple[tuple[str, int], ...]
"""Places on axes, by the uuid of the block that opened each, in the order in which they were met."""

COMPLETED, FAILED, SKIPPED, UPSTREAM_FAILED, CANCELLED = (
    "completed",
    "failed",
    "skipped",
    "upstream_failed",
    "cancelled",
)


class Instance(msgspec.Struct, kw_only=True):
    """One call of a block, and how it ended.

    Args:
        number: its place among the block's calls, from 0.
        key: which items it got.
        status: completed, failed, skipped, upstream_failed or cancelled.
        ref: its output; None unless it completed.
        gate: False: what is behind it is skipped.
        items: of a dynamic block: how many items its output has.
        described: whether its output says something about its items.
    """

    number: int
    key: Key = ()
    status: str = COMPLETED
    ref: InputRef | None = None
    gate: bool | None = None
    items: int | None = None
    described: bool = False

    @property
    def passes(self) -> bool:
        """Whether what is behind it may run."""
        return self.status == COMPLETED and self.gate is not False


class Finished(msgspec.Struct, kw_only=True):
    """A block that has ended, as the blocks behind it see it.

    Args:
        dynamic: its output is fanned out.
        reduce: its outputs are gathered.
        child: it has run once per item of something, even if that was nothing.
        instances: in the items' order.
    """

    uuid: str
    type: str
    dynamic: bool = False
    reduce: bool = False
    child: bool = False
    instances: Sequence[Instance] = ()


class Call(msgspec.Struct, kw_only=True):
    """A call that a block needs.

    Args:
        inputs: one per upstream block; empty where it cannot run.
        verdict: None where it can run; else `skipped` or `upstream_failed`.
    """

    key: Key
    inputs: tuple[InputRef, ...] = ()
    verdict: str | None = None


class _Slot(msgspec.Struct):
    """One input that an upstream block offers."""

    key: Key
    ref: InputRef | None
    verdict: str | None


def calls_of(upstream: Sequence[Finished]) -> list[Call]:
    """The calls that a block needs, given its upstream blocks in the order of its inputs.

    The order is that of the first upstream's items, within these that of the second's, and so on.
    """
    found = [Call(key=())]
    for parent in upstream:
        slots = _slots(parent)
        by_axes = {axis for slot in slots for axis, _ in slot.key}
        index: dict[Key, list[_Slot]] = {}
        shared = _shared_axes(found, by_axes)
        for slot in slots:
            index.setdefault(_project(slot.key, shared), []).append(slot)
        found = [_joined(call, slot) for call in found for slot in index.get(_project(call.key, shared), ())]
    return found or _verdict_on_none(upstream)


def is_child(upstream: Iterable[Finished]) -> bool:
    """Whether a block behind these runs once per item."""
    return any(not parent.reduce and (parent.dynamic or parent.child) for parent in upstream)


def _slots(parent: Finished) -> list[_Slot]:
    if parent.reduce:
        return [_gathered(parent)]
    slots: list[_Slot] = []
    for instance in parent.instances:
        verdict = _verdict(instance)
        if not parent.dynamic:
            slots.append(_Slot(instance.key, instance.ref, verdict))
        elif verdict is not None or instance.ref is None:
            # How many items there would have been, nobody knows: one call says what became of them.
            slots.append(_Slot((*instance.key, (parent.uuid, 0)), None, verdict or UPSTREAM_FAILED))
        else:
            for item in range(instance.items or 0):
                ref = msgspec.structs.replace(instance.ref, item=item, described=instance.described)
                slots.append(_Slot((*instance.key, (parent.uuid, item)), ref, None))
    return slots


def _gathered(parent: Finished) -> _Slot:
    verdicts = [_verdict(instance) for instance in parent.instances]
    if UPSTREAM_FAILED in verdicts:
        return _Slot((), None, UPSTREAM_FAILED)
    # Children that a condition skipped are left out of the list; where that leaves none, nothing goes on.
    if verdicts and all(verdict == SKIPPED for verdict in verdicts):
        return _Slot((), None, SKIPPED)
    parts = tuple(
        instance.ref
        for instance, verdict in zip(parent.instances, verdicts, strict=True)
        if verdict is None and instance.ref is not None
    )
    return _Slot((), InputRef(block=parent.uuid, type=parent.type, parts=parts), None)


def _verdict_on_none(upstream: Sequence[Finished]) -> list[Call]:
    """What stands for no calls at all: one that says so, where an upstream block was skipped or failed.

    Else a dynamic parent without items would hide that, and what gathers its children's outputs would go on.
    """
    verdicts = [[_verdict(instance) for instance in parent.instances] for parent in upstream]
    if any(each and all(one == SKIPPED for one in each) for each in verdicts):
        return [Call(key=(), verdict=SKIPPED)]
    return [Call(key=(), verdict=UPSTREAM_FAILED)] if any(UPSTREAM_FAILED in each for each in verdicts) else []


def _verdict(instance: Instance) -> str | None:
    if instance.passes:
        return None
    return SKIPPED if instance.status in (SKIPPED, COMPLETED) else UPSTREAM_FAILED


def _shared_axes(calls: Sequence[Call], axes: set[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(axis for call in calls for axis, _ in call.key if axis in axes))


def _project(key: Key, axes: Sequence[str]) -> Key:
    places: Mapping[str, int] = dict(key)
    return tuple((axis, places[axis]) for axis in axes if axis in places)


def _joined(call: Call, slot: _Slot) -> Call:
    known = {axis for axis, _ in call.key}
    verdicts = {call.verdict, slot.verdict}
    # A skipped upstream skips a block whatever else happened before it; a failed one alone fails it.
    verdict = SKIPPED if SKIPPED in verdicts else UPSTREAM_FAILED if UPSTREAM_FAILED in verdicts else None
    return Call(
        key=(*call.key, *(place for place in slot.key if place[0] not in known)),
        inputs=(*call.inputs, slot.ref) if verdict is None and slot.ref is not None else (),
        verdict=verdict,
    )
