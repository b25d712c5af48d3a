"""The outcome of a block, from its calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from streamline.errors import is_disk_full
from streamline.execution.batch.calls import Made
from streamline.execution.batch.fanout import CANCELLED, COMPLETED, FAILED, SKIPPED, UPSTREAM_FAILED, Finished
from streamline.execution.batch.plan import BlockPlan
from streamline.execution.batch.task import Failure
from streamline.execution.events import BlockOutcome, failure_from

LISTED_FAILURES = 100
"""Failed calls of a fan-out that are listed one by one; all of them are in the log."""


def outcome_of(plan: BlockPlan, made: Sequence[Made], upstream: Sequence[Finished], *, child: bool) -> BlockOutcome:
    """Return the outcome of a block from its calls."""
    status = status_of([call.instance.status for call in made])
    began = [call.began for call in made if call.began is not None]
    ended = [call.ended for call in made if call.ended is not None]
    failed = [call for call in made if call.instance.status == FAILED]
    tests = [test for call in made if call.result is not None for test in call.result.tests]
    reason = _reason(status, made, upstream)
    results = _results(made, child=child)
    if reason is not None:
        results = [*results, {"reason": reason}]
    return BlockOutcome(
        uuid=plan.block.uuid,
        status=status,
        seconds=round(max(ended) - min(began), 3) if began and ended else None,
        attempts=max((call.attempts for call in made), default=0),
        results=results,
        failure=_failure(failed, child=child),
        calls=len(made) if child else None,
        failed=len(failed),
        tests=(len(tests), sum(test.error is not None for test in tests)),
        reason=reason,
    )


def status_of(statuses: Sequence[str]) -> str:
    """Return a block's status: the worst of its calls', and `skipped` only if all were."""
    for status in (CANCELLED, FAILED, UPSTREAM_FAILED):
        if status in statuses:
            return status
    return SKIPPED if statuses and all(status == SKIPPED for status in statuses) else COMPLETED


def unforeseen(error: Exception) -> Failure:
    """Describe an error that neither the block's code nor its worker raised."""
    if isinstance(error, OSError) and not is_disk_full(error):  # of the disk that outputs are on
        where = str(error.filename) if error.filename else None
        return Failure(
            message=f"cannot store the output: {error.strerror or error}", where=where, code="output.not_stored"
        )
    return failure_from(error)


def _results(made: Sequence[Made], *, child: bool) -> list[Any]:
    """Return the results for `runs show`: the block's own, else its outputs; of a fan-out the failed calls."""
    reported = [item for call in made if call.result is not None for item in call.result.results]
    if child:
        failed = [(call.instance.number, call.failure) for call in made if call.failure is not None][:LISTED_FAILURES]
        return reported + [
            {"child": number, "status": FAILED, "where": failure.where, "error": failure.message}
            for number, failure in failed
        ]
    return reported or [item for call in made if call.result is not None for item in call.result.outputs]


def _failure(failed: Sequence[Made], *, child: bool) -> Failure | None:
    first = failed[0].failure if failed else None
    if first is None or not child:
        return first
    numbers = [call.instance.number for call in failed]
    message = f"child {numbers[0]}: {first.message}"
    if len(numbers) > 1:
        others = ", ".join(map(str, numbers[1:11])) + (", …" if len(numbers) > 11 else "")
        message += f" (and {len(numbers) - 1:,} more: {others})"
    return msgspec.structs.replace(first, message=message)


def _reason(status: str, made: Sequence[Made], upstream: Sequence[Finished]) -> str | None:
    """Return why a block was not called."""
    if status == SKIPPED:
        refused = next((call.refused for call in made if call.refused is not None), None)
        if refused is not None:
            return f"'{refused}' returned false"
        for parent in upstream:
            if any(instance.status == COMPLETED and instance.gate is False for instance in parent.instances):
                return f"'{parent.uuid}' returned false"
            if parent.instances and all(instance.status == SKIPPED for instance in parent.instances):
                return f"'{parent.uuid}' was skipped"
    if status == UPSTREAM_FAILED:
        for parent in upstream:
            if any(instance.status in (FAILED, UPSTREAM_FAILED) for instance in parent.instances):
                return f"'{parent.uuid}' failed"
    return None
