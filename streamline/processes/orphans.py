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
    """Return ids of the processes that have one of these ids in their environment; empty where there is no /proc.

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
            environment = _read(f"/proc/{pid}/environ")
            if mark in environment and wanted & set(environment.split(b"\0")):
                yield pid


def end_children(known: Collection[int], *, seconds: float = 5.0) -> None:
    """Kill the children of this process that are not `known`, and what it adopts by that, and wait until they are gone.

    A process that adopts orphans (`wire.adopt_orphans`) ends so what its children left, however it detached itself.
    """
    deadline = time.monotonic() + seconds
    while (orphans := [pid for pid in children() if pid not in known]) or (not known and _has_children()):
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return
        time.sleep(0.001)


def _has_children() -> bool:
    """Return whether a child lives or waits to be reaped. The kernel's lists may miss one while another exits."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reap_adopted() -> None:
    """Take the exit statuses of adopted processes that have ended, so that an endless run collects no zombies."""
    for pid in children():
        with contextlib.suppress(OSError):
            # What we started is of our session, or leads its own.
            if os.getsid(pid) not in (os.getsid(0), pid):
                os.waitpid(pid, os.WNOHANG)


def children() -> list[int]:
    """Process ids of the children of this process, zombies included; empty where there is no /proc."""
    while os.path.exists(f"/proc/self/task/{os.getpid()}/children"):  # noqa: PTH110 (a run asks often)
        # A child belongs to the thread that forked it; those of a thread that ends pass to another, maybe one that
        # was read already.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            threads = os.listdir("/proc/self/task")  # noqa: PTH208
            return [int(pid) for thread in threads for pid in _read(f"/proc/self/task/{thread}/children").split()]
    return _children_by_scan()


def _children_by_scan() -> list[int]:
    """Return the same from all processes, for a kernel without lists of children."""
    pids = []
    with contextlib.suppress(OSError):
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    stat = _read(f"{entry.path}/stat")
                    if int(stat[stat.rindex(b")") + 1 :].split(None, 2)[1]) == os.getpid():
                        pids.append(int(entry.name))
    return pids


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def remove_private_files(folder: Path, keep: str) -> None:
    """Delete what a killed run left in its folder, except files whose names match `keep`."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.match(keep) and not path.is_dir():
                continue
            with contextlib.suppress(OSError):  # a file that cannot be deleted does not keep the others
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
