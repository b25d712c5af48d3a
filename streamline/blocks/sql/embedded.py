"""Run SQL in an embedded DuckDB over the outputs of upstream blocks, and write the result to a Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from streamline.blocks.call import BlockCall
from streamline.blocks.sql import template
from streamline.blocks.sql.settings import SQLSettings
from streamline.blocks.sql.statements import Statement, split
from streamline.blocks.sql.views import Views
from streamline.databases.arrow import unique_names
from streamline.databases.database import Database
from streamline.databases.duckdb import MEMORY, DuckDB
from streamline.outputs.values import ParquetFile

if TYPE_CHECKING:
    import pyarrow as pa


def run(call: BlockCall, settings: SQLSettings, text: str) -> Any:
    """Run the block's statements. Return the rows of the last one that returns any: a file, or a table."""
    with DuckDB({"DUCKDB_DATABASE": MEMORY}, origin=call.where, root=call.project.root) as database:
        # DuckDB spills to the run's temporary folder, not to the project's folder.
        database.execute("set temp_directory = ?", [str(call.scratch / "spilled")])
        views = Views(call, database)
        sent = template.render(call, text, views.referred)
        statements = split(sent, "duckdb")
        views.make(statements)
        with views.explaining():
            return _run(call, settings, database, statements, text, sent)


def _run(
    call: BlockCall, settings: SQLSettings, database: DuckDB, statements: Sequence[Statement], text: str, sent: str
) -> Any:
    last = max((index for index, statement in enumerate(statements) if statement.may_give_rows), default=-1)
    output = None
    for index, statement in enumerate(statements):
        with template.located(call, text, sent, statement):
            if index != last:
                database.execute(statement.text)
            elif statement.is_select:
                select = statement.text
                if settings.limit is not None:
                    select = f"from (\n{select}\n) limit {settings.limit}"
                output = _copied(call, database, select)
            else:
                output = _rows(database, statement.text, settings.limit)
    return output


def _copied(call: BlockCall, database: DuckDB, select: str) -> Any:
    """Copy the rows to a file without converting them to Python objects."""
    described = database.described(select)
    if any(kind == "INTERVAL" for _, kind in described):
        return _rows(database, select, None)  # no reader supports Parquet's intervals
    path = call.scratch / "output.parquet"
    target = str(path).replace("'", "''")
    written: list[int] = []

    def copy(wide: str) -> None:
        plain = database.plain_select(select, described, wide=wide)
        row = database.connection.execute(f"copy (\n{plain}\n) to '{target}' (format parquet)").fetchone()
        assert row is not None  # COPY returns the number of rows
        written.append(int(row[0]))

    database.widening(described, copy)
    names = unique_names([name for name, _ in described])
    return ParquetFile(
        path, rows=written[-1], columns=[(name, kind) for name, (_, kind) in zip(names, described, strict=True)]
    )


def _rows(database: Database, statement: str, limit: int | None) -> pa.Table | None:
    rows = database.query(statement)
    return rows if rows is None or limit is None else rows.slice(0, limit)
