"""Orphans: processes of killed runs, found by the run's id in their environment and ended before a new run starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

RUN_ID_VARIABLE = "STREAMLINE_RUN_ID"
"""The environment variable that every process of a run has."""


def processes_of(run_ids: Collection[str], *, variable: str = RUN_ID_VARIABLE) -> list[int]:
    """Ids of the processes that have one of these ids in their environment; empty where there is no /proc.

    Args:
        run_ids: ids of runs, or other values of `variable`.
        variable: the environment variable that holds the id.
    """
    return list(_scan(run_ids, variable))


def end_processes(run_ids: Collection[str], *, seconds: float = 5.0, variable: str = RUN_ID_VARIABLE) -> int:
    """Kill the processes of these runs and wait until they are gone. Returns how many there were.

    A run id is never used twice, so a process that has it was started by that run, whatever its pid is now.
    """
    deadline = time.monotonic() + seconds
    first: int | None = None
    # A process that keeps forking can escape a scan of /proc, so three scans in a row must find nothing.
    misses = 0
    while misses < 3 and time.monotonic() < deadline:
        killed = 0
        for pid in _scan(run_ids, variable):  # killed at sight: by the end of the scan it may have forked
            killed += 1
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if first is None:
            first = killed
        if not first:
            return 0
        misses = 0 if killed else misses + 1
        time.sleep(0.01)
    return first or 0


def _scan(run_ids: Collection[str], variable: str) -> Iterator[int]:
    mark = f"{variable}=".encode()
    wanted = {mark + run_id.encode() for run_id in run_ids}
    own = os.getpid()
    try:
        names = [entry.name for entry in os.scandir("/proc")]
    except OSError:
        return
    # The newest first: a process that keeps forking is at its next id before a scan gets there from below.
    for pid in sorted((int(name) for name in names if name.isdigit()), reverse=True):
        if pid == own:
            continue
        # Processes of other users cannot be read, and are not ours to end. A zombie's environment is empty.
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if mark in environment and wanted & set(environment.split(b"\0")):
                yield pid


def remove_private_files(folder: Path, keep: str) -> None:
    """Delete what a killed run left in its folder, except the file named `keep`."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name == keep:
                continue
            with contextlib.suppress(OSError):  # a file that cannot be deleted does not keep the others
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
