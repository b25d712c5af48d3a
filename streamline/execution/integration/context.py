"""What all parts of a run share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from streamline.project.project import Project
from streamline.project.secrets import Masker
from streamline.state.store import Store
from streamline.telemetry.progress import Progress
from streamline.telemetry.runlog import RunLog, level_of

MAX_WARNINGS = 20


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asked for.

    Args:
        variables: `--runtime-vars`.
        streams: `--stream`, names or globs.
        full_refresh: the streams given are read anew, from the start.
        bookmarks: `--bookmark`, each STREAM.COLUMN=VALUE.
        accept_gap: go on where a bookmark can't be continued without a gap.
        refresh_catalog: discover again.
        debug: tracebacks.
    """

    variables: dict[str, Any] = {}
    streams: Sequence[str] = ()
    full_refresh: bool = False
    bookmarks: Sequence[str] = ()
    accept_gap: bool = False
    refresh_catalog: bool = False
    debug: bool = False


class RunContext(msgspec.Struct, kw_only=True):
    """A run that goes on.

    Args:
        run_dir: the run's private folder (0700), where config files and the log are.
        interrupted: the signal that asked the run to end, once one did.
        warnings: what its children warned of, each once, as far as there is room.
        started: when it began, in UTC: `execution_date` of all its blocks and attempts.
    """

    project: Project
    pipeline: str
    run_id: str
    run_dir: Path
    store: Store
    masker: Masker
    log: RunLog
    progress: Progress
    options: RunOptions
    interrupted: int | None = None
    warnings: dict[str, None] = {}
    started: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))

    def warn(self, source: str, message: str) -> None:
        """Log a warning, which is shown at the end of the run."""
        self.child_line(source, f"WARNING {self.masker.mask(message)}")

    def child_line(self, source: str, line: str) -> None:
        """Log a line of a child, which is masked already; its warnings are shown at the end of the run."""
        level = level_of(line)
        self.log.write(source, line, level)
        if level == "WARNING" and len(self.warnings) < MAX_WARNINGS:
            self.warnings[f"{source}: {line.strip()}"] = None

    def note(self, source: str, message: str, level: str = "INFO") -> None:
        """Write to the run's log, masked."""
        self.log.write(source, self.masker.mask(message), level)


@contextmanager
def open_context(
    project: Project, pipeline: str, store: Store, options: RunOptions, *, run_id: str, run_dir: Path
) -> Iterator[RunContext]:
    """The context of a run, or of a command that plans or does a part of one.

    Args:
        run_dir: a folder (0700) that exists; the log is written there.
    """
    log = RunLog(run_dir / "run.log")
    try:
        yield RunContext(
            project=project,
            pipeline=pipeline,
            run_id=run_id,
            run_dir=run_dir,
            store=store,
            masker=project.secrets.masker,
            log=log,
            progress=Progress(),
            options=options,
        )
    finally:
        log.close()
