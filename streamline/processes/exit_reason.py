"""What to say when a worker process ended under its task."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

from streamline.processes.crash_trace import Note, Trace
from streamline.processes.task import Failure

_CRASHES = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating-point exception in compiled code",
    signal.SIGILL: "illegal instruction",
    signal.SIGABRT: "aborted",
}


class OutOfMemory:
    """Watches how many processes the kernel has killed for lack of memory: of our cgroup, else of the machine.

    Attributes:
        counts: whether there is such a count here.
        certain: whether it counts nothing but what is ours.
    """

    def __init__(self) -> None:
        self._file, self.certain = _oom_counter()
        self.counts = self._file is not None
        self._known = self._count()

    def _count(self) -> int:
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                for line in self._file.read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0

    def took_one(self) -> bool:
        """Whether a kill was counted that no call before was told of."""
        if self._count() > self._known:
            self._known += 1
            return True
        return False


def _oom_counter() -> tuple[Path | None, bool]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                file = Path("/sys/fs/cgroup", path.lstrip("/"), "memory.events")
            elif "memory" in controllers.split(","):
                file = Path("/sys/fs/cgroup/memory", path.lstrip("/"), "memory.oom_control")
            else:
                continue
            with contextlib.suppress(OSError):
                if "oom_kill " in file.read_text():
                    return file, True
    vmstat = Path("/proc/vmstat")
    return (vmstat, False) if vmstat.exists() else (None, False)


def death(status: int, note: Note, trace: Trace | None, memory: OutOfMemory) -> Failure:
    """The failure of a task whose process ended.

    Args:
        status: the process's wait status.
        note: what it noted last about its whereabouts.
        trace: the stack that it left, if it crashed.
        memory: tells whether it was killed for lack of memory.
    """
    where = trace.where if trace is not None else note.where
    text = trace.text if trace is not None else None
    if status & 0x7F == 0:
        code = status >> 8
        if note.how == "cut off":
            return Failure(
                message="the process lost its connection to the runner",
                hint="the block has closed files that it had not opened, such as by os.closerange",
            )
        if note.how == "broken":
            return Failure(message="the worker process failed; what it printed says why")
        by = " by os._exit" if note.how == "_exit" else ""
        return Failure(
            message=f"the process was ended with code {code}{by}",
            where=where,
            trace=text,
            hint="return from the block's function, or raise an exception, instead of ending the process",
        )
    number = status & 0x7F
    name = _signal_name(number)
    if number in _CRASHES:
        return Failure(
            message=f"the process crashed ({name}: {_CRASHES[signal.Signals(number)]})",
            where=where,
            trace=text,
            hint="compiled code did this, of a library or called through ctypes; the line is the one that called it",
        )
    if note.how == "signal":
        return Failure(message=f"the process sent itself {name}", where=where, trace=text)
    if number == signal.SIGKILL:
        if memory.took_one():
            message = "the process was killed because memory ran out"
            if not memory.certain:
                message += " (SIGKILL, and the kernel has just killed something for that)"
            hint = "load less at once (columns, chunks by a generator), or run fewer blocks at a time"
            return Failure(message=message, where=where, hint=hint)
        if memory.counts:
            return Failure(
                message="the process was killed by signal 9 (SIGKILL)",
                where=where,
                hint="not by the kernel for lack of memory, it says: somebody, or a watchdog, sent the signal",
            )
        return Failure(
            message="the process was killed by signal 9 (SIGKILL), perhaps for lack of memory",
            where=where,
            hint="the system's log says so if memory was the reason; else somebody sent the signal",
        )
    return Failure(message=f"the process was killed by signal {number} ({name})", where=where, trace=text)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
