"""Reads a change log: streams `orders` and `users` share one position (`lsn`), read from `log`, a JSON list
of `[stream, row]`; a stream's bookmark moves with the log even where the log holds nothing of it.

Who: LOG_BASED replication of PostgreSQL (one slot), MySQL (one binlog), MongoDB (one oplog).

Wanted: its streams stay in one process; a stream that was left out while the others' position was confirmed
has a gap, and does not go on without the operator's word.
"""

from __future__ import annotations

from _singer import Tap, stream
from _text import loads


def main() -> None:
    """Send what the log holds after the smallest bookmark."""
    tap = Tap()
    tap.offer(
        *(
            stream(name, {"id": "integer", "text": "string"}, metadata={"replication-method": "LOG_BASED"})
            for name in ("orders", "users")
        )
    )
    with open(tap.config["log"], encoding="utf-8") as file:
        log = loads(file.read())
    marks = {name: tap.bookmark(name).get("lsn", 0) for name in tap.streams}
    for name in tap.streams:
        tap.schema(name)
    start = min(marks.values(), default=0)
    for lsn, (name, row) in enumerate(log[start:], start + 1):
        if name in marks and lsn > marks[name]:
            tap.record(name, row)
    bookmarks = dict(tap.saved.get("bookmarks") or {}) | {name: {"lsn": len(log)} for name in tap.streams}
    tap.state({"bookmarks": bookmarks})


main()
