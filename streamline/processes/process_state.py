"""The state of a process that a job may change, and how it is restored for the next one."""

from __future__ import annotations

import contextlib
import gc
import locale
import logging
import os
import resource
import signal
import sys
import threading
import time
import warnings
from typing import Any

_LIMITS = tuple(
    getattr(resource, name)
    for name in ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE")
    if hasattr(resource, name)
)
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_THREAD_SECONDS = 0.02


class ProcessState:
    """The state of this process between jobs. Made and used in the main thread.

    Restored: environment variables (and the time zone they set), `sys.path`, `sys.argv`, the standard streams, the
    working directory, umask, signal handlers, mask and timers, warnings filters, the locale, the recursion limit, the
    trace function, garbage collection, and the root logger. Modules stay loaded on purpose.
    """

    def __init__(self) -> None:
        self._environ = os.environ
        self._environment = dict(os.environ)
        self._path = sys.path
        self._paths = list(sys.path)
        self._argv = list(sys.argv)
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._outputs = [os.dup(1), os.dup(2)]
        self._folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._filters = list(warnings.filters)
        self._locale = locale.setlocale(locale.LC_ALL)
        self._recursion = sys.getrecursionlimit()
        self._trace, self._profile = sys.gettrace(), sys.getprofile()
        root = logging.getLogger()
        self._logging = (list(root.handlers), list(root.filters), root.level, logging.root.manager.disable)
        self._unchangeable = _unchangeable()
        self.threads = _threads()

    @property
    def output(self) -> int:
        """A descriptor of standard output as it is between jobs."""
        return self._outputs[0]

    def restore(self) -> str | None:
        """Restore the state; return what cannot be restored, or None.

        That includes threads and child processes that are left. They are found, not ended.
        """
        with contextlib.suppress(ValueError, OSError):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            if signal.getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
        if signal.pthread_sigmask(signal.SIG_BLOCK, ()) != self._mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        self._restore_environment()
        if sys.path is not self._path or sys.path != self._paths:
            sys.path = self._path
            sys.path[:] = self._paths
        sys.argv[:] = self._argv
        sys.setrecursionlimit(self._recursion)
        if sys.gettrace() is not self._trace:
            sys.settrace(self._trace)
        if sys.getprofile() is not self._profile:
            sys.setprofile(self._profile)
        if not gc.isenabled():
            gc.enable()
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
        if warnings.filters != self._filters:
            filters: Any = warnings.filters
            filters[:] = self._filters
            # Invalidates the caches of warnings that were shown once.
            getattr(warnings, "_filters_mutated", lambda: None)()
        root = logging.getLogger()
        root.handlers[:], root.filters[:] = self._logging[0], self._logging[1]
        if root.level != self._logging[2]:
            root.setLevel(self._logging[2])
        logging.disable(self._logging[3])
        sys.stdin, sys.stdout, sys.stderr = self._streams
        os.umask(self._umask)
        os.fchdir(self._folder)
        os.dup2(self._outputs[0], 1)
        os.dup2(self._outputs[1], 2)
        if _unchangeable() != self._unchangeable:
            return "limits"
        if any(stream is not None and stream.closed for stream in self._streams):
            return "streams"
        return self._left_behind()

    def _restore_environment(self) -> None:
        os.environ = self._environ  # noqa: B003
        if dict(os.environ) == self._environment:
            return
        zone = os.environ.get("TZ")
        for name in os.environ.keys() - self._environment.keys():
            del os.environ[name]
        for name, value in self._environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        if os.environ.get("TZ") != zone:
            time.tzset()

    def _left_behind(self) -> str | None:
        deadline = time.monotonic() + _THREAD_SECONDS
        while _threads() > self.threads:
            if time.monotonic() > deadline:  # a thread that was joined may need a moment to end
                return "threads"
            time.sleep(0.001)
        return "processes" if has_children() else None


def has_children() -> bool:
    """Return whether this process has living children; those that ended and were not waited for are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _threads() -> int:
    import _thread

    # Also counts threads that were started without the module threading.
    return max(_thread._count(), threading.active_count() - 1)


def _unchangeable() -> tuple[object, ...]:
    limits = tuple(resource.getrlimit(limit) for limit in _LIMITS)
    return (os.getuid(), os.geteuid(), os.getpriority(os.PRIO_PROCESS, 0), *limits)
