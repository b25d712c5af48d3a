"""Delivery guarantees: the grade of each stream and table, and what proves that records are durable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from streamline.connectors.singer.stages.stream_plan import StreamPlan
    from streamline.execution.integration.plan import SinkPlan


class Grade(StrEnum):
    """The effect of a failure on a table. Neither grade loses records."""

    AT_LEAST_ONCE = "at least once"
    EFFECTIVELY_ONCE = "effectively once"


class Delivery(msgspec.Struct, frozen=True):
    """A grade and its reason."""

    grade: Grade
    why: str


def delivery_of(
    plan: StreamPlan, keys: Sequence[str], replication_method: str | None, *, endless: bool, merges: bool
) -> Delivery:
    """Return the grade of one stream.

    Positions are saved only after the target's proof, so a rerun sends again what was not proven. The effect on the
    table depends on how it is loaded.

    Args:
        keys: the key that the target is given; empty where there is none.
        replication_method: how the source reads it; None where only the tap knows.
        endless: the pipeline has no end, so no table is ever complete and replaced.
        merges: the target declares that it upserts. Most community targets declare nothing, and some only append.
    """
    by_key = plan.load_method == "upsert" or (plan.load_method == "replace" and endless and keys)
    if by_key and not merges:
        return Delivery(
            Grade.AT_LEAST_ONCE,
            "the target gets the key but does not declare that it upserts; if it does, effectively once",
        )
    if plan.load_method == "replace" and endless:
        if keys:
            return Delivery(Grade.EFFECTIVELY_ONCE, "an endless pipeline upserts by key instead of replacing")
        return Delivery(Grade.AT_LEAST_ONCE, "an endless pipeline does not replace, and there is no key")
    if plan.load_method == "replace":
        return Delivery(
            Grade.EFFECTIVELY_ONCE,
            "each run writes a new version; older rows are deleted when it is complete",
        )
    if plan.load_method == "upsert" and plan.annotations.get("x-unique-conflict-method") == "IGNORE":
        return Delivery(Grade.EFFECTIVELY_ONCE, "the first row of each key is kept")
    if plan.load_method == "upsert":
        return Delivery(Grade.EFFECTIVELY_ONCE, "a record that is sent again overwrites itself by its key")
    if replication_method == "FULL_TABLE":
        return Delivery(Grade.AT_LEAST_ONCE, "append: every run adds all rows again")
    return Delivery(Grade.AT_LEAST_ONCE, "append: after a failure, records sent since the last proof are duplicated")


def joined(deliveries: Mapping[str, Delivery]) -> Delivery:
    """Return the weakest grade of several streams; the reasons name their streams if they differ.

    Args:
        deliveries: by stream, not empty.
    """
    grade = min((each.grade for each in deliveries.values()), key=list(Grade).index)
    streams_of: dict[str, list[str]] = {}
    for stream, delivery in deliveries.items():
        streams_of.setdefault(delivery.why, []).append(stream)
    if len(streams_of) == 1:
        return Delivery(grade, next(iter(streams_of)))
    return Delivery(grade, "; ".join(f"{_names(streams)}: {why}" for why, streams in streams_of.items()))


def _names(streams: Sequence[str]) -> str:
    shown = ", ".join(streams[:3])
    return shown if len(streams) <= 3 else f"{shown} and {len(streams) - 3} more"


def proof_of(sink: SinkPlan) -> str:
    """Return what proves that a destination has made records durable."""
    if sink.plugin.proof == "exit":
        return "exit code 0 after the end of its input only (proof: exit)"
    return "the STATEs that it prints, and exit code 0 after the end of its input"
