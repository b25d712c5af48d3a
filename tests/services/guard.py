"""Runs a server for as long as its parent lives: `guard.py FOLDER USER STOP_SIGNAL -- COMMAND…`.

A test process can end in ways that run no clean-up (SIGKILL, a crash of the interpreter, a time-out of the
machine). The guard holds the read end of a pipe whose only write end is in that process, so the pipe's end tells
it in every case. It then stops the server, waits, kills what is left, and removes FOLDER.

Standard library only: it runs by path, before anything is imported.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys

STOP_SECONDS = 15.0


def main(argv: list[str]) -> int:
    folder, user, stop_signal, separator, *command = argv
    if separator != "--" or not command:
        print("usage: guard.py FOLDER USER STOP_SIGNAL -- COMMAND…", file=sys.stderr)
        return 2
    # The parent decides when the server goes, not a signal to the whole group. Handlers, unlike SIG_IGN, are not
    # inherited by the server, which must still hear its own stop signal.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        cwd=folder,
        user=user or None,
        group=user_group(user),
        extra_groups=[] if user else None,
    )
    try:
        wait_for_parent_or(server)
    finally:
        stop(server, getattr(signal, f"SIG{stop_signal}"))
        shutil.rmtree(folder, ignore_errors=True)
    return server.returncode or 0


def user_group(user: str) -> int | None:
    """The primary group of `user`; None where the server keeps the caller's."""
    if not user:
        return None
    import pwd

    return pwd.getpwnam(user).pw_gid


def wait_for_parent_or(server: subprocess.Popen[bytes]) -> None:
    """Return when standard input has ended or the server is gone."""
    while server.poll() is None:
        readable, _, _ = select.select([sys.stdin], [], [], 0.5)
        if readable and not os.read(sys.stdin.fileno(), 1024):
            return


def stop(server: subprocess.Popen[bytes], first: signal.Signals) -> None:
    """Ask with `first`, then kill the server's whole session."""
    if server.poll() is None:
        server.send_signal(first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
