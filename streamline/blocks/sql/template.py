"""Render the templates of a block's SQL, and map lines of the rendered text to lines of the file.

Templates can use the functions of all configuration, the run's variables by name, and `df_1` … `df_n`: the tables of
the upstream blocks.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from streamline.blocks.call import BlockCall, block_output
from streamline.blocks.sql.statements import Statement
from streamline.databases.base import DatabaseError
from streamline.errors import ConfigError
from streamline.project.render import Renderer

if TYPE_CHECKING:
    from streamline.pipeline.model import Block

TableOf = Callable[[int], str]
_LINES_AROUND = 2
_LONGEST_LINE = 200
_FRAME = re.compile(r"\{\{-?\+?\s*df_(\d+)\s*-?\+?\}\}")


def jinja(block: Block, text: str) -> str:
    """Return the part of the block's text that is a template: all of it."""
    return text


class ExecutionDate(datetime):
    """A run's date: a datetime whose text is `2026-03-04`."""

    def __str__(self) -> str:
        return self.strftime("%Y-%m-%d")


class Table:
    """The table of an upstream block in templates. Rendering it marks the table as used."""

    def __init__(self, index: int, table_of: TableOf) -> None:
        self._index = index
        self._table_of = table_of

    def __str__(self) -> str:
        return self._table_of(self._index)

    def __html__(self) -> str:
        return str(self)


def renderer(call: BlockCall) -> Renderer:
    """Return the renderer for a block's SQL."""
    # The run's variables are not rendered again: a template in a value from outside could read secrets.
    outputs = block_output(call.inputs, call.block.uuid)
    return Renderer(call.project, call.project.variables, block_output=outputs, runtime=call.variables)


def names(call: BlockCall, table_of: TableOf) -> dict[str, Any]:
    """Return the names that SQL templates can use in addition to the functions."""
    tables = {given.uuid: Table(index, table_of) for index, given in enumerate(call.inputs)}
    frames = {f"df_{index + 1}": Table(index, table_of) for index in range(len(call.inputs))}
    values: dict[str, Any] = {**tables, **call.kwargs, **call.variables, **frames}
    date = call.kwargs.get("execution_date")
    if isinstance(date, datetime):
        values["execution_date"] = ExecutionDate(*date.timetuple()[:6], date.microsecond, date.tzinfo, fold=date.fold)
    return values


def render(call: BlockCall, text: str, table_of: TableOf) -> str:
    """Render a block's SQL.

    Args:
        table_of: returns the quoted table name of the upstream block at an index, and marks the table as used.

    Raises:
        ConfigError: a template fails; the error names file and line.
    """
    return renderer(call).render_text(text, where=call.where, names=names(call, table_of))


def check_frames(text: str, upstream: list[str], where: str) -> None:
    """Check that every `{{ df_n }}` has an upstream block.

    Raises:
        ConfigError: an upstream block is missing.
    """
    for frame in _FRAME.finditer(text):
        if not 1 <= int(frame[1]) <= len(upstream):
            line = text.count("\n", 0, frame.start()) + 1
            count = f"{len(upstream)} upstream block{'' if len(upstream) == 1 else 's'}"
            listed = ", ".join(f"df_{index + 1} is {uuid}" for index, uuid in enumerate(upstream))
            raise ConfigError(
                f"df_{frame[1]} does not exist: the block has {count}",
                where=f"{where}:{line}",
                hint=listed or "add a block to upstream_blocks",
                code="block.not_upstream",
            )


def _line_in_file(written: str, sent: str, line: int) -> int:
    """Return the line of the file from which a line of the rendered text came.

    Templates may render to more or fewer lines; unchanged lines tell the position.
    """
    if written == sent:
        return line
    before, after = written.splitlines(), sent.splitlines()
    index = line - 1
    for kind, start, end, from_, to in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if from_ <= index < to:
            same_size = end - start == to - from_
            return (start + index - from_ if kind == "equal" or same_size else min(start, len(before) - 1)) + 1
    return max(1, min(line, len(before)))


def excerpt(sent: str, line: int, mask: Callable[[str], str]) -> str:
    """Return some lines of rendered SQL with their numbers, a line that failed (from 1) among them, masked."""
    lines = sent.splitlines()
    first = max(0, line - 1 - _LINES_AROUND)
    shown = ["rendered SQL:"]
    for number, text in enumerate(lines[first : line + _LINES_AROUND], first + 1):
        masked = mask(text.rstrip())  # before it is cut, or half of a secret would show
        cut = masked if len(masked) <= _LONGEST_LINE else f"{masked[:_LONGEST_LINE]} …"
        shown.append(f"{'>' if number == line else ' '}{number:>4} | {cut}".rstrip())
    return "\n".join(shown)


@contextlib.contextmanager
def located(call: BlockCall, written: str, sent: str, statement: Statement) -> Iterator[None]:
    """Add to a DatabaseError the block's file and line (of the database's report, else the statement's) and the SQL."""
    try:
        yield
    except DatabaseError as error:
        if error.where is None:
            failed = statement.line + (error.line or 1) - 1
            rendered = excerpt(sent, failed, call.project.secrets.masker.mask)
            error.hint = f"{error.hint}\n{rendered}" if error.hint else rendered
            line = _line_in_file(written, sent, failed)
            error.where = f"{call.where}:{line}" if call.block.file is not None else f"{call.where}, line {line}"
        raise
