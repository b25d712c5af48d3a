"""Errors of databases, at the place in the block's file that they are about."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from streamline.blocks.call import BlockCall
from streamline.blocks.sql.statements import Statement
from streamline.blocks.sql.template import line_in_file
from streamline.databases.database import DatabaseError


@contextlib.contextmanager
def located(call: BlockCall, written: str, sent: str, statement: Statement) -> Iterator[None]:
    """A DatabaseError of the body gets the block's file, and the line: the one that the database names, else the
    statement's first.
    """
    try:
        yield
    except DatabaseError as error:
        if error.where is None:
            line = line_in_file(written, sent, statement.line + (error.line or 1) - 1)
            error.where = f"{call.where}:{line}" if call.block.file is not None else f"{call.where}, line {line}"
        raise
