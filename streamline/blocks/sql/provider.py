"""Run SQL in the user's database: upload upstream data, run the statements, write the last SELECT to a table."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from streamline.blocks.call import BlockCall
from streamline.blocks.sql import template
from streamline.blocks.sql.settings import Profiles, SQLSettings, default_table
from streamline.blocks.sql.staging import Staging
from streamline.blocks.sql.statements import Statement, split

if TYPE_CHECKING:
    import pyarrow as pa

    from streamline.databases.database import Database


def run(call: BlockCall, settings: SQLSettings, text: str, profiles: Profiles) -> pa.Table | None:
    """Run the block's statements in its database. Return the rows of the last SELECT."""
    database = profiles.open(settings, call.where)
    staging = Staging(call, settings, profiles, database)
    with database:
        rendered = template.render(call, text, staging.referred)
        statements = split(rendered, database.provider)
        located = functools.partial(template.located, call, text, rendered)
        last = max((index for index, statement in enumerate(statements) if statement.is_select), default=-1)
        try:
            with staging.explaining():
                staging.make(statements)
                if settings.raw or last < 0:
                    rows = _run_raw(call, database, statements, located)
                else:
                    with database.transaction():
                        for index, statement in enumerate(statements):
                            with located(statement):
                                if index == last:
                                    rows = _write(call, settings, database, statement)
                                else:
                                    database.execute(statement.text)
        finally:
            staging.remove()
    return rows if rows is None or settings.limit is None else rows.slice(0, settings.limit)


def _write(call: BlockCall, settings: SQLSettings, database: Database, statement: Statement) -> pa.Table:
    """Write the rows of a SELECT to the block's table."""
    name = settings.table or default_table(call.pipeline, call.block.uuid, database)
    schema = settings.schema if database.provider != "mysql" else None
    rows = database.write_query(statement.text, name, schema, settings.policy)
    count = f"{rows.num_rows:,} row{'' if rows.num_rows == 1 else 's'}"
    call.log(f"{count} written to {database.shown(name, schema)} ({settings.policy})")
    return rows


def _run_raw(
    call: BlockCall,
    database: Database,
    statements: Sequence[Statement],
    located: Callable[[Statement], contextlib.AbstractContextManager[None]],
) -> pa.Table | None:
    """Run the statements unchanged, in a transaction unless they contain statements that cannot be in one."""
    alone = any(statement.stands_alone for statement in statements) or (
        len(statements) == 1 and statements[0].words[:1] in (("CALL",), ("EXEC",), ("EXECUTE",))
    )
    reads = all(statement.is_select for statement in statements)
    rows = None
    with contextlib.nullcontext() if alone or reads else database.transaction():
        for statement in statements:
            with located(statement):
                if not statement.may_give_rows:
                    database.execute(statement.text)
                elif (result := database.query(statement.text)) is not None:
                    rows = result
    if alone and database.in_transaction:
        call.warn(f"{call.where}: a transaction was never committed and is rolled back")
    return rows
