"""Run SQL in the user's database: upload upstream data, run the statements, write the last SELECT to a table."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
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
    """Run the block's statements in its database."""
    return _Run(call, settings, text, profiles).run()


class _Run:
    def __init__(self, call: BlockCall, settings: SQLSettings, text: str, profiles: Profiles) -> None:
        self.call = call
        self.settings = settings
        self.text = text
        self.profiles = profiles
        self.sent = text

    def run(self) -> pa.Table | None:
        database: Database = self.profiles.open(self.settings, self.call.where)
        staging = Staging(self.call, self.settings, self.profiles, database)
        with database:
            self.sent = template.render(self.call, self.text, staging.referred)
            statements = split(self.sent, database.provider)
            try:
                with staging.explaining():
                    staging.make(statements)
                    rows = self._raw(database, statements) if self.settings.raw else self._written(database, statements)
            finally:
                staging.remove()
        return rows

    def _written(self, database: Database, statements: Sequence[Statement]) -> pa.Table | None:
        """Run all statements in a transaction and write the last SELECT to the table."""
        last = max((index for index, statement in enumerate(statements) if statement.is_select), default=-1)
        if last < 0:
            return self._raw(database, statements)
        rows = None
        with database.transaction():
            for index, statement in enumerate(statements):
                with template.located(self.call, self.text, self.sent, statement):
                    if index == last:
                        rows = self._write(database, statement)
                    else:
                        database.execute(statement.text)
        return self._limited(rows)

    def _write(self, database: Database, statement: Statement) -> pa.Table:
        name = self.settings.table or default_table(self.call.pipeline, self.call.block.uuid, database)
        schema = self.settings.schema if database.provider != "mysql" else None
        rows = database.write_query(statement.text, name, schema, self.settings.policy)
        count = f"{rows.num_rows:,} row{'' if rows.num_rows == 1 else 's'}"
        self.call.log(f"{count} written to {database.shown(name, schema)} ({self.settings.policy})")
        return rows

    def _raw(self, database: Database, statements: Sequence[Statement]) -> pa.Table | None:
        """Run the statements unchanged, in a transaction unless they contain statements that cannot be in one."""
        alone = any(statement.stands_alone for statement in statements) or (
            len(statements) == 1 and statements[0].words[:1] in (("CALL",), ("EXEC",), ("EXECUTE",))
        )
        reads = all(statement.is_select for statement in statements)
        rows = None
        with contextlib.nullcontext() if alone or reads else database.transaction():
            for statement in statements:
                with template.located(self.call, self.text, self.sent, statement):
                    if not statement.may_give_rows:
                        database.execute(statement.text)
                    elif (result := database.query(statement.text)) is not None:
                        rows = result
        if alone and database.in_transaction:
            self.call.warn(f"{self.call.where}: a transaction was never committed and is rolled back")
        return self._limited(rows)

    def _limited(self, rows: pa.Table | None) -> pa.Table | None:
        limit = self.settings.limit
        return rows if rows is None or limit is None else rows.slice(0, limit)
