"""Key columns that became text: values of before and after are compared by what they mean.

A number that was 5.0 in its column may come as 5 now, and a moment with `T` and `Z`, where the database writes a blank.
A comment on the column says what it was.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kit.sql import quoted

from ..common.columns import JSON, ColumnType
from .database import query

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MARK = re.compile(r"\[target-duckdb: was (\w+)\]")
_NUMBERS = ("BIGINT", "HUGEINT", "DECIMAL", "DOUBLE")
_MOMENTS = {"DATE": "TIMESTAMP", "TIMESTAMP": "TIMESTAMP", "TIME": "TIME"}


def mark_widened(connection: DuckDBPyConnection, schema: str, table: str, column: str, old: str) -> None:
    """Comment on a column that it had this type."""
    others = _MARK.sub("", _comments(connection, schema, table).get(column) or "").strip()
    comment = f"{others} [target-duckdb: was {old}]".strip().replace("'", "''")
    query(connection, f"COMMENT ON COLUMN {quoted(schema)}.{quoted(table)}.{quoted(column)} IS '{comment}'")


def widened_columns(connection: DuckDBPyConnection, schema: str, table: str) -> dict[str, str]:
    """Return the names of the types that the marked columns had."""
    marks = {name: _MARK.search(comment or "") for name, comment in _comments(connection, schema, table).items()}
    return {name: match[1] for name, match in marks.items() if match}


def comparable(column: str, type_: ColumnType, old: str | None) -> str:
    """Return what is compared of a key column, given as SQL, that had the type `old` before."""
    if old is None:
        return column
    text = f"json_extract_string({column}, '$')" if type_ == JSON else column
    if old in _NUMBERS:
        return (
            f"CASE WHEN regexp_full_match({text}, '-?[0-9]+[.][0-9]+') THEN regexp_replace({text}, '[.]?0+$', '') "
            f"WHEN regexp_full_match({text}, '-?[0-9.]+[eE][+][0-9]+') "
            f"THEN coalesce(CAST(TRY_CAST(TRY_CAST({text} AS DOUBLE) AS HUGEINT) AS VARCHAR), {text}) ELSE {text} END"
        )
    if old in _MOMENTS:
        # The database would round what has more than six digits: two keys would be one.
        return (
            f"CASE WHEN regexp_matches({text}, '[.,][0-9]{{7,}}') THEN {text} "
            f"ELSE coalesce(CAST(TRY_CAST(rtrim({text}, 'Zz') AS {_MOMENTS[old]}) AS VARCHAR), {text}) END"
        )
    return text


def _comments(connection: DuckDBPyConnection, schema: str, table: str) -> dict[str, str | None]:
    sql = (
        "SELECT column_name, comment FROM duckdb_columns() WHERE database_name = current_database() "
        "AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"
    )
    return dict(query(connection, sql, [schema, table]))
