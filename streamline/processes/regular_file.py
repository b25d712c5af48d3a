"""Files that a child process wrote or named: nothing that they are makes a reader wait, or read without end."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO


def open_regular(path: Path, *, follow: bool = True) -> IO[bytes]:
    """Open a file for reading.

    Args:
        follow: follow a symbolic link.

    Raises:
        OSError: it cannot be opened, or is a pipe, a socket or a device.
    """
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("it is not a regular file")
    return os.fdopen(fd, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """Return the content of a file, without following a symbolic link.

    Raises:
        OSError: it is no regular file, cannot be read, or is longer than `limit` bytes.
    """
    with open_regular(path, follow=False) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"it is longer than {limit:,} bytes")
    return data
