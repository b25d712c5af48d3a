"""The grade that `explain` gives to the delivery of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from streamline.connectors.singer.stages.stream_plan import StreamPlan
from streamline.execution.delivery import Delivery, Grade, joined
from streamline.execution.integration.delivery import delivery_of, proof_of
from tests.execution.integration.plans import plugin, sink, source, stream

LEAST, ONCE = Grade.AT_LEAST_ONCE, Grade.EFFECTIVELY_ONCE


@pytest.mark.parametrize(
    ("method", "values", "grade", "why"),
    [
        ("upsert", {}, ONCE, "overwrites itself"),
        ("upsert", {"merges": False}, LEAST, "not declare"),
        ("upsert", {"annotations": {"x-unique-conflict-method": "IGNORE"}}, ONCE, "first row"),
        ("upsert", {"annotations": {"x-unique-conflict-method": "UPDATE"}}, ONCE, "overwrites itself"),
        ("replace", {"merges": False}, ONCE, "new version"),
        ("replace", {"endless": True}, ONCE, "upserts by key instead"),
        ("replace", {"endless": True, "merges": False}, LEAST, "not declare"),
        ("replace", {"endless": True, "keys": []}, LEAST, "there is no key"),
        ("append", {}, LEAST, "after a failure"),
        ("append", {"replication": "FULL_TABLE"}, LEAST, "adds all rows again"),
        ("append", {"annotations": {"x-unique-conflict-method": "IGNORE"}}, LEAST, "after a failure"),
    ],
)
def test_the_grade_of_a_stream(method: str, values: dict[str, Any], grade: Grade, why: str) -> None:
    def grade_of(
        *,
        keys: Sequence[str] = ("id",),
        replication: str = "INCREMENTAL",
        endless: bool = False,
        merges: bool = True,
        annotations: dict[str, Any] | None = None,
    ) -> Delivery:
        plan = StreamPlan(load_method=method, annotations=annotations or {})
        return delivery_of(plan, keys, replication, endless=endless, merges=merges)

    delivery = grade_of(**values)
    assert delivery.grade == grade
    assert why in delivery.why


def test_of_several_streams_the_weakest_counts() -> None:
    strong, weak = Delivery(ONCE, "by key"), Delivery(LEAST, "append")
    assert joined({"a": strong, "b": strong}) == strong
    assert joined({"a": strong, "b": weak}) == Delivery(LEAST, "a: by key; b: append")
    many = joined({**dict.fromkeys("abcd", strong), **dict.fromkeys("xyz", weak)})
    assert many.why == "a, b, c and 1 more: by key; x, y, z: append"


def test_what_proves_a_target() -> None:
    load = source(stream("users"))
    assert "only" in proof_of(sink(load, target=plugin("target-x", proof="exit")))
    assert "STATE" in proof_of(sink(load))
