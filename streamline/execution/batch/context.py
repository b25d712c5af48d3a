"""What all parts of a batch run share, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.execution.batch.task import Failure
from streamline.execution.run import RunOptions

if TYPE_CHECKING:
    from streamline.execution.batch.plan import BatchPlan
    from streamline.project.project import Project


class BlockOutcome(msgspec.Struct, kw_only=True):
    """How a block ended.

    Args:
        status: completed, failed, skipped, upstream_failed or cancelled.
        seconds: from its first call to its last one's end; None if none was made.
        attempts: of the call that needed the most.
        results: what it lists as its results: dbt's nodes, else what its outputs are.
        failure: of the first call that failed.
        calls: how many there were, for a dynamic block's children; None for other blocks.
        failed: how many of them failed.
        reused: it had completed before the run was resumed.
        tests: how many tests ran, and how many of them failed.
        reason: why it was skipped, or could not be called.
    """

    uuid: str
    type: str
    status: str
    seconds: float | None = None
    attempts: int = 0
    results: list[Any] = []
    failure: Failure | None = None
    calls: int | None = None
    failed: int = 0
    reused: bool = False
    tests: tuple[int, int] = (0, 0)
    reason: str | None = None


class BatchResult(msgspec.Struct, kw_only=True):
    """How a run ended.

    Args:
        status: completed, failed or cancelled.
        blocks: in the order of the plan.
        signal: the signal that interrupted it, if one did.
        warnings: what blocks warned of.
        resumed: the run had been started before.
        nothing_to_resume: `resume` found that the newest run completed; nothing was done.
    """

    run_id: str
    status: str
    blocks: list[BlockOutcome]
    log: str
    signal: int | None = None
    warnings: list[str] = []
    resumed: bool = False
    nothing_to_resume: bool = False

    @property
    def errors(self) -> dict[str, Failure]:
        """Why each block that failed did."""
        return {one.uuid: one.failure for one in self.blocks if one.failure is not None}

    @property
    def summary(self) -> dict[str, Any]:
        """The run in a few JSON values."""
        counts: dict[str, int] = {}
        for one in self.blocks:
            counts[one.status] = counts.get(one.status, 0) + 1
        return {"blocks": counts}


class Listener:
    """What a run tells while it goes on, from whichever thread. The command line shows it; this one keeps silent."""

    def planned(self, plan: BatchPlan, run_id: str, *, resumed: bool) -> None:
        """Everything is known; nothing has run yet."""

    def started(self, uuid: str, calls: int | None) -> None:
        """A block's first call begins; `calls` is their number where it is a dynamic block's child."""

    def called(self, uuid: str, *, failed: bool) -> None:
        """One of a dynamic block's children has ended."""

    def finished(self, outcome: BlockOutcome) -> None:
        """A block has ended."""

    def interrupted(self) -> None:
        """A signal asks the run to end; what runs has some seconds for that."""

    def retrying(self, uuid: str, child: int | None, failure: Failure, delay: float) -> None:
        """A call failed and is tried again after `delay` seconds."""

    def waiting(self, uuid: str, seconds: float) -> None:
        """A sensor said no; it is asked again after `seconds`."""

    def line(self, uuid: str, text: str) -> None:
        """A block printed a line."""

    def warning(self, uuid: str, text: str) -> None:
        """A block warned of something."""


class SafeListener(Listener):
    """Tells another listener, whose errors are none of the run's: the first of them is handed to `failed`."""

    def __init__(self, listener: Listener, failed: Callable[[Exception], None]) -> None:
        self._listener = listener
        self._failed = failed
        self._told = False

    def planned(self, plan: BatchPlan, run_id: str, *, resumed: bool) -> None:
        self._tell(partial(self._listener.planned, plan, run_id, resumed=resumed))

    def started(self, uuid: str, calls: int | None) -> None:
        self._tell(partial(self._listener.started, uuid, calls))

    def finished(self, outcome: BlockOutcome) -> None:
        self._tell(partial(self._listener.finished, outcome))

    def called(self, uuid: str, *, failed: bool) -> None:
        self._tell(partial(self._listener.called, uuid, failed=failed))

    def interrupted(self) -> None:
        self._tell(self._listener.interrupted)

    def retrying(self, uuid: str, child: int | None, failure: Failure, delay: float) -> None:
        self._tell(partial(self._listener.retrying, uuid, child, failure, delay))

    def waiting(self, uuid: str, seconds: float) -> None:
        self._tell(partial(self._listener.waiting, uuid, seconds))

    def line(self, uuid: str, text: str) -> None:
        self._tell(partial(self._listener.line, uuid, text))

    def warning(self, uuid: str, text: str) -> None:
        self._tell(partial(self._listener.warning, uuid, text))

    def _tell(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:
            if not self._told:
                self._told = True
                self._failed(error)


class RunFacts(msgspec.Struct, kw_only=True):
    """A run's constants.

    Args:
        run_dir: its private folder (0700).
        execution_date: when it first began, in UTC.
        variables: the pipeline's, the trigger's and the runtime's, the later ones winning.
        runtime: names of those that came from outside.
    """

    project: Project
    run_id: str
    run_dir: Path
    execution_date: datetime
    variables: dict[str, Any]
    runtime: tuple[str, ...]
    options: RunOptions
