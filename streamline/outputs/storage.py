"""Where the files of one output are: a folder, or memory (outputs that must never reach a disk)."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

from streamline.outputs.errors import OutputError
from streamline.outputs.folders import NEW_FILE, EarlyWrites, make_folder, write_file

# Bytes of one value, and of all values of an output, that go into the manifest.
_LARGEST_INLINE = 1 << 13
_MOST_INLINE = 1 << 20

Key = Callable[[], bytes]
"""Gives the key that pickles are signed with, when one is needed."""


class Place(Protocol):
    """A flat set of named files."""

    @property
    def key(self) -> Key | None:
        """What pickles are signed with; None: they are not signed."""
        ...

    def inline(self, size: int) -> bool:
        """Whether a value of so many bytes goes into the manifest instead of a file."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file."""
        ...

    def create(self, name: str) -> IO[bytes]:
        """A new file to write to."""
        ...

    def target(self, name: str) -> Any:
        """What Parquet writers take: the path of a new, empty file, or a file object."""
        ...

    def early(self, name: str) -> AbstractContextManager[Callable[[], None]]:
        """To be called now and then while a long file is being written (`EarlyWrites`)."""
        ...

    def take(self, name: str, path: Path) -> None:
        """Make the file at `path` one of these; it is gone from where it was."""
        ...

    def read(self, name: str) -> bytes:
        """All of a file."""
        ...

    def view(self, name: str) -> AbstractContextManager[memoryview]:
        """All of a file, without a copy of it in memory."""
        ...

    def source(self, name: str) -> Any:
        """What Parquet readers take: a path, or a file object."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        ...

    def path(self, name: str) -> Path | None:
        """The path of a file; None where it is in memory."""
        ...


class FolderStorage:
    """Files in a folder, for nobody else to see (0600).

    Args:
        folder: the folder; it is made when its first file is.
        key: gives the project's key.
        durable: its files are to be flushed to the disk when they are all there.
    """

    def __init__(self, folder: Path, key: Key | None, *, durable: bool = False) -> None:
        self.folder = folder
        self.key = key
        self.durable = durable
        self.made = False
        self._room = _MOST_INLINE

    def inline(self, size: int) -> bool:
        if size > _LARGEST_INLINE or size > self._room:
            return False
        self._room -= size
        return True

    def put(self, name: str, data: bytes) -> None:
        self.make()
        write_file(self.path(name), data)

    def make(self) -> None:
        """Make the folder, if that has not been done.

        Raises:
            OutputError: it cannot be made.
        """
        if self.made:
            return
        try:
            make_folder(self.folder)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(
                f"the output cannot be stored: {reason}", where=str(self.folder.parent), code="output.not_written"
            ) from error
        self.made = True

    def create(self, name: str) -> IO[bytes]:
        return open(self._new(name), "wb")

    def target(self, name: str) -> str:
        os.close(self._new(name))
        return f"{self.folder}/{name}"

    def early(self, name: str) -> AbstractContextManager[Callable[[], None]]:
        return EarlyWrites(f"{self.folder}/{name}") if self.durable else _never()

    def take(self, name: str, path: Path) -> None:
        self.make()
        goal = self.path(name)
        try:
            path.rename(goal)
        except OSError:  # another file system
            shutil.move(path, goal)
        goal.chmod(0o600)

    def read(self, name: str) -> bytes:
        with open(f"{self.folder}/{name}", "rb") as file:
            return file.read()

    @contextmanager
    def view(self, name: str) -> Iterator[memoryview]:
        with open(f"{self.folder}/{name}", "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                yield memoryview(b"")
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                yield view

    def source(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        return self.folder / name

    def _new(self, name: str) -> int:
        self.make()
        return os.open(f"{self.folder}/{name}", NEW_FILE, 0o600)


class MemoryStorage:
    """Files in memory. They are not signed: whoever can change them can change the process."""

    key = None

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
        """Everything that was written."""
        return {**self._files, **{name: file.getvalue() for name, file in self._written.items()}}


def _never() -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None)


class _Kept(BytesIO):
    def close(self) -> None:
        """Writers close what they wrote to; the content is still to be had."""
