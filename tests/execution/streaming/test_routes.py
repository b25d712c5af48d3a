"""Where messages are decoded and copied on their way."""

from __future__ import annotations

import pytest

from streamline.execution.streaming.routes import RoutePlan, route_plan
from tests.execution.streaming.conftest import Stream
from tests.execution.streaming.test_topology import IDENTITY


def shown(route: RoutePlan) -> str:
    """A route as `decode copy:t t [sink, …]`; branches in parentheses."""
    steps = [
        step.kind if step.kind == "decode" else step.block if step.kind == "transform" else f"{step.kind}:{step.block}"
        for step in route.steps
    ]
    ends = [*route.sinks, *(f"({shown(branch)})" for branch in route.branches)]
    return " ".join([*steps, *ends])


@pytest.fixture
def pipeline(stream: Stream) -> Stream:
    """A source."""
    stream.source("s", decodes=True)
    return stream


def test_what_nobody_looks_at_is_not_decoded(pipeline: Stream) -> None:
    pipeline.sink("x", ["s"], format="json")
    assert shown(route_plan(pipeline.plan(), "s")) == "x"


def test_decoded_only_for_those_who_look(pipeline: Stream) -> None:
    pipeline.sink("x", ["s"], format="json")
    pipeline.sink("y", ["s"], format="avro")
    assert shown(route_plan(pipeline.plan(), "s")) == "x (decode y)"


def test_metadata_is_added_where_somebody_looks(stream: Stream) -> None:
    stream.source("s", include_metadata=True)
    stream.sink("x", ["s"])
    assert shown(route_plan(stream.plan(), "s")) == "decode x"


def test_the_last_block_that_changes_messages_needs_no_copy(pipeline: Stream) -> None:
    pipeline.transformer("t", IDENTITY, ["s"])
    pipeline.transformer("u", IDENTITY, ["s"])
    pipeline.sink("x", ["t", "u"])
    assert shown(route_plan(pipeline.plan(), "s")) == "decode (copy:t t x) (u x)"


def test_it_needs_one_if_a_sink_goes_on_using_them(pipeline: Stream) -> None:
    pipeline.transformer("t", IDENTITY, ["s"])
    pipeline.sink("x", ["t", "s"])
    assert shown(route_plan(pipeline.plan(), "s")) == "decode x (copy:t t x)"


def test_a_sink_that_is_done_when_it_has_them_needs_none(pipeline: Stream) -> None:
    pipeline.transformer("t", IDENTITY, ["s"])
    pipeline.sink("x", ["t", "s"], keeps_data=False)
    assert shown(route_plan(pipeline.plan(), "s")) == "decode x (t x)"


def test_sinks_that_only_read_share_messages(pipeline: Stream) -> None:
    pipeline.transformer("t", IDENTITY, ["s"])
    pipeline.sink("x", ["t"])
    pipeline.sink("y", ["t"])
    assert shown(route_plan(pipeline.plan(), "s")) == "decode t x y"


def test_under_exactly_once_messages_are_addressed(stream: Stream) -> None:
    stream.keys(delivery="exactly-once", on_error="stop")
    stream.source("s", cluster="c", decodes=True)
    stream.sink("x", ["s"], cluster="c", format="json")
    stream.sink("y", ["s"], cluster="c", format="json")
    assert shown(route_plan(stream.plan(), "s")) == "(address:x x) (address:y y)"
