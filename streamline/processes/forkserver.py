"""The fork server: a process that has imported what jobs need, and forks workers that have it from the start.

The runner starts it with `BOOT`. It has one thread and never runs user code. It adopts the orphans of its workers, so
it can kill everything that a worker started, also after `setsid` or a double fork. It exits, with all of these, when
the runner does: its control socket closes, and the system sends it SIGTERM when the runner's thread is gone. When it
exits itself, the system sends its workers SIGKILL.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import warnings
from typing import NoReturn, TypedDict

from streamline.processes import wire
from streamline.processes.orphans import end_children
from streamline.processes.process_state import has_children

BOOT = (
    "import json, sys; settings = json.loads(sys.argv[1])\n"
    "if settings['path'] is not None: sys.path[:] = settings['path']\n"
    "else: sys.path.append(settings['home'])\n"
    "from streamline.processes.forkserver import serve; serve(settings)"
)

_LEAVE_SECONDS = 1.0
_KILL_SECONDS = 5.0


class ForkServerSettings(TypedDict):
    """The argument of the fork server.

    Args:
        control: descriptor of its end of the control socket.
        parent: process id of the runner.
        path: `sys.path`; None: the interpreter's own, and `home` at its end.
        home: the folder that has the package `streamline`.
        preload: modules to import; one that cannot be imported is skipped.
    """

    control: int
    parent: int
    path: list[str] | None
    home: str
    preload: list[str]


def serve(settings: ForkServerSettings) -> NoReturn:
    """Be the fork server until the runner exits or sends LEAVE."""
    # The caller's thread may have signals blocked; everything from here on would inherit that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # As long as nothing is forked the default, death, is the right answer to SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wire.die_with_parent(signal.SIGTERM)
    if os.getppid() != settings["parent"]:
        os._exit(0)
    wire.adopt_orphans()
    control = socket.socket(fileno=settings["control"])
    control.set_inheritable(False)
    sys.argv = ["streamline-workers"]
    _preload(["streamline.processes.worker", *settings["preload"]])
    _Server(control).run()


def _preload(modules: list[str]) -> None:
    gc.disable()
    for name in modules:
        # A module that cannot be imported fails, with its traceback, the job that imports it.
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
    # What exists now is never garbage; a collection would copy its pages into every worker.
    gc.freeze()


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pids: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._terminated = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def _terminate(self, *_: object) -> None:
        self._terminated = True

    def run(self) -> NoReturn:
        """Serve requests until the runner exits or sends LEAVE."""
        graceful = False
        with contextlib.suppress(OSError):  # the runner is gone
            self._send(wire.READY, 0, os.getpid())
            graceful = self._serve_requests()
        self._leave(graceful)

    def _serve_requests(self) -> bool:
        """Serve requests; return True if it ended by LEAVE."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while not self._terminated:
            ready = dict(poll.poll())
            if self._woken.fileno() in ready:
                self._drain_wakeups()
                self._reap()
            if self._control.fileno() in ready:
                data, fds = _receive(self._control)
                if len(data) < wire.RECORD.size:
                    return False
                request, number, value = wire.RECORD.unpack(data)
                if request == wire.FORK:
                    self._fork(number, fds)
                elif request == wire.SIGNAL:
                    self._signal(number, value)
                elif request == wire.END:
                    self._signal(number, signal.SIGKILL)
                else:
                    return True
        return False

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    def _send(self, event: int, number: int, value: int) -> None:
        self._control.sendall(wire.RECORD.pack(event, number, value))

    def _fork(self, number: int, fds: list[int]) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        server = os.getpid()
        try:
            with warnings.catch_warnings():
                # It warns of libraries' idle thread pools, which handle a fork themselves.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError as error:
            for fd in fds:
                os.close(fd)
            self._send(wire.NOT_FORKED, number, error.errno or 0)
            return
        if pid == 0:
            try:
                self._become_worker(server, fds)
            finally:
                os._exit(70)
        self._pids[number] = pid
        self._numbers[pid] = number
        for fd in fds:
            os.close(fd)

    def _become_worker(self, server: int, fds: list[int]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        wire.die_with_parent(signal.SIGKILL)
        if os.getppid() != server:
            return
        wire.adopt_orphans()
        os.setsid()
        self._control.close()
        self._woken.close()
        self._waker.close()
        connection, output, page, traces = fds
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        gc.enable()
        from streamline.processes.worker import work

        work(socket.socket(fileno=connection), page, traces)

    def _signal(self, number: int, signal_number: int) -> None:
        # Only this process reaps workers, so a process id is not reused while it is in the table.
        pid = self._pids.get(number)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)

    def _reap(self) -> None:
        ended = []
        for pid, status in _exits(self._numbers):
            number = self._numbers.pop(pid, None)
            if number is not None:
                del self._pids[number]
                ended.append((number, status))
        if ended:
            end_children(self._numbers)
        for number, status in ended:
            self._send(wire.EXITED, number, status)

    def _leave(self, graceful: bool) -> NoReturn:
        deadline = time.monotonic() + (_LEAVE_SECONDS if graceful else 0)
        with contextlib.suppress(OSError):
            while self._numbers and not self._terminated and (left := deadline - time.monotonic()) > 0:
                # Idle workers exit by themselves: the runner has closed their sockets.
                select.select([self._woken], [], [], left)
                self._drain_wakeups()
                self._reap()
        for pid in self._numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < deadline:
            for pid, _ in _exits(self._numbers):
                self._numbers.pop(pid, None)
            if not has_children():
                break
            if not self._numbers:
                end_children(())
            select.select([self._woken], [], [], 0.005)
            self._drain_wakeups()
        os._exit(0)


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one record and its descriptors, which programs that are started here do not inherit."""
    # socket.recv_fds does not pass on its flags.
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    fds = array.array("i")
    space = socket.CMSG_LEN(wire.FORK_DESCRIPTORS * fds.itemsize)
    data, ancillary, _, _ = control.recvmsg(wire.RECORD.size, space, flags)
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    for fd in fds:
        os.set_inheritable(fd, False)
    return data, list(fds)


def _exits(leaders: dict[int, int]) -> list[tuple[int, int]]:
    """Reap all children that have ended: process ids and wait statuses."""
    exits = []
    with contextlib.suppress(ChildProcessError):
        while True:
            if sys.platform != "darwin":
                # Before it is reaped: until then its id, which is also its group's, is not reused.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None:
                    break
                if ended.si_pid in leaders:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(ended.si_pid, signal.SIGKILL)
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            exits.append((pid, status))
    return exits
