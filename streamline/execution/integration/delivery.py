"""How safely records arrive: the grade of a stream's way into its table, and what proves that it is durable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from streamline.connectors.singer.stages.destination import StreamPlan
    from streamline.execution.integration.plan import SinkPlan


class Grade(StrEnum):
    """What a failure in the middle can do to a table. Nothing is lost in either."""

    AT_LEAST_ONCE = "at least once"
    EFFECTIVELY_ONCE = "effectively once"


class Delivery(msgspec.Struct, frozen=True):
    """A grade and its reason."""

    grade: Grade
    why: str


def delivery_of(
    plan: StreamPlan, keys: Sequence[str], replication_method: str | None, *, endless: bool, merges: bool
) -> Delivery:
    """The grade of one stream.

    Positions are saved only after the target's proof, so that a rerun sends again what was not proven. What the
    table then holds depends on how it is loaded.

    Args:
        keys: the key that the target is given; empty where there is none.
        replication_method: how the source reads it; None where only the tap knows.
        endless: the pipeline has no end, so that no table is ever complete and replaced.
        merges: the target says that it upserts. Most community targets say nothing of it, and some only append.
    """
    by_key = plan.load_method == "upsert" or (plan.load_method == "replace" and endless and keys)
    if by_key and not merges:
        return Delivery(
            Grade.AT_LEAST_ONCE,
            "it is given the key, and does not say whether it merges by it; where it does, effectively once",
        )
    if plan.load_method == "replace" and endless:
        if keys:
            return Delivery(Grade.EFFECTIVELY_ONCE, "a pipeline without an end replaces nothing, it upserts by key")
        return Delivery(Grade.AT_LEAST_ONCE, "a pipeline without an end replaces nothing, and there is no key")
    if plan.load_method == "replace":
        return Delivery(
            Grade.EFFECTIVELY_ONCE,
            "each run writes a version of its own, and the older rows go when it is complete",
        )
    if plan.load_method == "upsert" and plan.annotations.get("x-unique-conflict-method") == "IGNORE":
        return Delivery(Grade.EFFECTIVELY_ONCE, "of rows with one key the first stays")
    if plan.load_method == "upsert":
        return Delivery(Grade.EFFECTIVELY_ONCE, "a record that is sent again overwrites itself by its key")
    if replication_method == "FULL_TABLE":
        return Delivery(Grade.AT_LEAST_ONCE, "append: every run adds all rows of the table again")
    return Delivery(Grade.AT_LEAST_ONCE, "append: after a failure, what was sent since the last proof is there twice")


def joined(deliveries: Mapping[str, Delivery]) -> Delivery:
    """The grade of what is made of several streams: the weakest; the reasons name their streams if they differ.

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
    """What proves that a destination has made records durable."""
    if sink.plugin.proof == "exit":
        return "its exit code 0 after the end of its input, and nothing else (proof: exit)"
    return "the STATEs that it prints, and its exit code 0 after the end of its input"
