"""Folders that appear whole: written beside their place, then swapped into it by a rename.

A reader sees the old folder or the new one, never a mixture. What a killed writer left is told by its name and
deleted by the pipeline's next run (`clear_leftovers`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_MARK = ".writing-"
_OLD = ".replaced-"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_SYNC_FILE_RANGE_WRITE = 2
# Up to here, single files are flushed one by one: the file system may hold much that is others'.
_FEW_FILES = 24

_numbers = itertools.count()


def new_sibling(folder: Path) -> Path:
    """Return a path beside `folder` for its replacement. Nothing exists there yet."""
    return folder.parent / f"{_MARK}{folder.name}-{os.getpid()}-{next(_numbers)}"


def make_folder(path: Path) -> None:
    """Make the folder that `new_sibling` named, and its parents where they are not there."""
    try:
        path.mkdir(0o700)
    except FileExistsError:  # of a killed process that had this process's id
        remove(path)
        path.mkdir(0o700)
    except FileNotFoundError:
        _make_parents(path.parent)
        path.mkdir(0o700)


def write_file(path: Path, data: bytes) -> None:
    """Write a whole new file for nobody else to see; its parents are made where they are not there."""
    try:
        descriptor = os.open(path, NEW_FILE, 0o600)
    except FileNotFoundError:
        _make_parents(path.parent)
        descriptor = os.open(path, NEW_FILE, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file or a folder with all that is in it, as far as that goes."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def _make_parents(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)
    # Few folders, once: what is to survive a power cut needs its parents to.
    for path in missing:
        sync(path.parent)


def publish(written: Path, folder: Path, *, durable: bool) -> None:
    """Put what is at `written` in the place of `folder`, whose old content is deleted.

    Args:
        written: a folder, or a single file: a path from `new_sibling`.
        durable: the files are on the disk before the swap, and the swap before this returns.
    """
    if durable:
        for path in _walk(written):
            sync(path)
    old = _swap(written, folder)
    if durable:
        sync(folder.parent)
    if old is not None:
        remove(old)


def _swap(written: Path, folder: Path) -> Path | None:
    """Rename, and return where the old content is now, if there was any."""
    try:
        written.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise
    else:
        return None
    exchange = _exchange()
    if exchange is not None and exchange(written, folder):
        return written
    # No atomic exchange on this system. Between the two renames nothing is there; `clear_leftovers` knows the name.
    old = folder.parent / f"{_OLD}{folder.name}"
    remove(old)
    folder.rename(old)
    written.rename(folder)
    return old


@functools.cache
def _exchange() -> Callable[[Path, Path], bool] | None:
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]

    def exchange(first: Path, second: Path) -> bool:
        done = renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
        return bool(done == 0)

    return exchange


def clear_leftovers(pipeline_folder: Path) -> None:
    """Delete what killed writers left in the folder of a pipeline's outputs; finish a swap that was broken off.

    Nobody may be writing there: the caller holds the pipeline's lease.
    """
    for block in _entries(pipeline_folder):
        if not _clear(block):
            for child in _entries(block):
                _clear(child)


def _clear(path: Path) -> bool:
    if path.name.startswith(_OLD):
        place = path.with_name(path.name.removeprefix(_OLD))
        if not place.exists():
            with contextlib.suppress(OSError):
                path.rename(place)
                return True
    elif not path.name.startswith(_MARK):
        return False
    remove(path)
    return True


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def sync_tree(folder: Path) -> None:
    """Flush everything in `folder`, and its name, to the disk. For many small outputs at once.

    Raises:
        OSError: the disk says that something could not be written.
    """
    paths = list(itertools.islice(_walk(folder), _FEW_FILES + 1))
    if len(paths) > _FEW_FILES and _sync_file_system(folder):
        return
    for path in _walk(folder):
        sync(path)
    sync(folder.parent)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield every file, then the folder that holds it."""
    if not folder.is_dir():
        yield folder
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))
            else:
                yield Path(entry.path)
    yield folder


def _sync_file_system(folder: Path) -> bool:
    import ctypes

    try:
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return False
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if syncfs(descriptor) == 0:
            return True
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EINVAL):
            return False
        raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)


class EarlyWrites:
    """Starts writing to disk what has been written so far, so that the flush at the end has little to do."""

    def __init__(self, path: Path | str) -> None:
        self._begin = _sync_file_range()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if self._begin is not None else -1

    def __call__(self) -> None:
        """Start. Errors show when the file is flushed."""
        if self._begin is not None:
            self._begin(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


@functools.cache
def _sync_file_range() -> Callable[[int], object] | None:
    import ctypes

    try:
        function = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return lambda descriptor: function(descriptor, 0, 0, _SYNC_FILE_RANGE_WRITE)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
