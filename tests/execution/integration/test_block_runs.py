"""The status of each block after a run, and which block is at fault."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.errors import PipelineFailed, StreamlineError
from streamline.execution.events import BlockOutcome
from streamline.execution.integration.attempt import GroupOutcome
from streamline.execution.integration.block_runs import at_fault, block_outcomes, blocks_of
from streamline.execution.integration.plan import Plan
from streamline.telemetry.progress import Progress
from tests.execution.integration.plans import context, group, path, plan, sink, source, stream

USERS = stream("users")
BROKEN = StreamlineError("it broke", code="tap.failed")


def planned() -> Plan:
    """Two sources: `load` through `clean` into `export`, and `more` into `export` and `other`."""
    load, more = source(USERS), source(USERS, uuid="more")
    return plan(
        load,
        more,
        sinks=[sink(load, more, streams={"users": {"load_method": "append"}}), sink(more, uuid="other")],
        paths={"load": path("export", transforms=["clean"]), "more": path("export", "other")},
    )


def ended(id: str = "load", **values: Any) -> GroupOutcome:
    return GroupOutcome(group=group(USERS, id=id, source=id.partition(".")[0]), started=True, **values)


def failed(id: str = "load", block: str | None = None, **values: Any) -> GroupOutcome:
    error = PipelineFailed("it broke", blocks=[block], code="block.failed") if block is not None else BROKEN
    return ended(id, error=error, **values)


def outcomes(*every: GroupOutcome, interrupted: int | None = None) -> dict[str, BlockOutcome]:
    run = context(run={"progress": Progress(), "interrupted": interrupted})
    return {outcome.uuid: outcome for outcome in block_outcomes(run, planned(), every)}


def statuses(*every: GroupOutcome, interrupted: int | None = None) -> list[str]:
    return [outcome.status for outcome in outcomes(*every, interrupted=interrupted).values()]


def test_sources_come_first() -> None:
    assert blocks_of(planned()) == ["load", "more", "clean", "export", "other"]


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ([ended(), ended("more")], ["completed"] * 5),
        ([], ["skipped"] * 5),
        ([ended()], ["completed", "skipped", "completed", "completed", "skipped"]),
        # The other source has still reached the destination that both feed.
        ([failed(), ended("more")], ["failed", "completed", "upstream_failed", "completed", "completed"]),
        ([failed(), failed("more")], ["failed", "failed", *["upstream_failed"] * 3]),
        ([failed(block="clean")], ["cancelled", "skipped", "failed", "upstream_failed", "skipped"]),
        ([failed(fault="export")], ["cancelled", "skipped", "cancelled", "failed", "skipped"]),
        # Another branch is cut short, though it is not downstream of the failure.
        ([failed("more", fault="other")], ["skipped", "cancelled", "skipped", "cancelled", "failed"]),
    ],
)
def test_a_block_has_failed_if_it_is_at_fault(every: list[GroupOutcome], expected: list[str]) -> None:
    assert statuses(*every) == expected


def test_the_last_attempt_counts() -> None:
    assert statuses(failed(), ended(), ended("more")) == ["completed"] * 5


def test_one_process_that_failed_fails_its_source_alone() -> None:
    assert statuses(failed("load.a"), ended("load.b"), ended("more")) == ["failed", *["completed"] * 4]


def test_what_a_signal_ended_is_cancelled() -> None:
    assert statuses(ended(), failed("more"), interrupted=2) == ["cancelled", "failed", *["cancelled"] * 3]


def test_the_failure_is_told_at_the_block_at_fault() -> None:
    blocks = outcomes(failed(), ended("more"))
    failure = blocks["load"].failure
    assert failure is not None
    assert failure.code == "tap.failed"
    assert [block.failure for uuid, block in blocks.items() if uuid != "load"] == [None] * 4


def test_seconds_span_all_attempts_and_attempts_are_those_of_the_busiest_process() -> None:
    blocks = outcomes(
        *(failed("load.a", began=1.0, ended=2.0), ended("load.b", began=1.5, ended=3.0)),
        *(ended("load.a", began=4.0, ended=5.25), ended("more")),
    )
    assert (blocks["load"].seconds, blocks["load"].attempts) == (4.25, 2)
    assert (blocks["more"].seconds, blocks["more"].attempts) == (None, 1)
    unfinished = outcomes(ended(began=1.0))
    assert unfinished["load"].seconds is None


@pytest.mark.parametrize(
    ("outcome", "blocks"),
    [
        (ended(), []),
        (failed(), ["load"]),
        (failed(block="clean"), ["clean"]),
        (failed(block="clean", fault="export"), ["export"]),
        (ended(error=PipelineFailed("it broke", blocks=[], code="x.y")), ["load"]),
    ],
)
def test_who_is_at_fault(outcome: GroupOutcome, blocks: list[str]) -> None:
    assert at_fault(outcome) == blocks


def test_the_counts_are_those_of_the_block() -> None:
    progress = Progress()
    progress.of("load").read("users", 2)
    progress.of("load").sent("export", "users", 2)
    runs = block_outcomes(context(run={"progress": progress}), planned(), [ended()])
    results = {run.uuid: run.results for run in runs}
    assert [list(results[uuid][0]) for uuid in ("load", "export")] == [
        ["stream", "read", "quarantined"],
        ["table", "sent", "written", "quarantined"],
    ]
    assert results["more"] == results["other"] == []
