"""Storage for the files of one output: a folder, or memory (outputs that must never reach a disk)."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import IO, TypeAlias

from streamline.errors import DiskFull, is_disk_full
from streamline.outputs.errors import OutputError
from streamline.outputs.folders import NEW_FILE, EarlyWrites, make_folder, write_file

# Bytes of one value, and of all values of an output, that go into the manifest.
_LARGEST_INLINE = 1 << 13
_MOST_INLINE = 1 << 20

Key = Callable[[], bytes]
"""Returns the key that pickles are signed with."""


class FolderStorage:
    """Files in a folder, readable by their owner only (0600).

    Args:
        folder: the folder; created with its first file.
        key: returns the project's key for signing pickles; None: pickles are not signed.
        durable: the files are flushed to the disk when all of them are written.
    """

    def __init__(self, folder: Path, key: Key | None, *, durable: bool = False) -> None:
        self.folder = folder
        self.key = key
        self.durable = durable
        self.made = False
        self._room = _MOST_INLINE

    def inline(self, size: int) -> bool:
        """Return whether a value of so many bytes is stored in the manifest instead of a file."""
        if size > _LARGEST_INLINE or size > self._room:
            return False
        self._room -= size
        return True

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file."""
        self.make()
        write_file(self.path(name), data)

    def make(self) -> None:
        """Create the folder once.

        Raises:
            OutputError: the folder cannot be created.
        """
        if self.made:
            return
        try:
            make_folder(self.folder)
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(self.folder.parent) from error
            reason = error.strerror or str(error)
            raise OutputError(
                f"the output cannot be stored: {reason}", where=str(self.folder.parent), code="output.not_written"
            ) from error
        self.made = True

    def create(self, name: str) -> IO[bytes]:
        """Create a file and open it for writing."""
        return open(self._new(name), "wb")

    def target(self, name: str) -> str:
        """Create a file for a Parquet writer; return its path (in memory: a file object)."""
        os.close(self._new(name))
        return f"{self.folder}/{name}"

    def early(self, name: str) -> AbstractContextManager[Callable[[], None]]:
        """Return a function that starts flushing a file while it is written (`EarlyWrites`)."""
        return EarlyWrites(f"{self.folder}/{name}") if self.durable else _never()

    def take(self, name: str, path: Path) -> None:
        """Move the file at `path` here."""
        self.make()
        goal = self.path(name)
        try:
            path.rename(goal)
        except OSError:  # another file system
            shutil.move(path, goal)
        goal.chmod(0o600)

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        with open(f"{self.folder}/{name}", "rb") as file:
            return file.read()

    @contextmanager
    def view(self, name: str) -> Iterator[memoryview]:
        """Map a whole file into memory without a copy."""
        with open(f"{self.folder}/{name}", "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                yield memoryview(b"")
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                yield view

    def source(self, name: str) -> str:
        """Return what Parquet readers take: the path (in memory: a file object)."""
        return f"{self.folder}/{name}"

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        self.path(name).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Return the path of a file (in memory: None)."""
        return self.folder / name

    def _new(self, name: str) -> int:
        self.make()
        return os.open(f"{self.folder}/{name}", NEW_FILE, 0o600)


class MemoryStorage:
    """Files in memory; see `FolderStorage`. Pickles are not signed: whoever can change them can change the process."""

    key: Key | None = None

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self._written: dict[str, BytesIO] = {}
        self._files = files or {}

    def inline(self, size: int) -> bool:
        return False

    def put(self, name: str, data: bytes) -> None:
        self._files[name] = data

    def create(self, name: str) -> IO[bytes]:
        return self.target(name)

    def target(self, name: str) -> BytesIO:
        self._written[name] = _Kept()
        return self._written[name]

    def early(self, name: str) -> AbstractContextManager[Callable[[], None]]:
        return _never()

    def take(self, name: str, path: Path) -> None:
        self._files[name] = path.read_bytes()
        path.unlink()

    def read(self, name: str) -> bytes:
        if name in self._written:
            return self._written[name].getvalue()
        try:
            return self._files[name]
        except KeyError:
            raise OutputError(f"the packed output has no file '{name}'", code="output.damaged") from None

    def view(self, name: str) -> AbstractContextManager[memoryview]:
        return nullcontext(memoryview(self.read(name)))

    def source(self, name: str) -> BytesIO:
        return BytesIO(self.read(name))

    def remove(self, name: str) -> None:
        self._files.pop(name, None)
        self._written.pop(name, None)

    def path(self, name: str) -> None:
        return None

    def files(self) -> dict[str, bytes]:
        """Return the content of all files by name."""
        return {**self._files, **{name: file.getvalue() for name, file in self._written.items()}}


Storage: TypeAlias = FolderStorage | MemoryStorage


def damaged(storage: Storage, file: str, error: Exception) -> OutputError:
    """Return the error for a file of an output that its library cannot read."""
    path = storage.path(file)
    return OutputError(
        f"{file} cannot be read: {error}",
        where=None if path is None else str(path),
        hint="run the block again that stored it",
        code="output.damaged",
    )


def _never() -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None)


class _Kept(BytesIO):
    def close(self) -> None:
        """Do nothing: Parquet writers close their file, and its content is read later."""
