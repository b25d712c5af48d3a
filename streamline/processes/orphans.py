"""Children of killed runs: found by the run's id in their environment, and ended before anything new starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Collection
from pathlib import Path

RUN_ID_VARIABLE = "STREAMLINE_RUN_ID"
"""The environment variable that holds the run's id in every process of a run."""

_PROC = Path("/proc")


def processes_of(run_ids: Collection[str], *, variable: str = RUN_ID_VARIABLE) -> list[int]:
    """Ids of the processes that bear one of these runs' ids in their environment; empty where there is no /proc.

    Args:
        run_ids: ids of runs, or of what else `variable` names.
        variable: where it stands in the environment.
    """
    mark = f"{variable}=".encode()
    wanted = {mark + run_id.encode() for run_id in run_ids}
    found = []
    own = os.getpid()
    with contextlib.suppress(OSError):
        for entry in os.scandir(_PROC):
            if not entry.name.isdigit() or int(entry.name) == own:
                continue
            # Others' processes can't be read, and are not ours to end.
            with contextlib.suppress(OSError):
                environment = Path(entry.path, "environ").read_bytes()
                if mark in environment and wanted & set(environment.split(b"\0")):
                    found.append(int(entry.name))
    return found


def end_processes(run_ids: Collection[str], *, seconds: float = 5.0, variable: str = RUN_ID_VARIABLE) -> int:
    """Kill what is left of these runs and wait until it is gone. Returns how many there were.

    A run id is never used twice, so a process that bears it was started by that run, whatever its pid is now.
    """
    left = processes_of(run_ids, variable=variable)
    count = len(left)
    deadline = time.monotonic() + seconds
    # One that forks all the time can slip through a look at /proc, so nothing is gone before it was missed thrice.
    missed = 0 if left else 3
    while missed < 3 and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        left = [pid for pid in processes_of(run_ids, variable=variable) if not _is_zombie(pid)]
        missed = 0 if left else missed + 1
    return count


def remove_private_files(runs_dir: Path, run_id: str) -> None:
    """Delete what a killed run left in its folder, its log excepted."""
    folder = runs_dir / run_id
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name == "run.log":
                continue
            with contextlib.suppress(OSError):  # one that can't be deleted keeps none of the others
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _is_zombie(pid: int) -> bool:
    try:
        return b") Z" in Path(_PROC, str(pid), "stat").read_bytes()
    except OSError:
        return True
