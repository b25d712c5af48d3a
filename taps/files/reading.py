"""What readers have in common: opened files, blocks of rows, and errors that name file and line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from kit.connector import ConnectorError, log

BLOCK_ROWS = 1000


class Block(NamedTuple):
    """Some rows of a file, ready to be encoded.

    Attributes:
        rows: values are JSON values, or `msgspec.Raw` of JSON texts.
        kinds: what each column was seen to hold.
        lines: where each row begins in its file, from 1; for Parquet its number.
    """

    rows: list[dict[str, Any]]
    kinds: dict[str, set[str]]
    lines: list[int]


class BadLines:
    """What happens to broken lines: the first one fails the run, or all are counted and passed over."""

    def __init__(self, path: Path, *, skip: bool) -> None:
        self._path = path
        self._skip = skip
        self._count = 0

    def report(self, line: int, what: str) -> None:
        """Take note of a broken line.

        Raises:
            ConnectorError: broken lines fail the run.
        """
        if not self._skip:
            raise ConnectorError(f"{self._path}:{line}: {what}", "fix the line, or set on_bad_line: skip")
        self._count += 1
        if self._count <= 10:
            log("WARNING", f"{self._path}:{line}: {what}; skipped")

    def close(self) -> None:
        """Say how many were passed over."""
        if self._count > 10:
            log("WARNING", f"{self._path}: {self._count} broken lines were skipped")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Yield the file's bytes, decompressed if it begins like a gzip, bzip2, xz or zip file.

    Raises:
        ConnectorError: it cannot be read, or ends within its compressed data.
    """
    try:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            start = file.peek(6)[:6]
            unpack = next((unpack for magic, unpack in _UNPACKERS.items() if start.startswith(magic)), None)
            if unpack is None:
                yield file
            else:
                yield io.BufferedReader(stack.enter_context(unpack(file)), 256 * 1024)
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise ConnectorError(f"{path}: corrupt compressed data: {error}", "the file may be truncated") from error
    except OSError as error:
        raise ConnectorError(f"{path}: {error.strerror or error}") from error


@contextmanager
def _member(file: BinaryIO) -> Iterator[Any]:
    with zipfile.ZipFile(file) as archive:
        names = members(archive)
        if len(names) != 1:
            raise ConnectorError(f"{file.name}: a zip file with {len(names)} files", "unpack it")
        if archive.getinfo(names[0]).flag_bits & 1:
            raise ConnectorError(f"{file.name}: a zip file with a password", "unpack it")
        try:
            member = archive.open(names[0])
        except NotImplementedError as error:
            raise ConnectorError(f"{file.name}: cannot be unpacked: {error}", "unpack it") from error
        with member:
            yield member


def members(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the files in a zip file."""
    return [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]


_UNPACKERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"PK\x03\x04": _member,
}


def first_undecodable_line(path: Path, encoding: str) -> int:
    """Return the number of the first line that is not in the encoding."""
    with opened(path) as file:
        lines = enumerate(io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="\n"), 1)
        return next((number for number, line in lines if "\ufffd" in line), 1)
