"""Why a worker process ended under its job, from its exit status."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

from streamline.processes.crash_trace import Trace
from streamline.processes.job import Failure
from streamline.processes.shared_page import Ending

_CRASHES = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating-point exception in compiled code",
    signal.SIGILL: "illegal instruction",
    signal.SIGABRT: "aborted",
}


class OutOfMemoryCounter:
    """Counts the processes that the kernel has killed for lack of memory: of our cgroup, else of the machine.

    Attributes:
        available: whether the system has such a count.
        certain: whether it counts only processes of our cgroup.
    """

    def __init__(self) -> None:
        self._file, self.certain = _oom_counter()
        self.available = self._file is not None
        self._known = self._count()

    def _count(self) -> int:
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                for line in self._file.read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0

    def killed_one(self) -> bool:
        """Return whether there was a kill that no earlier call has reported."""
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


def exit_failure(status: int, ending: Ending, trace: Trace | None, memory: OutOfMemoryCounter) -> Failure:
    """Return the failure of a job whose process ended.

    Args:
        ending: what the process noted about its end.
        trace: the stack that it left, if it crashed.
        memory: tells whether it was killed for lack of memory.
    """
    where = trace.where if trace is not None else None
    text = trace.text if trace is not None else None
    number = status & 0x7F
    if number == 0:
        return _exited(status >> 8, ending)
    name = signal_name(number)
    if number in _CRASHES:
        return Failure(
            message=f"the process crashed ({name}: {_CRASHES[signal.Signals(number)]})",
            where=where,
            trace=text,
            hint="compiled code crashed, in a library or called through ctypes; the line is the one that called it",
            code="block.crashed",
        )
    if number == signal.SIGKILL:
        return _killed(memory)
    return Failure(message=f"the process was killed by {name} (signal {number})", code="block.killed")


def _exited(code: int, ending: Ending) -> Failure:
    if ending is Ending.DISCONNECTED:
        return Failure(
            message="the process lost its connection to the runner",
            hint="the block closed file descriptors that it had not opened, such as with os.closerange",
            code="block.exited",
        )
    if ending is Ending.INTERNAL_ERROR:
        return Failure(message="the worker process failed; its output shows why", code="block.exited")
    return Failure(
        message=f"the process exited with code {code}",
        hint="return from the block's function, or raise an exception; do not call os._exit",
        code="block.exited",
    )


def _killed(memory: OutOfMemoryCounter) -> Failure:
    if memory.killed_one():
        message = "the process was killed because the system ran out of memory (SIGKILL)"
        if not memory.certain:
            message += "; the kernel has just killed a process for that reason"
        hint = "load less at once (columns, chunks with a generator), or run fewer blocks at a time"
        return Failure(message=message, hint=hint, code="block.out_of_memory")
    if memory.available:
        return Failure(
            message="the process was killed by SIGKILL (signal 9)",
            hint="the kernel reports no lack of memory: a person or a watchdog sent the signal",
            code="block.killed",
        )
    return Failure(
        message="the process was killed by SIGKILL (signal 9), perhaps because the system ran out of memory",
        hint="see the system's log for out-of-memory kills; otherwise a person or a watchdog sent the signal",
        code="block.killed",
    )


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
