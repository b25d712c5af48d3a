"""JSONL: one object per line, sent in the bytes that it came in."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from kit.connector import ConnectorError

from ..common.moments import date_time, is_date
from .kinds import join
from .reading import BLOCK_ROWS, BadLines, Block, first_undecodable_line, opened
from .sources import Source

_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = ord('"')
_KINDS = {
    **dict.fromkeys(b"-0123456789", "integer"),
    _STRING: "string",
    ord("t"): "boolean",
    ord("f"): "boolean",
    ord("n"): "null",
    ord("{"): "object",
    ord("["): "array",
}
_DATE_LENGTH = len('"2026-01-31"')


def read(source: Source, path: Path, properties: dict[str, Any], *, everything: bool) -> Iterator[Block]:
    """Yield rows of a file with all their fields, whatever was asked for.

    Raises:
        ConnectorError: the file is broken; named by file and line.
    """
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    kinds: dict[str, set[str]] = {}
    for line, row in _rows(source, path):
        rows.append(row)
        lines.append(line)
        for name, value in row.items():
            column_kinds = kinds.get(name)
            if column_kinds is None:
                column_kinds = kinds[name] = set()
            column_kinds.add(_kind(bytes(value)))
        if len(rows) >= BLOCK_ROWS:
            yield Block(rows, kinds, lines)
            rows, lines, kinds = [], [], {}
    if rows:
        yield Block(rows, kinds, lines)


def infer(source: Source, path: Path, limit: int, kinds_by_column: dict[str, set[str]]) -> int:
    """Add the kinds of the first rows' values to what was found; return how many rows were looked at."""
    count = 0
    for block in read(source, path, {}, everything=True):
        for name, kinds in block.kinds.items():
            kinds_by_column.setdefault(name, set()).update(kinds)
        count += len(block.rows)
        if limit and count >= limit:
            break
    return count


def settle(kinds: set[str]) -> set[str]:
    """Return the kinds of a column unchanged, since nothing is converted."""
    return set(join(kinds))


def _kind(text: bytes) -> str:
    kind = _KINDS[text[0]]
    if kind == "integer":
        return "number" if b"." in text or b"e" in text or b"E" in text else kind
    if kind == "string" and len(text) >= _DATE_LENGTH and text[1:5].isdigit():
        value = text[1:-1].decode("utf-8", "replace")
        if is_date(value):
            return "date"
        if date_time(value) == value:
            return "date-time"
    return kind


def _rows(source: Source, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    encoding: str = source.options["encoding"]
    recode = encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "utf-8-sig", "ascii")
    bad = BadLines(path, skip=source.options["on_bad_line"] == "skip")
    decode = _DECODER.decode
    with opened(path) as file:
        lines = _recoded(path, file, encoding) if recode else file
        for number, line in enumerate(lines, 1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            try:
                row = decode(text)
            except msgspec.DecodeError as error:
                bad.report(number, _why(text, error))
                continue
            except UnicodeDecodeError as error:
                where = first_undecodable_line(path, "utf-8")
                raise ConnectorError(f"{path}:{where}: not valid {encoding}: {error}", "set 'encoding'") from error
            yield number, row
    bad.close()


def _recoded(path: Path, file: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Yield the lines in UTF-8."""
    try:
        for line in io.TextIOWrapper(file, encoding=encoding, newline="\n"):
            yield line.encode()
    except UnicodeError as error:
        where = first_undecodable_line(path, encoding)
        raise ConnectorError(f"{path}:{where}: not valid {encoding}: {error}", "set 'encoding'") from error


def _why(text: bytes, error: msgspec.DecodeError) -> str:
    if text.lstrip()[:1] == b"[":
        return "an array, where an object is needed on each line"
    return f"not a JSON object: {error}"
