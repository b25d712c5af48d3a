"""The command `target-duckdb`."""

from __future__ import annotations

from collections.abc import Sequence

from kit.connector import Arguments, Config, Connector, Setting, run

_BATCH_BYTES = 128 * 1024 * 1024
"""DuckDB keeps the rows of a transaction in memory."""

CONNECTOR = Connector(
    name="target-duckdb",
    description="Loads streams into tables of a DuckDB database.",
    capabilities=(
        *("about", "activate-version", "held-versions", "conflict-ignore", "missing-tables"),
        "case-insensitive-tables",
    ),
    load_methods=("append", "upsert", "replace"),
    settings=(
        Setting("path", "string", "the database file; created if it does not exist", required=True, exclusive=True),
        Setting("schema", "string", "the database schema for tables", default="main"),
        Setting(
            "load_method",
            "string",
            "append: every record is a new row; upsert: a record replaces the row with its key; replace: the rows of "
            "this run replace the table when the input ends. Default: upsert for streams with a key, else append",
            choices=("append", "upsert", "replace"),
        ),
        Setting(
            "streams",
            "object",
            "settings by stream name: destination_table, unique_constraints (the key, a list of columns), "
            "unique_conflict_method (UPDATE or IGNORE), load_method",
            default={},
        ),
        Setting("batch_rows", "integer", "rows per commit; one is also made after 128 MiB", default=200_000, minimum=1),
        Setting("flush_seconds", "number", "maximum age of an uncommitted row", default=5, minimum=0),
        Setting(
            "lock_timeout", "number", "seconds to wait while another process has the file open", default=10, minimum=0
        ),
        Setting(
            "memory_limit",
            "string",
            "DuckDB's memory_limit, such as 4GB; the target itself needs about 400 MB. Default: 2GiB, or 80% of the "
            "memory where that is less",
        ),
        Setting("threads", "integer", "DuckDB's threads", minimum=1),
    ),
    max_processes=1,
)


def main(argv: Sequence[str]) -> int:
    """Run the target; return its exit code."""
    return run(CONNECTOR, argv, _work, tap=False, missing=_missing)


def _work(config: Config, args: Arguments) -> None:
    from ..common.runner import Runner
    from ..common.streams import StreamSettings
    from .sink import DuckDBSink

    sink = DuckDBSink(config, StreamSettings(config))
    try:
        Runner(
            sink,
            batch_rows=config["batch_rows"],
            batch_bytes=_BATCH_BYTES,
            flush_seconds=config["flush_seconds"],
        ).run()
    finally:
        sink.close()


def _missing(config: Config, tables: Sequence[str]) -> list[str]:
    from .database import connect
    from .waiting import tables_of

    with connect(config) as connection:
        existing = {name.lower() for name, _ in tables_of(connection, config["schema"])}
    return [table for table in tables if table.lower() not in existing]
