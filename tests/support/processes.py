"""Find the processes of a run as an operator does: by their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


class Process:
    """One line of what a process is: its id, its command and its environment as far as we may read it."""

    def __init__(self, pid: int, argv: list[str], environ: dict[str, str]) -> None:
        self.pid = pid
        self.argv = argv
        self.environ = environ

    @property
    def started(self) -> str:
        """Start time in clock ticks since boot; with the pid it names a process for good."""
        with contextlib.suppress(OSError, IndexError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[19]
        return ""

    def runs(self, file: str) -> bool:
        """Whether it executes the script `file` (a file name without its folder)."""
        return any(Path(word).name == file for word in self.argv[:6])

    def __repr__(self) -> str:
        return f"{self.pid}: {' '.join(self.argv)}"


def _words(path: str) -> list[str]:
    return Path(path).read_bytes().decode("utf-8", "surrogateescape").rstrip("\0").split("\0")


def processes_of(root: Path) -> list[Process]:
    """Every living process, Streamline's own included, that works for the project at `root`.

    It is known by its environment, which `Project` marks through HOME and TMPDIR; both pass to plugins.
    """
    found = []
    mark = f"{root}/"
    for name in os.listdir("/proc"):  # noqa: PTH208 (it is read often)
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb", buffering=0) as file:
                if mark.encode() not in file.read():
                    continue
            environ = dict(word.split("=", 1) for word in _words(f"/proc/{name}/environ") if "=" in word)
            argv = _words(f"/proc/{name}/cmdline")
        except OSError:
            continue
        if mark in environ.get("TMPDIR", "") or mark in environ.get("HOME", ""):
            found.append(Process(int(name), argv, environ))
    return found


def children_of_runs(root: Path) -> list[Process]:
    """Return taps, targets and their children: processes with a run's id in their environment."""
    return [process for process in processes_of(root) if process.environ.get("STREAMLINE_RUN_ID")]


def wait_until(ready: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait for a condition; fail with `what` when it never holds. How long it takes is not asserted."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise AssertionError(f"timed out after {seconds} s: {what}")
        time.sleep(0.005)


def kill_all(root: Path) -> list[Process]:
    """Kill all processes of the project and return them. Called at the end of every test."""
    found = processes_of(root)
    for process in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)
    return found
