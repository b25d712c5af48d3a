"""The calls of a block: one, or one per item of a dynamic parent, or per combination of several parents' items.

Every dynamic parent opens an *axis*. A call's *key* is its index on each axis that it depends on. Children of one
parent are joined by their keys; items of different parents are multiplied. A child that is dynamic itself opens
another axis, whose length may differ from child to child. `reduce_output` closes a block's axes: the downstream blocks
get one list, in the order of the items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from streamline.execution.batch.task import InputRef

CallKey: TypeAlias = tuple[tuple[str, int], ...]
"""An index for each axis, named by the uuid of the block that opened it, in the order of the axes."""

COMPLETED, FAILED, SKIPPED, UPSTREAM_FAILED, CANCELLED = (
    "completed",
    "failed",
    "skipped",
    "upstream_failed",
    "cancelled",
)


class CallFacts(msgspec.Struct, kw_only=True):
    """What is kept of a call of a block.

    Args:
        number: its number among the block's calls, from 0.
        key: the items that it got.
        gate: False: the downstream blocks are skipped.
        items: of a dynamic block: the number of items in its output.
        described: whether its output has metadata for its items.
    """

    number: int
    key: CallKey = ()
    gate: bool | None = None
    items: int | None = None
    described: bool = False

    def facts(self) -> dict[str, Any]:
        """Return the fields by name, to make another kind of record of the call."""
        return {name: getattr(self, name) for name in CallFacts.__struct_fields__}


class Instance(CallFacts, kw_only=True):
    """One call of a block, and how it ended.

    Args:
        status: completed, failed, skipped, upstream_failed or cancelled.
        ref: its output; None unless it completed.
    """

    status: str = COMPLETED
    ref: InputRef | None = None

    @property
    def passes(self) -> bool:
        """Whether the downstream blocks may run."""
        return self.status == COMPLETED and self.gate is not False


class Finished(msgspec.Struct, kw_only=True):
    """A block that has ended, as its downstream blocks see it.

    Args:
        dynamic: the downstream blocks run once per item of its output.
        reduce: the downstream blocks get its outputs as one list.
        child: it ran once per item, even if there were none.
        limited: it did not run for all items.
        instances: in the order of the items.
    """

    uuid: str
    type: str
    dynamic: bool = False
    reduce: bool = False
    child: bool = False
    limited: bool = False
    instances: Sequence[Instance] = ()


class CallPlan(msgspec.Struct, kw_only=True):
    """A call that a block needs.

    Args:
        inputs: one per upstream block; empty where it cannot run.
        items: of a source: the items of `key`, as far as they are known.
        verdict: None if it can run; else `skipped` or `upstream_failed`.
    """

    key: CallKey
    inputs: tuple[InputRef, ...] = ()
    items: tuple[InputRef, ...] = ()
    verdict: str | None = None


class Verdict(msgspec.Struct):
    """The status of a call that did not run, or failed, because of another block; None: of its own."""

    status: str | None = None


class _Slot(msgspec.Struct):
    """One input that an upstream block offers."""

    key: CallKey
    ref: InputRef | None
    verdict: str | None


def calls_of(upstream: Sequence[Finished]) -> list[CallPlan]:
    """Return the calls of a block, given its upstream blocks in the order of its inputs.

    They are in the order of the first upstream block's items, then of the second's, and so on.
    """
    calls = [CallPlan(key=())]
    for parent in upstream:
        slots = _slots(parent)
        by_axes = {axis for slot in slots for axis, _ in slot.key}
        index: dict[CallKey, list[_Slot]] = {}
        shared = tuple(dict.fromkeys(axis for call in calls for axis, _ in call.key if axis in by_axes))
        for slot in slots:
            index.setdefault(_project(slot.key, shared), []).append(slot)
        calls = [_joined(call, slot) for call in calls for slot in index.get(_project(call.key, shared), ())]
    return calls or _without_calls(upstream)


def items_of_call(key: CallKey, finished: Mapping[str, Finished]) -> tuple[InputRef, ...]:
    """Return the items that a call's key names, whatever its inputs have made of them."""
    items = []
    for axis, place in key:
        for instance in finished[axis].instances if axis in finished else ():
            if instance.ref is not None and set(instance.key) <= set(key):
                items.append(msgspec.structs.replace(instance.ref, item=place, described=instance.described))
    return tuple(items)


def is_child(upstream: Iterable[Finished]) -> bool:
    """Return whether a block downstream of these runs once per item."""
    return any(not parent.reduce and (parent.dynamic or parent.child) for parent in upstream)


def _slots(parent: Finished) -> list[_Slot]:
    if parent.reduce:
        return [_combined(parent)]
    slots: list[_Slot] = []
    for instance in parent.instances:
        verdict = _verdict(instance)
        if not parent.dynamic:
            slots.append(_Slot(instance.key, instance.ref, verdict))
        elif verdict is not None or instance.ref is None:
            # The number of items is unknown: one call stands for all of them.
            slots.append(_Slot((*instance.key, (parent.uuid, 0)), None, verdict or UPSTREAM_FAILED))
        else:
            for item in range(instance.items or 0):
                ref = msgspec.structs.replace(instance.ref, item=item, described=instance.described)
                slots.append(_Slot((*instance.key, (parent.uuid, item)), ref, None))
    return slots


def _combined(parent: Finished) -> _Slot:
    verdicts = [_verdict(instance) for instance in parent.instances]
    if UPSTREAM_FAILED in verdicts:
        return _Slot((), None, UPSTREAM_FAILED)
    # Children that a condition skipped are left out of the list; if all were, the block is skipped.
    if verdicts and all(verdict == SKIPPED for verdict in verdicts):
        return _Slot((), None, SKIPPED)
    parts = tuple(
        instance.ref
        for instance, verdict in zip(parent.instances, verdicts, strict=True)
        if verdict is None and instance.ref is not None
    )
    return _Slot((), InputRef(block=parent.uuid, type=parent.type, parts=parts), None)


def _without_calls(upstream: Sequence[Finished]) -> list[CallPlan]:
    """Return one call with a verdict if an upstream block was skipped or failed; else none.

    Otherwise a dynamic parent without items would hide the failure from blocks downstream.
    """
    verdicts = [[_verdict(instance) for instance in parent.instances] for parent in upstream]
    if any(each and all(verdict == SKIPPED for verdict in each) for each in verdicts):
        return [CallPlan(key=(), verdict=SKIPPED)]
    return [CallPlan(key=(), verdict=UPSTREAM_FAILED)] if any(UPSTREAM_FAILED in each for each in verdicts) else []


def _verdict(instance: Instance) -> str | None:
    if instance.passes:
        return None
    return SKIPPED if instance.status in (SKIPPED, COMPLETED) else UPSTREAM_FAILED


def _project(key: CallKey, axes: Sequence[str]) -> CallKey:
    places: Mapping[str, int] = dict(key)
    return tuple((axis, places[axis]) for axis in axes if axis in places)


def _joined(call: CallPlan, slot: _Slot) -> CallPlan:
    known = {axis for axis, _ in call.key}
    verdicts = {call.verdict, slot.verdict}
    # A skipped upstream block skips a block even if another upstream block failed.
    verdict = SKIPPED if SKIPPED in verdicts else UPSTREAM_FAILED if UPSTREAM_FAILED in verdicts else None
    return CallPlan(
        key=(*call.key, *(place for place in slot.key if place[0] not in known)),
        inputs=(*call.inputs, slot.ref) if verdict is None and slot.ref is not None else (),
        verdict=verdict,
    )
