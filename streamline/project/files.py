"""Write files by rename: readers see the old content or the new, never a part of it."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from streamline.errors import disk_errors

_numbers = itertools.count()


def replace_file(path: Path, data: str | bytes, *, mode: int | None = None, durable: bool = False) -> None:
    """Write a whole file. A symbolic link stays one.

    Args:
        mode: its permissions; None: those of the file that it replaces, else what the umask allows.
        durable: flush the file to the disk before the rename.

    Raises:
        DiskFull: there is no space for it. What was there stays.
    """
    if path.is_symlink():
        path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        with disk_errors(path), open(os.open(temporary, flags, 0o666 if mode is None else mode), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if mode is None and path.exists():
            temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
