"""Reads the files that a path means, as they grow, appear, are rotated and go.

A file is known by its inode, so that a log that was renamed is read to its end and not read again under its new name.
A look at the files (`_look`) says which of them have more than was read; these are read, one after the other, as far as
they went then.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from streamline.connectors.files.records import COLUMNS, Record
from streamline.connectors.files.settings import FileSettings
from streamline.connectors.files.tracked_file import FilePart, TrackedFile
from streamline.errors import StreamlineError
from streamline.flow.items import FORGOTTEN, MessageBatch, Origin

MAX_OPEN = 100
BATCH_BYTES = 1 << 20

ROTATED_SECONDS = 5.0
"""So long after the last change, nothing more is written to a file that was renamed: programs reopen their logs."""

Read: TypeAlias = tuple[MessageBatch | None, dict[str, bytes]]
"""Records, and the parts of the position behind them."""

Inode: TypeAlias = tuple[int, int]
"""Number of a file, and of its device."""


class FilesMissing(StreamlineError):
    """There is no file to read."""

    code = "files.missing"


class FileReader:
    """Gives the records of files. Used by one thread at a time.

    Args:
        start: saved parts of the position.
        root: what paths in positions are relative to.
        until_caught_up: read only what there is at the first look.
        note: writes a line to the run's log, with its level.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        id: str,
        settings: FileSettings,
        start: Mapping[str, bytes],
        *,
        root: Path,
        until_caught_up: bool = False,
        note: Callable[[str, str], None] = lambda message, level: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._id = id
        self._settings = settings
        self._root = root
        self._until_caught_up = until_caught_up
        self._note = note
        self._clock = clock
        self._saved = {key: msgspec.json.decode(value, type=FilePart) for key, value in start.items()}
        self._parts: dict[str, bytes] = dict(start)
        self._fresh = not start
        self._files: dict[str, TrackedFile] = {}
        self._keys: dict[Inode, str] = {}
        self._ready: deque[tuple[TrackedFile, int | None]] = deque()
        """Files that have more, and how far they are read before the next look."""
        self._ends: dict[Inode, int] = {}
        """Sizes at the first look."""
        self._looked = False
        self._moved = False
        self.caught_up = False
        """Whether all that is to be read was given."""

    def read(self, confirmed: Sequence[Mapping[str, bytes]] = ()) -> Read | None:
        """Return what is read next; None: nothing is there now.

        Args:
            confirmed: parts that were saved.

        Raises:
            StreamlineError: files cannot be read.
        """
        try:
            return self._read(confirmed)
        except OSError as error:
            where = str(error.filename or self._settings.path)
            raise StreamlineError(
                f"cannot read: {error.strerror or error}", where=where, code="files.unreadable"
            ) from None

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    # -- reading

    def _read(self, confirmed: Sequence[Mapping[str, bytes]]) -> Read | None:
        for parts in confirmed:
            for key, value in parts.items():
                if value == FORGOTTEN and self._parts.get(key) == FORGOTTEN:
                    del self._parts[key]
        if not self._ready:
            self._look()
        values: list[bytes] = []
        origins: list[Origin | None] = []
        read: list[TrackedFile] = []
        nbytes = 0
        size = self._settings.records.batch_size
        while self._ready and len(values) < size and nbytes < BATCH_BYTES:
            file, limit = self._ready[0]
            if not file.pending and not self._load(file, limit):
                self._ready.popleft()
                if file not in read:
                    read.append(file)
                continue
            if not read or read[-1] is not file:
                read.append(file)
            while file.pending and len(values) < size and nbytes < BATCH_BYTES:
                record = file.pending.popleft()
                file.given = record.end
                nbytes += len(record.value)
                values.append(record.value)
                origins.append(self._origin(file, record))
        for file in read:
            self._note_part(file)
        self._close_some()
        if not self._moved and not values:
            if self._until_caught_up and not self.caught_up:
                self._look()
            return None
        self._moved = False
        return MessageBatch(self._id, values, origins) if values else None, dict(self._parts)

    def _load(self, file: TrackedFile, limit: int | None) -> bool:
        """Fill the records of a file that wait to be given; False: it has no more for now."""
        try:
            while not file.pending:
                if file.load(limit):
                    continue
                if not self._is_complete(file, limit):
                    return False
                file.finish()
                if file.compressed:
                    file.whole = self._size(file)
                if not file.pending:
                    return False
        except FileNotFoundError:
            return False  # the next look finds out where it is
        return True

    def _is_complete(self, file: TrackedFile, limit: int | None) -> bool:
        """Return whether a last line without an end is a record."""
        if file.compressed:
            return True
        if not file.listed:
            return self._has_ended(file)
        if self._settings.settle is None or (limit is not None and self._size(file) > limit):
            return False
        return self._clock() - file.status().st_mtime >= self._settings.settle

    def _has_ended(self, file: TrackedFile) -> bool:
        """Return whether nothing more is written to a file that was renamed or removed."""
        return self._until_caught_up or self._clock() - file.status().st_mtime >= ROTATED_SECONDS

    def _size(self, file: TrackedFile) -> int:
        try:
            return file.status().st_size
        except OSError:
            return file.read_to

    def _origin(self, file: TrackedFile, record: Record) -> Origin:
        headers: list[tuple[str, bytes | None]] | None = None
        if file.columns is not None:
            headers = [(COLUMNS, file.columns)]
        return Origin(file.shown, 0, record.start, None, record.value, headers)

    def _note_part(self, file: TrackedFile) -> None:
        key = self._keys.get(file.inode)
        if key is None:
            return
        part = file.part()
        if self._parts.get(key) != part:
            self._parts[key] = part
            self._moved = True

    def _close_some(self) -> None:
        waiting = {file.inode for file, _ in self._ready}
        idle = [file for file in self._files.values() if file.is_open and file.inode not in waiting]
        if self._settings.settle is None:
            idle = idle[MAX_OPEN:]
        for file in idle:
            file.close()

    # -- looking

    def _look(self) -> None:
        """Find out which files there are, and which have more to read."""
        first, self._looked = not self._looked, True
        found = self._found(first)
        now = self._clock()
        if first:
            self._find_renamed(found)
            self._ends = {inode: status.st_size for inode, (_, status) in found.items()}
        for file in self._files.values():
            file.listed = file.inode in found
        unlisted = [file for file in self._files.values() if not file.listed]
        for file in unlisted:
            self._end_of(file)
        waits = False
        for inode, (path, status) in found.items():
            if self._until_caught_up and inode not in self._ends:
                continue
            file = self._file_of(inode, path, first, status)
            if file.compressed and file.whole is None:
                if now - status.st_mtime >= (self._settings.settle or 1.0):
                    self._ready.append((file, None))
                else:
                    waits = True
                continue
            if not first and status.st_size != file.read_to and file.changed(status.st_size):
                self._note(f"{file.shown} was cut off or replaced: it is read from its beginning", "INFO")
                file.start_anew()
                self._note_part(file)
            if file.compressed:
                continue
            end = min(status.st_size, self._ends[inode]) if self._until_caught_up else status.st_size
            # What was added to a line since the first look is for the next run.
            settles = file.incomplete and self._settings.settle is not None and status.st_size <= end
            if file.read_to < end or settles:
                self._ready.append((file, end))
        if self._until_caught_up and not self._ready and not waits:
            self.caught_up = True

    def _found(self, first: bool) -> dict[Inode, tuple[Path, os.stat_result]]:
        """Return the files that the path means, the oldest first."""
        path = self._settings.path
        if path.is_dir():
            names = [entry.path for entry in os.scandir(path) if not entry.name.startswith(".")]
        elif glob.has_magic(str(path)) and not path.exists():
            names = glob.glob(str(path), recursive=True)  # noqa: PTH207 (takes an absolute pattern)
        else:
            names = [str(path)]
        found = []
        for name in names:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                status = os.stat(name)  # noqa: PTH116
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime_ns, name, status))
        if first and not found:
            if self._until_caught_up and not path.is_dir() and not glob.has_magic(str(path)):
                raise FilesMissing("the file does not exist", where=str(path), hint="check `path`")
            self._note(f"there is no file yet: {path}", "INFO")
        return {(status.st_ino, status.st_dev): (Path(name), status) for _, name, status in sorted(found, key=_by_age)}

    def _find_renamed(self, found: Mapping[Inode, tuple[Path, os.stat_result]]) -> None:
        """Find files of the saved position that were renamed since, and forget those that are gone."""
        inodes = {str(inode) for inode, _ in found}
        folders: dict[Path, dict[str, tuple[Path, os.stat_result]]] = {}
        for key, part in list(self._saved.items()):
            number = key.rstrip("+")
            if number in inodes:
                continue
            folder = (self._root / part.path).parent
            if folder not in folders:
                folders[folder] = {}
                with contextlib.suppress(OSError):
                    folders[folder] = {
                        str(entry.inode()): (Path(entry.path), entry.stat())
                        for entry in os.scandir(folder)
                        if entry.is_file(follow_symlinks=False)
                    }
            del self._saved[key]
            path, status = folders[folder].get(number, (None, None))
            if path is not None and status is not None:
                file = TrackedFile(path, part.path, (status.st_ino, status.st_dev), self._settings, part)
                if not file.compressed and not file.changed(status.st_size):
                    self._add(key, file)
                    continue
            self._parts[key] = FORGOTTEN
            self._moved = True

    def _file_of(self, inode: Inode, path: Path, first: bool, status: os.stat_result) -> TrackedFile:
        key = self._keys.get(inode)
        if key is not None:
            file = self._files[key]
            file.path, file.shown = path, self._shown(path)
            return file
        key = str(inode[0])
        while key in self._files:
            key += "+"  # the same number on another device
        part = self._saved.pop(key, None)
        file = TrackedFile(path, self._shown(path), inode, self._settings, part)
        if part is not None and file.changed(status.st_size):
            file.start_anew()
        if part is None and first and self._settings.from_end and self._fresh:
            file.skip_to_end(status.st_size)
            self._keys[inode] = key
            self._note_part(file)
        self._add(key, file)
        return file

    def _add(self, key: str, file: TrackedFile) -> None:
        self._files[key] = file
        self._keys[file.inode] = key

    def _end_of(self, file: TrackedFile) -> None:
        """Read a file that was renamed or removed to its end, and forget it."""
        key = self._keys[file.inode]
        if not file.is_open and not self._find(file):
            del self._files[key], self._keys[file.inode]
            self._parts[key] = FORGOTTEN
            self._moved = True
            return
        if file.pending or self._load(file, None):
            self._ready.append((file, None))
            return
        with contextlib.suppress(FileNotFoundError):
            if not self._has_ended(file):
                return
        file.close()
        del self._files[key], self._keys[file.inode]
        self._parts[key] = FORGOTTEN
        self._moved = True

    def _find(self, file: TrackedFile) -> bool:
        """Look in its folder for a file that was renamed."""
        with contextlib.suppress(OSError):
            for entry in os.scandir(file.path.parent):
                if entry.inode() == file.inode[0] and entry.is_file(follow_symlinks=False):
                    file.path = Path(entry.path)
                    return True
        return False

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self._root)) if path.is_relative_to(self._root) else str(path)


def _by_age(found: tuple[int, str, os.stat_result]) -> tuple[int, str]:
    return found[0], found[1]
