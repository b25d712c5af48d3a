"""CSV: cells are texts, and each column's schema says what they are read as.

A cell that does not look like what its column should hold is sent as the text that it is.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from kit.connector import ConnectorError

from ..common.moments import date_time, is_date
from .kinds import join, kinds_of
from .reading import BLOCK_ROWS, BadLines, Block, first_undecodable_line, opened
from .sources import Source

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_VALUES = frozenset(("integer", "number", "boolean", "date", "date-time"))
QUOTED_EMPTY = "\0quoted"
"""Stands for a cell that is an empty text in quotes until its column is converted."""
_SCALE, _PADDED = "decimals ", " with zeros at the end"
"""Parts of the kinds that `infer` notes for numbers with a point; `settle` makes the column's kind of them."""
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def read(source: Source, path: Path, properties: dict[str, Any], *, everything: bool) -> Iterator[Block]:
    """Yield rows of a file, read as the properties' schemas say; other columns as texts, if `everything` is set.

    Raises:
        ConnectorError: the file is broken, or lacks a column that was asked for; named by file and line.
    """
    rows = _rows(source, path)
    header = next(rows, None)
    if header is None:
        return
    names = header[1]
    # A file that lacks a column gives rows without it; without any that was asked for, it is another file.
    columns = [(place, name) for place, name in enumerate(names) if everything or name in properties]
    if not any(name in properties for _, name in columns):
        raise ConnectorError(f"{path}: none of the columns {', '.join(properties)}", f"it has {', '.join(names)}")
    wanted = {name: kinds_of(properties.get(name, {"type": "string"})) for _, name in columns}
    nulls = frozenset(source.options["null_values"])
    for lines, cells in _blocks(rows):
        by_column = list(zip(*cells, strict=True))
        values: list[Sequence[Any]] = []
        kinds: dict[str, set[str]] = {}
        for place, name in columns:
            converted, kinds[name] = _convert(by_column[place], wanted[name], nulls)
            values.append(converted)
        keys = [name for _, name in columns]
        yield Block([dict(zip(keys, row, strict=True)) for row in zip(*values, strict=True)], kinds, lines)


def infer(source: Source, path: Path, limit: int, kinds_by_column: dict[str, set[str]]) -> int:
    """Add the kinds of the first rows' cells to what was found; return how many rows were looked at."""
    rows = _rows(source, path)
    header = next(rows, None)
    if header is None:
        return 0
    names = header[1]
    for name in names:
        kinds_by_column.setdefault(name, set())
    nulls = frozenset(source.options["null_values"])
    count = 0
    for lines, cells in _blocks(rows):
        for name, column in zip(names, zip(*cells, strict=True), strict=True):
            kinds = kinds_by_column[name]
            if "string" not in kinds:
                kinds.update(_kind(cell) for cell in set(column) - nulls - {QUOTED_EMPTY})
                if kinds and settle(kinds) == {"string"}:
                    # Numbers among texts are texts as well: no further cell changes that.
                    kinds.add("string")
        count += len(lines)
        if limit and count >= limit:
            break
    return count


def settle(kinds: set[str]) -> set[str]:
    """Return the kind of a column of texts; dates among timestamps are midnights.

    A number does not keep how it was spelt. So numbers that end in zeros are numbers only where all have as many
    decimals, as prices have; codes such as 1.9 and 1.10 are texts.
    """
    scales = {kind for kind in kinds if kind.startswith(_SCALE)}
    if scales:
        rest = kinds - scales
        padded = any(kind.endswith(_PADDED) for kind in scales)
        if padded and (len({kind.removesuffix(_PADDED) for kind in scales}) > 1 or rest & {"integer", "number"}):
            return {"string"}
        kinds = rest | {"number"}
    if kinds == {"date", "date-time"}:
        return {"date-time"}
    joined = join(kinds)
    return set(joined) if len(joined) == 1 else {"string"}


