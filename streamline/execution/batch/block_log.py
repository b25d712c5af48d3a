"""Writes what blocks print to the run's log and events, with secrets masked and within limits."""

from __future__ import annotations

import threading

from streamline.execution.events import BlockOutput
from streamline.execution.run import Run
from streamline.processes.job import Job

LONG_BYTES = 16 * 1024
"""Lines of this length may be cut."""

SHOWN_BYTES = 1024 * 1024
"""Limit of a block's output that is shown while it runs."""


class BlockLines:
    """Takes the lines of all blocks, from any thread."""

    def __init__(self, run: Run) -> None:
        self._log = run.log
        self._masker = run.masker
        self._bus = run.bus
        self._lock = threading.Lock()
        self._written: dict[str, int] = {}
        self._names: dict[str, str] = {}

    def name(self, task_id: str, name: str) -> None:
        """Set the name that a task's lines are shown with, instead of its block's."""
        self._names[task_id] = name

    def forget(self, task_id: str) -> None:
        """Forget a finished task."""
        self._names.pop(task_id, None)

    def log(self, job: Job | None, line: str, level: str) -> None:
        """Write a line to the log only."""
        self._log.write(self._shown(job), self._masker.mask(line), level)

    def take(self, job: Job | None, line: bytes) -> None:
        """Take a worker's line, without its newline; `job` is None between two tasks."""
        name = job.name if job is not None else "streamline"
        # A progress bar overwrites itself: only its last state counts.
        line = line.rstrip(b"\r").rpartition(b"\r")[2]
        with self._lock:
            before = self._written.get(name, 0)
            after = self._written[name] = before + len(line) + 1
        text = self._masked(line)
        shown = self._shown(job)
        self._log.child(shown, text, "INFO")
        if before <= SHOWN_BYTES:
            over = after > SHOWN_BYTES
            rest = f"… (the rest of the output is in the log: {self._log.path})"
            self._bus.publish(BlockOutput(block=shown, text=rest if over else text))

    def _shown(self, job: Job | None) -> str:
        return self._names.get(job.id, job.name) if job is not None else "streamline"

    def _masked(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace")
        if len(line) < LONG_BYTES:
            return self._masker.mask(text)
        # Where a line is cut a secret may be cut in two. Imported on use: it takes longer than a small run's planning.
        from streamline.processes.child import log_text

        return log_text(text, self._masker)
