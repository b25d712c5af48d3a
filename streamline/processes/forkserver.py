"""The fork server: a process that has imported what blocks need, and forks workers that have it from the start.

It is started by the runner with `BOOT`, has one thread, and never runs user code. Everything that workers fork becomes
its child when the worker ends (it adopts orphans), so nothing gets away: not by a session of its own, not by a double
fork. It ends, with all of these, when the runner does: its control socket closes, and it gets SIGTERM from the system
when the runner's thread is gone. Workers get SIGKILL when it ends itself.
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
from pathlib import Path
from typing import NoReturn, TypedDict

from streamline.processes import wire

BOOT = (
    "import json, sys; settings = json.loads(sys.argv[1])\n"
    "if settings['path'] is not None: sys.path[:] = settings['path']\n"
    "else: sys.path.append(settings['home'])\n"
    "from streamline.processes.forkserver import serve; serve(settings)"
)

_LEAVE_SECONDS = 1.0
_KILL_SECONDS = 5.0


class Settings(TypedDict):
    """What the fork server is told at its start.

    Args:
        control: descriptor of its end of the control socket.
        parent: process id of the runner.
        path: `sys.path`; None: the interpreter's own, and `home` at its end.
        home: the folder that has the package `streamline`.
        preload: modules to import; one that cannot be imported is left for whoever needs it.
        perform: `module:function` that carries out tasks.
    """

    control: int
    parent: int
    path: list[str] | None
    home: str
    preload: list[str]
    perform: str


def serve(settings: Settings) -> NoReturn:
    """Be the fork server until the runner is gone or says so."""
    # A caller's thread may have signals blocked; that would be inherited by everything from here on.
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
    _preload([settings["perform"].partition(":")[0], "streamline.processes.worker", *settings["preload"]])
    _Server(control, settings["perform"]).run()


def _preload(modules: list[str]) -> None:
    gc.disable()
    for name in modules:
        # Whatever is wrong with it is told, with its traceback, to the block that imports it.
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
    # What is here now is never garbage; looking at it would copy its pages into every worker.
    gc.freeze()


class _Server:
    def __init__(self, control: socket.socket, perform: str) -> None:
        self._control = control
        self._perform = perform
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
        """Answer requests until there is nobody left to ask."""
        graceful = False
        with contextlib.suppress(OSError):  # the runner is gone
            self._tell(wire.READY, 0, os.getpid())
            graceful = self._answer()
        self._leave(graceful)

    def _answer(self) -> bool:
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

    def _tell(self, what: int, number: int, value: int) -> None:
        self._control.sendall(wire.RECORD.pack(what, number, value))

    def _fork(self, number: int, fds: list[int]) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        server = os.getpid()
        try:
            with warnings.catch_warnings():
                # Libraries' idle thread pools; they look after themselves in a fork.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError as error:
            for fd in fds:
                os.close(fd)
            self._tell(wire.NOT_FORKED, number, error.errno or 0)
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
        self._tell(wire.FORKED, number, pid)

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
        connection, output, notes, traces = fds
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        gc.enable()
        from streamline.processes.worker import work

        work(socket.socket(fileno=connection), notes, traces, self._perform)

    def _signal(self, number: int, signal_number: int) -> None:
        # Nobody but us reaps a worker, so its process id is its own as long as it is in the table.
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
            self._end_orphans()
        for number, status in ended:
            self._tell(wire.EXITED, number, status)

    def _end_orphans(self) -> None:
        """Kill what has come to us from workers that ended, and what comes to us by that."""
        deadline = time.monotonic() + _KILL_SECONDS
        while orphans := [pid for pid in children(os.getpid()) if pid not in self._numbers]:
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:
                return
            time.sleep(0.001)

    def _leave(self, graceful: bool) -> NoReturn:
        deadline = time.monotonic() + (_LEAVE_SECONDS if graceful else 0)
        with contextlib.suppress(OSError):
            while self._numbers and not self._terminated and (left := deadline - time.monotonic()) > 0:
                # Idle workers leave by themselves: the runner has closed their sockets.
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
            if not _has_children():
                break
            if not self._numbers:
                self._end_orphans()
            select.select([self._woken], [], [], 0.005)
            self._drain_wakeups()
        os._exit(0)


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """One record and the descriptors that came with it, which no program that is started from here gets to see."""
    # socket.recv_fds does not hand on its flags.
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
    found = []
    with contextlib.suppress(ChildProcessError):
        while True:
            if sys.platform != "darwin":
                # Seen before it is reaped: until then its id, which is also its group's, is nobody else's.
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if seen is None:
                    break
                if seen.si_pid in leaders:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(seen.si_pid, signal.SIGKILL)
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            found.append((pid, status))
    return found


def _has_children() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def children(parent: int) -> list[int]:
    """Process ids of the children of `parent`, zombies included; empty where there is no /proc."""
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    stat = Path(entry.path, "stat").read_bytes()
                    if int(stat[stat.rindex(b")") + 1 :].split(None, 2)[1]) == parent:
                        found.append(int(entry.name))
    return found
