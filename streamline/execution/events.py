"""What happens in a run, as typed events, and the bus that delivers them.

Everything that shows or records a run subscribes: the terminal, the store's record, the Python API. Events hold no
secrets and encode as JSON: `msgspec.json.encode(event)`; the field `event` names the type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

from streamline.errors import ConfigError, DiskFull, StreamlineError, is_disk_full
from streamline.processes.job import Failure
from streamline.project.secrets import Masker


class BlockOutcome(msgspec.Struct, kw_only=True):
    """How a block ended.

    Args:
        status: completed, failed, skipped, upstream_failed or cancelled.
        seconds: from the start of its first call to the end of its last; None if there was none.
        attempts: of the call that needed the most.
        results: what the block reports (dbt's nodes, counts by stream or table), else what its outputs are.
        failure: of the first call that failed.
        calls: number of calls of a dynamic block's child; None for other blocks.
        failed: how many calls failed.
        reused: it had completed before the run was resumed.
        tests: how many tests ran, and how many of them failed.
        reason: why it was skipped or could not be called.
    """

    uuid: str
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


class PlannedSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source that a run will read.

    Args:
        streams: number of selected streams; None: all that it sends.
        destinations: plugin names by block.
    """

    block: str
    plugin: str
    streams: int | None
    destinations: dict[str, str]
    notes: list[str] = []


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


class _Event(msgspec.Struct, kw_only=True, tag_field="event", tag=_snake):
    time: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))


class RunPlanned(_Event):
    """The plan is made; nothing has run yet.

    Args:
        sources: empty unless the run moves streams.
        endless: the run may go on until it is stopped.
        metrics: the address where its metrics are served; None: nowhere.
    """

    run_id: str
    pipeline: str
    blocks: list[str]
    sources: list[PlannedSource] = []
    resumed: bool = False
    endless: bool = False
    metrics: str | None = None


class BlockStarted(_Event):
    """A block starts; `calls` is their number if it is a dynamic block's child."""

    block: str
    calls: int | None = None


class CallFinished(_Event):
    """One call of a dynamic block's child has ended."""

    block: str
    failed: bool


class BlockOutput(_Event):
    """A block printed a line."""

    block: str
    text: str


class ProgressMade(_Event):
    """Counts so far, several times a second while streams move.

    Args:
        streams: `{"block", "stream", "read", "quarantined"}` of each.
        tables: `{"block", "table", "sent", "written", "quarantined"}` of each: sent to the target, confirmed by it, and
            refused for this destination alone.
        seconds: since the start.
        saved_ago: seconds since a position was last saved; None: not yet.
    """

    records: int
    quarantined: int
    streams: list[dict[str, Any]]
    tables: list[dict[str, Any]]
    seconds: float
    saved_ago: float | None = None


class StreamProgress(_Event):
    """Counts of a streaming run so far, every second.

    Args:
        read, written, dead_letters: messages, each once over all attempts; written ones are proven.
        in_flight: read, and not proven yet.
        lag: `{"block", "name", "behind", "position"}` of each partition or file: messages that are not read yet, and
            the offset of the next one; None where it is not known.
        seconds: since the start.
        saved_ago: seconds since a position was last saved; None: not yet.
        streams, tables: as in `ProgressMade`.
    """

    read: int
    written: int
    in_flight: int
    dead_letters: int
    lag: list[dict[str, Any]]
    seconds: float
    saved_ago: float | None = None
    streams: list[dict[str, Any]] = []
    tables: list[dict[str, Any]] = []


class PositionSaved(_Event):
    """A position of a source block was saved."""

    block: str


class WarningRaised(_Event):
    """A block or plugin warned of something."""

    block: str
    message: str


class StreamStopped(_Event):
    """A stream failed; the others of its source go on."""

    block: str
    stream: str
    failure: Failure


class AttemptFailed(_Event):
    """An attempt failed; the next starts after `delay` seconds (None: there is none).

    Args:
        block: the block; of an integration pipeline the source's group.
        child: number of a dynamic block's child.
        streams: those that were stopped, if that is all that failed.
    """

    block: str
    failure: Failure
    delay: float | None
    child: int | None = None
    streams: list[str] = []


class SensorWaiting(_Event):
    """A sensor's condition is not met; it is evaluated again after `seconds`."""

    block: str
    seconds: float


class RunInterrupted(_Event):
    """A signal interrupted the run, which stops in order."""

    signal: int


class BlockFinished(_Event):
    """A block has ended."""

    outcome: BlockOutcome


class RunFinished(_Event):
    """The run has ended and is recorded."""

    run_id: str
    status: str
    summary: dict[str, Any]
    error: str | None = None
    code: str | None = None


Event: TypeAlias = (
    RunPlanned
    | BlockStarted
    | CallFinished
    | BlockOutput
    | ProgressMade
    | StreamProgress
    | PositionSaved
    | WarningRaised
    | StreamStopped
    | AttemptFailed
    | SensorWaiting
    | RunInterrupted
    | BlockFinished
    | RunFinished
)
Subscriber: TypeAlias = Callable[[Event], object]


class Bus:
    """Delivers each event to all subscribers, in the thread that publishes it.

    A subscriber that raises harms neither the run nor the others; its first error is handed to `on_error`.
    """

    def __init__(self, subscribers: Iterable[Subscriber] = ()) -> None:
        self._subscribers = list(subscribers)
        self._failed: set[int] = set()
        self.on_error: Callable[[Exception], object] = lambda error: None

    def subscribe(self, subscriber: Subscriber) -> None:
        """Deliver all later events to `subscriber`. It may be called from several threads."""
        self._subscribers.append(subscriber)

    def publish(self, event: Event) -> None:
        """Deliver an event."""
        for number, subscriber in enumerate(self._subscribers):
            try:
                subscriber(event)
            except Exception as error:
                if number not in self._failed:
                    self._failed.add(number)
                    self.on_error(error)


def failure_from(error: Exception) -> Failure:
    """Describe an error that is no user code's."""
    if is_disk_full(error):
        error = DiskFull(error.filename)
    if isinstance(error, StreamlineError):
        retry = not isinstance(error, ConfigError)
        return Failure(message=error.message, where=error.where, hint=error.hint, code=error.code, retry=retry)
    return Failure(
        message=f"unexpected {type(error).__name__}: {error}",
        hint="this is a bug in Streamline: run it again with --debug and report the traceback",
        code="streamline.bug",
    )


def masked(failure: Failure, masker: Masker) -> Failure:
    """Mask the secrets in a failure's texts."""
    mask = masker.mask
    return msgspec.structs.replace(
        failure,
        message=mask(failure.message),
        hint=None if failure.hint is None else mask(failure.hint),
        trace=None if failure.trace is None else mask(failure.trace),
    )


def one_line(failure: Failure) -> str:
    """Return where it happened and the message."""
    return f"{failure.where}: {failure.message}" if failure.where else failure.message
