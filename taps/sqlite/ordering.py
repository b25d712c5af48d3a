"""How values of a replication key compare: SQLite stores numbers, texts and bytes in one column, and sorts them apart.

A bookmark follows the values of one storage class. Texts of timestamps compare as texts where all have one spelling,
which an index serves; else by `moment_key`.
"""

from __future__ import annotations

import sqlite3
from datetime import date, timedelta
from typing import Any

from kit.sql import quoted

from ..common.moments import moment_key
from .types import Kind

_TEXT, _NUMBER = "= 'text'", "IN ('integer', 'real')"


class KeyColumn:
    """One column of a replication key.

    Attributes:
        fits: an SQL condition: a value has the storage class that the bookmark follows.
        apart: an SQL condition: a value has another one; an index serves it.
        order: an SQL expression by which rows are read.
        value: the same for a bookmark's value, given as a parameter.
        is_mixed: timestamps have several spellings.
    """

    def __init__(self, connection: sqlite3.Connection, table: str, column: str, kind: Kind, start: Any) -> None:
        self._connection = connection
        self._table = f"main.{quoted(table)}"
        self._name = quoted(column)
        classes = [_TEXT, _NUMBER] if kind in ("string", "date", "date-time") else [_NUMBER, _TEXT]
        if kind == "any" and isinstance(start, str):
            classes.reverse()
        stored = next(
            (storage_class for storage_class in classes if self._has(f"typeof({self._name}) {storage_class}")), None
        )
        self.is_text = stored == _TEXT
        self.fits = f"typeof({self._name}) {stored}" if stored else f"{self._name} IS NOT NULL"
        # Numbers sort before texts, and texts before bytes.
        self.apart = f"{self._name} < '' OR {self._name} >= x''" if self.is_text else f"{self._name} >= ''"
        self.is_mixed = self.is_text and kind in ("date", "date-time") and self._has_spellings(start)
        self.order = f"moment_key({self._name})" if self.is_mixed else f"{self._name} COLLATE BINARY"
        self.value = "moment_key(?)" if self.is_mixed else "?"
        if self.is_mixed:
            connection.create_function("moment_key", 1, moment_key, deterministic=True)

    def takes(self, start: Any) -> bool:
        """Return whether a bookmark's value compares with the column's values."""
        return isinstance(start, str) == self.is_text

    def key(self, value: Any) -> Any:
        """Return the value as it compares."""
        return moment_key(value) if self.is_mixed else value

    def _has(self, condition: str, *values: Any) -> bool:
        query = f"SELECT 1 FROM {self._table} WHERE {condition} LIMIT 1"
        return self._connection.execute(query, values).fetchone() is not None

    def _has_spellings(self, start: Any) -> bool:
        """Return whether texts that matter do not sort as the timestamps do that they mean."""
        name = self._name
        sample = start
        since = "0"
        if isinstance(start, str):
            try:
                # No two zones are further apart.
                since = str(date.fromisoformat(start[:10]) - timedelta(days=2))
            except (ValueError, OverflowError):
                return False
        else:
            (sample,) = self._connection.execute(
                f"SELECT {name} FROM {self._table} WHERE typeof({name}) = 'text' LIMIT 1"
            ).fetchone()
        zone = sample[19:].lstrip(".0123456789")
        others = (
            f"substr({name}, 11, 1) <> ? OR ltrim(substr({name}, 20), '.0123456789') <> ? "
            f"OR length({name}) BETWEEN 11 AND 18"
        )
        if zone:
            others += f" OR length({name}) <> {len(sample)}"
        return self._has(f"typeof({name}) = 'text' AND {name} >= ? AND ({others})", since, sample[10:11], zone)
