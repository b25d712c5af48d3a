"""The delivery grade of each stream of an integration pipeline, and what proves that its records are durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamline.execution.delivery import Delivery, Grade

if TYPE_CHECKING:
    from streamline.connectors.singer.stages.stream_plan import StreamPlan
    from streamline.execution.integration.plan import SinkPlan


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


def proof_of(sink: SinkPlan) -> str:
    """Return what proves that a destination has made records durable."""
    if sink.plugin.proof == "exit":
        return "exit code 0 after the end of its input only (proof: exit)"
    return "the STATEs that it prints, and exit code 0 after the end of its input"
