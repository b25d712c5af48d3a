"""Rows read back from wherever a target put them, brought to the values they mean, and compared one by one."""

from __future__ import annotations

import csv
import datetime as dt
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.services.seed import Kind, Row, Table


def value_of(kind: Kind, value: Any) -> Any:
    """What `value`, in whatever form a system gave it back, means for a column of this kind.

    Raises:
        ValueError: it means nothing of this kind.
    """
    if value is None:
        return None
    match kind:
        case "text":
            return str(value)
        case "int":
            return int(value)
        case "bool":
            return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
        case "decimal":
            return Decimal(str(value)).quantize(Decimal("0.01"))
        case "date":
            return dt.date.fromisoformat(str(value)[:10])
        case "instant":
            moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
            return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def meaning(rows: Iterable[Mapping[str, Any]], kinds: Mapping[str, Kind], *, empty_is_null: bool = False) -> list[Row]:
    """The rows' values by kind, without columns that the kinds do not name; in their order.

    Args:
        empty_is_null: the system cannot tell the two apart (CSV).
    """

    def one(row: Mapping[str, Any], name: str, kind: Kind) -> Any:
        value = row[name]
        return None if empty_is_null and value == "" else value_of(kind, value)

    return [{name: one(row, name, kind) for name, kind in kinds.items()} for row in rows]


def assert_same(
    table: Table,
    found: Iterable[Row],
    *,
    empty_is_null: bool = False,
    change: Callable[[Row], Row] | None = None,
) -> None:
    """`found` holds exactly the table's rows, each once.

    Says which rows are missing, added, doubled or different, not just that the lists are.

    Args:
        empty_is_null: neither side's empty text is told from null.
        change: what each row is expected to have become on the way.
    """
    rows = [change(dict(row)) if change else row for row in table.sorted_rows()]
    wanted = {row[table.key]: row for row in meaning(rows, table.kinds, empty_is_null=empty_is_null)}
    seen: dict[Any, Row] = {}
    doubled = []
    for row in meaning(found, table.kinds, empty_is_null=empty_is_null):
        if row[table.key] in seen:
            doubled.append(row[table.key])
        seen[row[table.key]] = row
    missing = sorted(wanted.keys() - seen.keys())
    added = sorted(seen.keys() - wanted.keys())
    different = [(wanted[key], seen[key]) for key in sorted(wanted.keys() & seen.keys()) if wanted[key] != seen[key]]
    problems = {"missing": missing[:10], "added": added[:10], "doubled": doubled[:10], "different": different[:5]}
    assert not any(problems.values()), f"{table.name}: {len(seen)} rows for {len(wanted)}: {problems}"


def latest(rows: Iterable[Row], key: str = "id") -> list[Row]:
    """The last row of each key: what an append-only target's rows come to."""
    return list({row[key]: row for row in rows}.values())


def read_jsonl(path: Path) -> list[Row]:
    """One JSON object a line; fractions exact."""
    return [json.loads(line, parse_float=Decimal) for line in path.read_text(encoding="utf-8").splitlines()]


def read_csv(path: Path) -> list[Row]:
    """A CSV with a header; all values are text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_sqlite(path: Path, table: str) -> list[Row]:
    """All rows of a table."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f'select * from "{table}"')]


def read_duckdb(path: Path, table: str) -> list[Row]:
    """All rows of a table; `table` may be `schema.name`."""
    import duckdb

    with duckdb.connect(str(path), read_only=True) as connection:
        cursor = connection.execute(f"select * from {table}")
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def read_postgres(server: Any, database: str, table: str) -> list[Row]:
    """All rows of a table; `table` may be `schema.name`."""
    from psycopg.rows import dict_row

    with server.connect(database) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return list(cursor.execute(f"select * from {table}").fetchall())
