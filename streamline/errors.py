"""Errors that users see, named by what happened; each carries where it happened and what to do.

The command line prints `message`, `where` and `hint`, and exits with the class's `exit_code`
(0 done, 1 the pipeline failed, 2 wrong use or configuration seen before anything moved). With `--json` it prints the
`code` too. Codes are stable: programs may depend on them. docs/errors.md lists each with its cause and remedy.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard


class StreamlineError(Exception):
    """Base of every error that is meant for a user.

    Args:
        message: what happened, one sentence.
        where: a file, `file:line`, block, stream or plugin; shown before the message.
        hint: what to do about it, one sentence or a command.
        code: a stable name of the failure, `subject.what_happened`; left out, the class's.
    """

    exit_code = 1
    code: str = "streamline.failed"

    def __init__(
        self, message: str, *, where: str | None = None, hint: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class ConfigError(StreamlineError):
    """Wrong use or wrong configuration, seen before anything moved."""

    exit_code = 2
    code = "config.invalid"


class WrongOption(ConfigError):
    """An option of the command is wrong: there is no run to record."""


class PipelineFailed(StreamlineError):
    """A pipeline, or a part of it, failed. `blocks` names the blocks that did."""

    code = "pipeline.failed"

    def __init__(self, message: str, *, blocks: list[str] | None = None, **rest: str | None) -> None:
        super().__init__(message, **rest)
        self.blocks = blocks or []


class StreamFailed(PipelineFailed):
    """One stream cannot go on; the others of its source can."""

    def __init__(self, stream: str, message: str, *, blocks: list[str] | None = None, **rest: str | None) -> None:
        super().__init__(message, blocks=blocks, **rest)
        self.stream = stream


class LeaseHeld(StreamlineError):
    """Another run of this pipeline is going on."""

    code = "run.lease_held"


class DiskFull(StreamlineError):
    """A file cannot be written, because its disk is full or a quota is used up."""

    code = "disk.full"

    def __init__(self, path: str | Path | None) -> None:
        super().__init__(
            f"the disk is full, or a quota is used up{_free_space(path) if path is not None else ''}",
            where=None if path is None else str(path),
            hint="make space there and run it again; what was saved before is kept, and the rest is done again",
        )


def is_disk_full(error: BaseException) -> TypeGuard[OSError]:
    """Return whether an error of the operating system says that a disk is full or a quota is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Raise the error of a full disk, which names no file where an open one is written, as a DiskFull at `path`."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(path) from error
        raise


def _free_space(path: str | Path) -> str:
    """Return the space that is free for this user where `path` is, in words."""
    for place in (Path(path), *Path(path).parents):
        try:
            disk = os.statvfs(place)
        except OSError:
            continue
        files = ", no file can be added" if disk.f_favail == 0 < disk.f_files else ""
        return f" ({disk.f_bavail * disk.f_frsize >> 10:,} KiB are free{files})"
    return ""
