"""The status of each block after a run, for `streamline runs show`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamline.errors import PipelineFailed
from streamline.execution.events import BlockOutcome, failure_from
from streamline.execution.integration.attempt import GroupOutcome
from streamline.execution.integration.plan import Plan
from streamline.execution.run import Run
from streamline.processes.job import Failure


def block_outcomes(context: Run, plan: Plan, outcomes: Sequence[GroupOutcome]) -> list[BlockOutcome]:
    """Return the status of every block of the plan: sources first, then the blocks downstream of them.

    A block has failed if one of its groups failed because of it. A block that was cut short by another's failure is
    `upstream_failed` if it is downstream of that one, else `cancelled`. When a signal ended the run it is `cancelled`;
    when no stream of it was selected, `skipped`.

    Args:
        outcomes: of each group, attempt by attempt.
    """
    behind = {source: _blocks_behind(plan, source) for source in plan.sources}
    last = {outcome.group.id: outcome for outcome in outcomes}
    runs = []
    for uuid in blocks_of(plan):
        of = [outcome for outcome in outcomes if uuid in (outcome.group.source, *behind[outcome.group.source])]
        mine = [outcome for outcome in last.values() if outcome in of]
        status, failure = _status(context, uuid, mine, behind)
        begun = [outcome for outcome in of if outcome.began is not None and outcome.ended is not None]
        seconds = (
            max(outcome.ended or 0.0 for outcome in begun) - min(outcome.began or 0.0 for outcome in begun)
            if begun
            else None
        )
        groups = [outcome.group.id for outcome in of if outcome.started]
        runs.append(
            BlockOutcome(
                uuid=uuid,
                status=status,
                seconds=round(seconds, 3) if seconds is not None else None,
                attempts=max((groups.count(group) for group in groups), default=0),
                results=_results(context, uuid),
                failure=failure,
            )
        )
    return runs


def blocks_of(plan: Plan) -> list[str]:
    """Return the uuids of the plan's blocks: sources first, then what is behind them."""
    behind = [uuid for source in plan.sources for uuid in _blocks_behind(plan, source)]
    return list(dict.fromkeys([*plan.sources, *behind]))


def _status(
    context: Run, uuid: str, mine: Iterable[GroupOutcome], behind: Mapping[str, Sequence[str]]
) -> tuple[str, Failure | None]:
    mine = list(mine)
    if not mine:
        return "skipped", None
    failed = [outcome for outcome in mine if outcome.error is not None]
    own = next((outcome for outcome in failed if uuid in at_fault(outcome)), None)
    if own is not None and own.error is not None:
        return "failed", failure_from(own.error)
    if context.interrupted is not None:
        return "cancelled", None
    if len(failed) < len(mine):
        return "completed", None
    for outcome in failed:
        order = (outcome.group.source, *behind[outcome.group.source])
        if any(order.index(block) < order.index(uuid) for block in at_fault(outcome) if block in order):
            return "upstream_failed", None
    return "cancelled", None


def at_fault(outcome: GroupOutcome) -> list[str]:
    """Return the uuids of the blocks that made a group fail."""
    if outcome.fault is not None:
        return [outcome.fault]
    if isinstance(outcome.error, PipelineFailed) and outcome.error.blocks:
        return outcome.error.blocks
    return [outcome.group.source] if outcome.error is not None else []


def _results(context: Run, uuid: str) -> list[dict[str, Any]]:
    """Return the record counts of a source by stream, of a destination by table."""
    summary = context.progress.summary()
    return [
        {key: value for key, value in counts.items() if key != "block"}
        for counts in (*summary["streams"], *summary["tables"])
        if counts["block"] == uuid
    ]


def _blocks_behind(plan: Plan, source: str) -> list[str]:
    return [*plan.mappers_of(source), *plan.paths[source].blocks()]
