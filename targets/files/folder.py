"""A stream's folder: files appear in it whole and durable, and a new version takes the place of the old one at once.

<path>/<stream>/                           what readers see, and the names of its versions (`.version-7`)
<path>/.<stream>.version-7/                files of version 7, until it is activated
<path>/.<stream>.replacing-<pid>/          files of `load_method: replace`, until the input ends
<path>/.<stream>.old/                      what was replaced, for a moment
…/.<file>.tmp                              a file that is being written, locked by its process
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_OURS = re.compile(r"(?:v\d+-)?\d{13,}-\d+-\d{6,}\.(?:jsonl|csv|parquet)(?:\.gz)?|\.version-\d+|\..*\.tmp")
"""The names of files that this target writes. All others are somebody else's, and stay."""
_UNSAFE = {"/": "%2F", "\0": "%00", "%": "%25"}


def folder_name(stream: str) -> str:
    """Return a stream's name as a folder name; one that begins with `.` or `_`, which readers ignore, is escaped.

    Raises:
        UnicodeEncodeError: no file system takes it.
    """
    name = "".join(_UNSAFE.get(letter, letter) for letter in stream)
    os.fsencode(name)
    return f"%{ord(name[0]):02X}{name[1:]}" if name[:1] in ("", ".", "_") and name else name or "%"


def sync_folder(path: Path) -> None:
    """Make names that came, went or changed in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Unfinished:
    """A file that is being written; it is invisible before `publish`.

    Attributes:
        file: to be written to.
        final: the path that it will have.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.final = folder / name
        self._path = folder / f".{name}.tmp"
        self.file: IO[bytes] = self._path.open("xb", buffering=256 * 1024)
        # Whoever finds the file can tell by the lock whether its writer is alive.
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def publish(self) -> None:
        """Make its content durable and gives it its name; the name is durable after `sync_folder`."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self._path.rename(self.final)
        self.file.close()

    def discard(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):  # what is not written yet may find no space
            self.file.close()
        self._path.unlink(missing_ok=True)


class StreamFolder:
    """The folders of one stream.

    Args:
        root: the target's folder.
        name: the stream's folder in it.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self.name = name
        self.visible = root / name
        self._old = root / f".{name}.old"
        self._count = 0
        root.mkdir(parents=True, exist_ok=True)
        self._recover()
        sync_folder(root)

    def _recover(self) -> None:
        """End what a killed process had begun."""
        if self._old.exists():
            if self.visible.exists():
                self._remove_old()
            else:
                self._old.rename(self.visible)
        self.visible.mkdir(exist_ok=True)
        for folder in (self.visible, *self._hidden("version-")):
            _remove_abandoned(folder)
        for folder in self._hidden("version-"):
            # Its files were becoming visible one by one.
            if self.shows(int(folder.name.rpartition("-")[2])):
                self.merge(folder)
        for folder in self._hidden("replacing-"):
            # It counts only for the process that made it.
            if not _is_alive(folder.name.rpartition("-")[2]):
                shutil.rmtree(folder)

    def _hidden(self, kind: str) -> Iterator[Path]:
        prefix = f".{self.name}.{kind}"
        for path in sorted(self._root.iterdir()):
            if path.name.startswith(prefix) and path.name[len(prefix) :].isdecimal():
                yield path

    def hidden(self, version: int | None) -> Path:
        """Return the folder where rows of this version or of a replacement wait; delete the folders of others."""
        name = f".{self.name}.replacing-{os.getpid()}" if version is None else f".{self.name}.version-{version}"
        folder = self._root / name
        if version is not None:
            for other in self._hidden("version-"):
                if other != folder:
                    shutil.rmtree(other)
        folder.mkdir(exist_ok=True)
        sync_folder(self._root)
        return folder

    def waiting(self, version: int) -> Path | None:
        """Return the folder where rows of this version wait, if there is one."""
        folder = self._root / f".{self.name}.version-{version}"
        return folder if folder.exists() else None

    def new_file(self, folder: Path, version: int | None, ending: str) -> Unfinished:
        """Return a file in one of the folders; names rise with time."""
        self._count += 1
        prefix = "" if version is None else f"v{version}-"
        name = f"{prefix}{time.time_ns() // 1_000_000:013d}-{os.getpid()}-{self._count:06d}{ending}"
        return Unfinished(folder, name)

    def _files(self) -> list[Path]:
        """Return the files that this target has written, in the folder that readers see."""
        return [path for path in self.visible.iterdir() if path.name[0] != "." and _OURS.fullmatch(path.name)]

    def shows(self, version: int) -> bool:
        """Return whether this version was activated, and what is added is visible at once."""
        return (self.visible / _mark(version)).exists() or any(_version(path.name) == version for path in self._files())

    def show(self, version: int) -> None:
        """Mark a version as activated: it may have no files yet."""
        (self.visible / _mark(version)).touch()
        sync_folder(self.visible)

    def delete_stale(self, version: int, *, unversioned: bool) -> None:
        """Delete files of other versions, and those without one if `unversioned` says so."""
        for path in self._files():
            path_version = _version(path.name)
            if unversioned if path_version is None else path_version != version:
                path.unlink()
        for path in self.visible.glob(_mark("*")):
            path.unlink()
        sync_folder(self.visible)

    def put_in_place(self, folder: Path, version: int | None) -> None:
        """Make a hidden folder, which holds this version, the visible one."""
        if version is not None:
            (folder / _mark(version)).touch()
        sync_folder(folder)
        self.visible.rename(self._old)
        folder.rename(self.visible)
        self._remove_old()
        sync_folder(self._root)

    def _remove_old(self) -> None:
        """Remove the folder that was replaced; files in it that are not ours move into the visible one."""
        for path in list(self._old.iterdir()):
            if not _OURS.fullmatch(path.name):
                path.rename(self.visible / path.name)
        sync_folder(self.visible)
        shutil.rmtree(self._old)

    def merge(self, folder: Path) -> None:
        """Add a hidden folder's files to the visible ones."""
        for path in folder.iterdir():
            path.rename(self.visible / path.name)
        sync_folder(self.visible)
        folder.rmdir()


def _mark(version: int | str) -> str:
    """Return the name of the file that says that a version was activated."""
    return f".version-{version}"


def _version(name: str) -> int | None:
    prefix = name.partition("-")[0]
    return int(prefix[1:]) if prefix[:1] == "v" and prefix[1:].isdecimal() else None


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove_abandoned(folder: Path) -> None:
    """Remove unfinished files whose writer is gone."""
    for path in folder.glob(".*.tmp"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except (BlockingIOError, FileNotFoundError):
            continue