def _kind(cell: str) -> str:
    if _NUMBER.fullmatch(cell):
        if _INTEGER.fullmatch(cell):
            return "integer" if cell != "-0" else "string"
        _, point, decimals = cell.partition(".")
        if "e" in decimals.lower() or not point:
            return "number" if repr(float(cell)) == cell else "string"
        return f"{_SCALE}{len(decimals)}{_PADDED if cell[-1] == '0' else ''}"
    if cell in _BOOLEANS:
        return "boolean"
    if is_date(cell):
        return "date"
    return "date-time" if cell[:1].isdigit() and date_time(cell) else "string"


def _convert(cells: Sequence[str], wanted: set[str], nulls: frozenset[str]) -> tuple[Sequence[Any], set[str]]:
    """Return the cells as JSON values, and the kinds of those values."""
    quoted = QUOTED_EMPTY in cells
    if quoted and not wanted & _VALUES:
        texts = ["" if cell == QUOTED_EMPTY else None if cell in nulls else cell for cell in cells]
        return texts, {"string"} if nulls.isdisjoint(cells) else {"string", "null"}
    if quoted:
        # An empty text is a text; a number or a date that is empty is none, in quotes or not.
        nulls = nulls | {QUOTED_EMPTY}
    kinds = {"null"} if not nulls.isdisjoint(cells) else set()
    if "integer" in wanted or "number" in wanted:
        values = [None if cell in nulls else _number(cell) for cell in cells]
    elif "boolean" in wanted:
        values = [None if cell in nulls else _BOOLEANS.get(cell, cell) for cell in cells]
    elif "date-time" in wanted:
        values = [None if cell in nulls else date_time(cell) or cell for cell in cells]
        fit = all(cell in nulls or date_time(cell) for cell in cells)
        return values, kinds | {"date-time" if fit else "string"}
    elif "date" in wanted:
        fit = all(cell in nulls or is_date(cell) for cell in cells)
        return [None if cell in nulls else cell for cell in cells], kinds | {"date" if fit else "string"}
    else:
        return [None if cell in nulls else cell for cell in cells], kinds | {"string"}
    types = set(map(type, values))
    kinds |= {name for type_, name in _KINDS.items() if type_ in types}
    return values, kinds


_KINDS: dict[type, str] = {int: "integer", msgspec.Raw: "number", bool: "boolean", str: "string"}


def _number(cell: str) -> Any:
    """Return an integer, the text of any other number as it stands, or the cell."""
    if _INTEGER.fullmatch(cell):
        # Python refuses to parse thousands of digits; they pass as they are.
        return int(cell) if len(cell) < 1000 else msgspec.Raw(cell.encode())
    return msgspec.Raw(cell.encode()) if _NUMBER.fullmatch(cell) else cell


def _blocks(rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[list[int], list[list[str]]]]:
    lines: list[int] = []
    cells: list[list[str]] = []
    for line, row in rows:
        lines.append(line)
        cells.append(row)
        if len(lines) >= BLOCK_ROWS:
            yield lines, cells
            lines, cells = [], []
    if lines:
        yield lines, cells


