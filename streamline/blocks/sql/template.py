"""A block's SQL as it is sent: its templates rendered, and the lines of its file found again.

Templates see what all configuration sees, the run's variables under their own names, and `df_1` … `df_n`: the tables
of the upstream blocks.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from streamline.blocks.call import BlockCall, block_output
from streamline.blocks.sql.lambdas import quote_lambdas
from streamline.blocks.sql.statements import Statement
from streamline.databases.database import DatabaseError
from streamline.errors import ConfigError
from streamline.project.render import Renderer
from streamline.project.yamlfile import read_text

if TYPE_CHECKING:
    from streamline.pipeline.model import Block

TableOf = Callable[[int], str]
_FRAME = re.compile(r"\{\{-?\+?\s*df_(\d+)\s*-?\+?\}\}")


def jinja(block: Block, text: str) -> str:
    """The part of the block's text that is a template: all of it."""
    return text


class ExecutionDate(datetime):
    """A run's date: text as `2026-03-04`, and a datetime for whoever calls its methods."""

    def __str__(self) -> str:
        return self.strftime("%Y-%m-%d")


class Table:
    """A name in templates that stands for an upstream's table. Which ones are used is known when they are rendered."""

    def __init__(self, index: int, table_of: TableOf) -> None:
        self._index = index
        self._table_of = table_of

    def __str__(self) -> str:
        return self._table_of(self._index)

    def __html__(self) -> str:
        return str(self)


def source(block: Any, shown: str) -> str:
    """The block's SQL as it is written.

    Raises:
        ConfigError: the file cannot be read.
    """
    return block.content if block.content is not None else read_text(block.file, shown=shown)


def renderer(call: BlockCall) -> Renderer:
    """What renders a block's own text in a run."""
    # The run's variables have been rendered; once more, and a value from outside could read secrets.
    outputs = block_output(call.inputs, call.block.uuid)
    return Renderer(call.project, call.project.variables, block_output=outputs, runtime=call.variables)


def names(call: BlockCall, table_of: TableOf) -> dict[str, Any]:
    """What templates in SQL know beyond the functions."""
    tables = {one.uuid: Table(index, table_of) for index, one in enumerate(call.inputs)}
    frames = {f"df_{index + 1}": Table(index, table_of) for index in range(len(call.inputs))}
    found: dict[str, Any] = {**tables, **call.kwargs, **call.variables, **frames}
    date = call.kwargs.get("execution_date")
    if isinstance(date, datetime):
        found["execution_date"] = ExecutionDate(*date.timetuple()[:6], date.microsecond, date.tzinfo, fold=date.fold)
    return found


def render(call: BlockCall, text: str, table_of: TableOf) -> str:
    """The text as it is sent.

    Args:
        table_of: gives the quoted name of the table of the upstream block at an index, and learns that it is used.

    Raises:
        ConfigError: a template is wrong; it names file and line.
    """
    return renderer(call).render_text(quote_lambdas(text), where=call.where, names=names(call, table_of))


def check_frames(text: str, upstream: list[str], where: str) -> None:
    """See that every `{{ df_n }}` has an upstream block.

    Raises:
        ConfigError: one has none.
    """
    for found in _FRAME.finditer(text):
        if not 1 <= int(found[1]) <= len(upstream):
            line = text.count("\n", 0, found.start()) + 1
            count = f"{len(upstream)} upstream block{'' if len(upstream) == 1 else 's'}"
            listed = ", ".join(f"df_{index + 1} is {uuid}" for index, uuid in enumerate(upstream))
            raise ConfigError(
                f"there is no df_{found[1]}: the block has {count}",
                where=f"{where}:{line}",
                hint=listed or "add one under upstream_blocks",
            )


def _line_in_file(written: str, sent: str, line: int) -> int:
    """The line of the text as it is written that a line of the text as it was sent came from.

    Templates may give more lines or fewer than they take; lines that stayed as they are show where one is.
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


@contextlib.contextmanager
def located(call: BlockCall, written: str, sent: str, statement: Statement) -> Iterator[None]:
    """A DatabaseError of the body gets the block's file, and the line: the one that the database names, else the
    statement's first.
    """
    try:
        yield
    except DatabaseError as error:
        if error.where is None:
            line = _line_in_file(written, sent, statement.line + (error.line or 1) - 1)
            error.where = f"{call.where}:{line}" if call.block.file is not None else f"{call.where}, line {line}"
        raise
