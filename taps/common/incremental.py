"""INCREMENTAL by one or more columns: read from the last value on, itself included, and send nothing twice.

Rows that share the highest value may arrive in any order, so the next run must read that value again. The bookmark
keeps a hash of each row sent at it; a row that is unchanged is skipped, one that changed has another hash. A bookmark:

    {"updated_at": "2026-01-02 10:00:00", "id": 7, "rows_sent": {"at": ["2026-01-02 10:00:00", 7], "hashes": ["…"]}}

`at` repeats the value that the hashes belong to. Where it differs from the columns' values, or is missing, somebody has
set the bookmark by hand: then the first column alone says where to begin, which reads too much rather than too little.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

ROWS_SENT = "rows_sent"
MANY_ROWS = 10_000
"""From so many rows at one value on, a bookmark is too long to be written often; it waits for the next value."""

Value = tuple[Any, ...]


def row_hash(record: bytes) -> str:
    """Return 12 characters for a record's JSON text."""
    return base64.b64encode(blake2b(record, digest_size=9).digest()).decode()


class Bookmark:
    """What the last run left for a stream, taken apart.

    Attributes:
        start: values to begin at, itself included: one per column, the first column's only, or empty for everything.
        sent: how many rows with each hash were sent at `start`.
        by_hand: somebody else than this tap has written it.
    """

    def __init__(self, columns: Sequence[str], saved: dict[str, Any]) -> None:
        self.columns = list(columns)
        self.sent: Counter[str] = Counter()
        values = [saved.get(column) for column in self.columns]
        if values[0] is None and saved.get("replication_key") == self.columns[0]:
            # The shape of other taps' libraries, for positions set from outside.
            values[0] = saved.get("replication_key_value")
        self.start: Value = ()
        self.by_hand = False
        if values[0] is None:
            return
        rows = saved.get(ROWS_SENT)
        if isinstance(rows, dict) and rows.get("at") == values and None not in values:
            self.start = tuple(values)
            self.sent.update(rows.get("hashes", ()))
        else:
            self.start = (values[0],)
            self.by_hand = True


class Tracker:
    """Follows the rows of one run, and makes the bookmarks that say how far it is.

    Args:
        bookmark: where the run begins.
    """

    def __init__(self, bookmark: Bookmark) -> None:
        self._columns = bookmark.columns
        self._before = bookmark.sent
        self._unseen = Counter(bookmark.sent)
        self.start = bookmark.start
        self.value: Value = bookmark.start if len(bookmark.start) == len(bookmark.columns) else ()
        self._rows: Counter[str] = Counter()

    def is_new(self, record: bytes) -> bool:
        """Return whether no earlier run sent a row at the start value; each hash counts as often as it was sent."""
        digest = row_hash(record)
        if self._unseen[digest] > 0:
            self._unseen[digest] -= 1
            return False
        return True

    def at(self, value: Value, records: Sequence[bytes]) -> None:
        """Record rows of the highest value so far, those that were skipped at the start included."""
        if value != self.value:
            self.value = value
            self._rows.clear()
            self._before = Counter()
        self._rows.update(map(row_hash, records))

    @property
    def is_short(self) -> bool:
        """Whether a bookmark taken now is short enough to be written in the middle of a stream."""
        return self._rows.total() + self._before.total() < MANY_ROWS

    def bookmark(self, *, done: bool = False) -> dict[str, Any] | None:
        """Return the bookmark for the rows noted so far, None where there is no value yet.

        Args:
            done: all rows at the highest value were noted; those of earlier runs that did not come again are forgotten.
        """
        if not self.value:
            return None
        rows = self._rows if done else self._rows | self._before
        sent = {"at": list(self.value), "hashes": list(rows.elements())}
        return dict(zip(self._columns, self.value, strict=True)) | {ROWS_SENT: sent}