def _rows(source: Source, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells: first the header's, then those of rows with as many cells."""
    options = source.options
    bad = BadLines(path, skip=options["on_bad_line"] == "skip")
    csv.field_size_limit(sys.maxsize)
    with opened(path) as file:
        text = io.TextIOWrapper(file, encoding=options["encoding"], newline="")
        try:
            for _ in range(options["skip_rows"]):
                text.readline()
            yield from _checked(_Lines(text, options["skip_rows"]), source, path, bad)
        except UnicodeDecodeError as error:
            line = first_undecodable_line(path, options["encoding"])
            message = f"{path}:{line}: not in {options['encoding']}: {error.reason}"
            raise ConnectorError(message, "set 'encoding'") from error
    bad.close()


class _Lines:
    """The file's lines, of which those of the row that is being read can be read again.

    Args:
        number: lines that were read before.
    """

    def __init__(self, text: Iterable[str], number: int) -> None:
        self._text = text
        self._again: deque[str] = deque()
        self.number = number
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        again, taken = self._again, self.taken
        while again:
            self.number += 1
            taken.append(again[0])
            yield again.popleft()
        for line in self._text:
            self.number += 1
            taken.append(line)
            yield line

    def drop_broken(self, is_row: Callable[[str], bool]) -> None:
        """Drop the row that is being read: its first line alone if another of its lines is a row by itself."""
        if any(map(is_row, self.taken[1:])):
            # A quote that is not closed takes in all lines to the next one.
            self._again.extendleft(reversed(self.taken[1:]))
            self.number -= len(self.taken) - 1
        self.taken.clear()


def _checked(lines: _Lines, source: Source, path: Path, bad: BadLines) -> Iterator[tuple[int, list[str]]]:
    quote = source.options["quote_char"]

    def new_reader() -> Any:
        return csv.reader(lines, delimiter=source.delimiter, quotechar=quote, strict=True)

    reader = new_reader()
    empty = quote * 2
    names: list[str] | None = None
    taken = lines.taken
    while True:
        line = lines.number + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            bad.report(line, f"broken CSV: {error}")
            lines.drop_broken(partial(_is_row, source, None if names is None else len(names)))
            reader = new_reader()
            continue
        if row is None:
            return
        if not row:
            if names is None or len(names) > 1:
                taken.clear()
                continue
            row = [""]
        elif names is not None and "" in row and any(empty in text for text in taken):
            row = _marked(row, "".join(taken), quote, source.delimiter)
        taken.clear()
        if names is None:
            names = _names(row, source, path, line)
            yield line, names
            if source.options["header"]:
                continue
        if len(row) != len(names):
            bad.report(line, f"{len(row)} cells, where {len(names)} columns are")
            continue
        yield line, row


def _is_row(source: Source, columns: int | None, line: str) -> bool:
    """Return whether a line is a row by itself, with quotes around whole cells only."""
    quote, end = re.escape(source.options["quote_char"]), re.escape(source.delimiter)
    cell = rf"(?:{quote}(?:[^{quote}]|{quote}{quote})*{quote}|[^{quote}{end}]*)"
    if re.fullmatch(rf"{cell}(?:{end}{cell})*", line.rstrip("\r\n")) is None:
        return False
    reader = csv.reader([line], delimiter=source.delimiter, quotechar=source.options["quote_char"])
    return columns is None or len(next(reader)) == columns


def _marked(row: list[str], text: str, quote: str, delimiter: str) -> list[str]:
    """Return the row, its empty cells marked where quotes stand in the text that it was read from."""
    q, end = re.escape(quote), re.escape(delimiter)
    matches = re.finditer(rf"(?:{q}((?:[^{q}]|{q}{q})*){q}|[^{end}]*)(?:{end}|$)", text.rstrip("\r\n"))
    cells = [match[1] for match, _ in zip(matches, row, strict=False)]
    if len(cells) != len(row):
        return row
    return [QUOTED_EMPTY if value == "" == inside else value for value, inside in zip(row, cells, strict=True)]


def _names(row: list[str], source: Source, path: Path, line: int) -> list[str]:
    column_names = source.options["columns"]
    if column_names is not None:
        if len(column_names) != len(row):
            raise ConnectorError(f"{path}:{line}: {len(row)} cells, but setting 'columns' names {len(column_names)}")
        return [str(name) for name in column_names]
    if not source.options["header"]:
        return [f"column_{number}" for number in range(1, len(row) + 1)]
    names = [name.strip() or f"column_{number}" for number, name in enumerate(row, 1)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConnectorError(f"{path}:{line}: two columns are named {twice[0]!r}", "name them with 'columns'")
    return names
