"""What readers have in common: opened files, blocks of rows, and errors that name file and line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
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
    """The file's bytes, unzipped if it begins like a gzip file.

    Raises:
        ConnectorError: it cannot be read, or ends within its compressed data.
    """
    try:
        with path.open("rb") as file:
            if file.peek(2)[:2] == b"\x1f\x8b":
                with gzip.open(file) as unzipped:
                    yield io.BufferedReader(unzipped, 256 * 1024)
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConnectorError(f"{path}: corrupt compressed data: {error}", "the file may be truncated") from error
    except OSError as error:
        raise ConnectorError(f"{path}: {error.strerror or error}") from error


def first_undecodable_line(path: Path, encoding: str) -> int:
    """The number of the first line that is not in the encoding."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError:
                return number
    return 1
