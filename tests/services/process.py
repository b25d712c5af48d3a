"""Servers that tests start themselves: on loopback, in a temporary folder, under a guard (see `guard.py`)."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.services.require import ServiceMissingError

GUARD = Path(__file__).with_name("guard.py")
START_SECONDS = 60.0


def server_user(preferred: str) -> str:
    """The account for a server that refuses to run as root: '' (ourselves) unless we are root.

    Args:
        preferred: the account that the system's package makes for this server, taken where it exists.
    """
    if os.getuid() != 0:
        return ""
    for name in (preferred, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ServiceMissingError(f"this is root, and there is no account {preferred!r} or 'nobody' to run a server as")


def server_folder(prefix: str, user: str) -> Path:
    """A new private folder that `user` owns and can reach (the test's own temporary folder may be root's)."""
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if user and not all(p.stat().st_mode & 0o001 for p in (Path(parent), *Path(parent).parents)):
            continue
        folder = Path(tempfile.mkdtemp(prefix=f"streamline-{prefix}-", dir=parent))
        if user:
            account = pwd.getpwnam(user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        return folder
    raise ServiceMissingError(f"there is no temporary folder that {user!r} can reach")


def run_as(user: str, command: Sequence[str | Path], folder: Path) -> None:
    """Run a short command to its end as `user`.

    Raises:
        ServiceMissingError: it failed; the text holds what it printed.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        user=user or None,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceMissingError(f"{Path(str(command[0])).name} failed ({done.returncode}): {done.stdout[-2000:]}")


def find_program(names: Sequence[str], folders: Sequence[str | Path]) -> Path | None:
    """The first of `names` in `folders` (in that order), else on PATH; packages hide servers outside of PATH."""
    for folder in folders:
        for name in names:
            if (path := Path(folder) / name).is_file():
                return path
    for name in names:
        if found := shutil.which(name):
            return Path(found)
    return None


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quiet_port() -> int:
    """A loopback port that nobody listens on now and no client is given: below the range of ephemeral ports.

    For servers that are started again on the same port.
    """
    try:
        ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        ephemeral = 32768
    while True:
        port = random.SystemRandom().randrange(max(1024, ephemeral - 15_000), ephemeral)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def guarded(
    command: Sequence[str | Path],
    *,
    folder: Path,
    user: str,
    ready: Callable[[], bool],
    stop_signal: str = "TERM",
    log: Path,
) -> Iterator[subprocess.Popen[bytes]]:
    """Keep a server up inside the `with`; `folder` is removed with it. Gives the guard, whose child the server is.

    Args:
        ready: True once the server answers; called every tenth of a second. May raise OSError while it does not.

    Raises:
        ServiceMissingError: the server ended or did not answer in time; the text holds the end of its log.
    """
    with log.open("ab") as out:
        guard = subprocess.Popen(
            [sys.executable, str(GUARD), str(folder), user, stop_signal, "--", *(str(part) for part in command)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                if ready():
                    break
            if guard.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
                raise ServiceMissingError(f"{Path(str(command[0])).name} did not come up: {tail}")
            time.sleep(0.1)
        yield guard
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()
