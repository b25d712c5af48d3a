"""A lease that the operating system takes back when its holder dies: a lock on a file.

The lock is the truth. Who holds it is told by a row in the store, which is only there to be shown.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


def _forget_in_child() -> None:
    # A forked child shares the lock and would keep it after its parent's death. (exec closes it anyway.)
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)


class FileLease:
    """Holds `path` locked until `release`, or until the process is gone, however it ends."""

    def __init__(self, pipeline: str, run_id: str, descriptor: int, on_release: Callable[[], None]) -> None:
        self.pipeline = pipeline
        self.run_id = run_id
        self._descriptor: int | None = descriptor
        self._on_release = on_release

    def release(self) -> None:
        """Give the lease back; again is harmless."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None or descriptor not in _held:
            return
        try:
            # While the lock is still held, so that it cannot take away the next holder's row.
            self._on_release()
        finally:
            _held.discard(descriptor)
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_path(folder: Path, pipeline: str) -> Path:
    """Return the lock file of a pipeline. It stays when the lease is released: a file that is removed could be locked
    twice.
    """
    name = "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):02x}" for c in pipeline)
    return folder / f"{name}.lock"


def try_lock(path: Path) -> int | None:
    """Lock the file now; its descriptor, or None if another open descriptor has it locked.

    Raises:
        OSError: the file cannot be opened or locked at all.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    _held.add(descriptor)
    return descriptor


def unlock(descriptor: int) -> None:
    """Give back what `try_lock` gave."""
    _held.discard(descriptor)
    os.close(descriptor)
