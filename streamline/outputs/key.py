"""The project's key for pickles: whoever could write a pickle could run code, so only the project's own are read."""

from __future__ import annotations

import os
from pathlib import Path

from streamline.outputs.errors import OutputError

NAME = "pickle.key"
_LENGTH = 32


def project_key(work_dir: Path) -> bytes:
    """Return the key of the project, created on first use.

    Raises:
        OutputError: the file is there and is no key, or others could write it.
    """
    path = work_dir / NAME
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = work_dir / f".{NAME}-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(os.urandom(_LENGTH))
            file.flush()
            os.fsync(file.fileno())
        # A link fails where another process was first: then that one's key is the key.
        try:
            path.hardlink_to(partial)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not path.exists():
                partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return _read(path)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        key = file.read()
        mode = os.fstat(descriptor).st_mode
    if len(key) != _LENGTH or mode & 0o022:
        what = "can be written by others" if mode & 0o022 else "is not a valid key"
        raise OutputError(
            f"the project's key for pickled outputs {what}",
            where=str(path),
            hint="delete it: a new one is made, and the blocks whose outputs are pickled must run again",
            code="output.key_unusable",
        )
    return key
