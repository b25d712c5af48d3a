"""Makes attempts at a streaming pipeline: one that fails is followed by another from the last proof."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from math import inf

import anyio
import msgspec

from streamline.connectors.kafka.client import KafkaError
from streamline.connectors.stream_connector import NothingWritten, PositionLost
from streamline.errors import ConfigError, LeaseHeld, PipelineFailed, StreamlineError
from streamline.execution.events import AttemptFailed
from streamline.execution.flow_runs import failure_of
from streamline.execution.run import Run
from streamline.execution.streaming.attempt import AttemptOutcome, run_attempt
from streamline.execution.streaming.flows import MessageRefused
from streamline.execution.streaming.plan import Plan
from streamline.pipeline.model import RetryConfig

BACKOFF = RetryConfig(delay=1, max_delay=60)
"""The delays of a pipeline without `retry_config`, which is tried without end."""


_OUTAGES = frozenset({"kafka.unreachable", "kafka.transaction_unknown"})
"""Errors of a cluster that was away, beside those that say of themselves that they pass."""

FENCED_AGAIN_SECONDS = 600.0
"""A producer whose transactional id is taken over twice within so long has another instance beside it. Once may also be
what this process itself has left behind, or a transaction that a broker ended while the machine slept."""

MOST_UNWRITTEN = 5
"""Attempts in a row in which a sink wrote nothing, and nothing showed that it was an outage."""

_LONGER = 15.0
"""Seconds beyond the startup timeout after which an attempt has certainly started."""


class Retries:
    """Decides whether and when another attempt follows.

    Args:
        config: the pipeline's; None: there is no limit.
        startup: seconds that a system may be unreachable at the start.
    """

    def __init__(self, config: RetryConfig | None, startup: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._startup = startup
        self._clock = clock
        self._fenced_at = -inf
        self._failed = 0
        self._begun = False
        self._unwritten = 0

    def follow(self, config: RetryConfig | None, startup: float) -> None:
        """Go on by other settings."""
        self._config, self._startup = config, startup

    def delay_after(self, outcome: AttemptOutcome) -> float | None:
        """Return the seconds until another attempt; None: it would not help, or is one too many."""
        error = outcome.error
        assert error is not None
        first = not self._begun
        # Blocks of users fail for reasons that pass; before anything was proven, another system cannot be used at all.
        by_block = outcome.given and isinstance(error, PipelineFailed)
        self._begun = self._begun or outcome.saved or by_block or outcome.seconds > self._startup + _LONGER
        if first and not self._begun and self._config is None:
            return None
        if not isinstance(error, StreamlineError) and not self._begun:
            return None  # a fault of ours
        if isinstance(error, ConfigError | LeaseHeld | MessageRefused | PositionLost) or _broken(error):
            return None
        if isinstance(error, StreamlineError) and error.code == "kafka.replaced":
            return None
        fenced = isinstance(error, KafkaError) and error.fenced
        if fenced:
            before, self._fenced_at = self._fenced_at, self._clock()
            if self._fenced_at - before < FENCED_AGAIN_SECONDS:
                return None
        # An attempt that got on is no failure in a row.
        self._failed = 1 if outcome.saved else self._failed + 1
        self._unwritten = (0 if outcome.saved else self._unwritten) + 1 if isinstance(error, NothingWritten) else 0
        if self._config is None and self._unwritten >= MOST_UNWRITTEN:
            return None
        # At the start it is one more failure: the startup timeout is over.
        outage = (
            self._begun
            and isinstance(error, StreamlineError)
            and (fenced or getattr(error, "transient", False) or error.code in _OUTAGES)
        )
        if self._config is not None and self._failed > self._config.retries and not outage:
            return None
        return (self._config or BACKOFF).delay_before(self._failed)


def _broken(error: Exception) -> bool:
    """Return whether all messages become dead letters: another attempt would make more of them."""
    return isinstance(error, PipelineFailed) and error.code == "dead_letter.too_many"


async def run_attempts(
    run: Run, plan: Plan, read_again: Callable[[], Awaitable[Plan | None]]
) -> tuple[AttemptOutcome, int, Plan]:
    """Make attempts until one ends well, may not be followed by another, or the run is interrupted.

    Args:
        read_again: returns another plan to go on with, when the run is asked to reload.

    Returns:
        the last attempt's outcome, the number of attempts, and the plan of the last one.
    """
    retries = Retries(plan.settings.retry, plan.settings.startup_timeout)
    number = 0
    while True:
        number += 1
        outcome = await run_attempt(run, plan, number, read_again)
        if outcome.next_plan is not None:
            outcome.next_plan.follow(plan)
            plan = outcome.next_plan
            retries.follow(plan.settings.retry, plan.settings.startup_timeout)
        if run.interrupted is None and outcome.error is None and outcome.next_plan is not None:
            continue
        if outcome.error is None or run.interrupted is not None:
            return outcome, number, plan
        if plan.singer is not None:
            plan.singer.has_failed(outcome.block)
        delay = retries.delay_after(outcome)
        failure = failure_of(run, outcome.error)
        run.bus.publish(AttemptFailed(block=outcome.block or "streamline", failure=failure, delay=delay))
        if delay is None:
            return outcome, number, plan
        run.note(outcome.block or "streamline", f"another attempt starts in {delay:g} s", "WARNING")
        if not await _waited(run, delay):
            return msgspec.structs.replace(outcome, error=None, unfinished=run.progress.unsaved > 0), number, plan
        if run.reload_asked:
            run.reload_asked = False
            if (next_plan := await read_again()) is not None:
                next_plan.follow(plan)
                plan = next_plan
                retries.follow(plan.settings.retry, plan.settings.startup_timeout)


async def _waited(run: Run, seconds: float) -> bool:
    """Wait, no longer if the run is asked to reload; return False at once if it is interrupted."""
    with anyio.move_on_after(seconds):
        while run.interrupted is None:
            if run.reload_asked:
                return True
            await anyio.sleep(0.05)
        return False
    return True
