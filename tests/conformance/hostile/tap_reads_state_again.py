"""Sends 10 rows and a STATE, flushes, and then waits until its own `--state` file shows that position before
it sends the rest (for `patience` seconds, 20); tells in `seen` what the file held at last.

Who: PipelineWise's tap-postgres opens its state file every 10 s while it runs, and lets PostgreSQL forget the
log up to the smallest position in it. A runner that never rewrites the file lets the log fill the server's
disk.

Wanted: the file always holds every stream's proven (or starting) position, and is replaced in one piece.
"""

from __future__ import annotations

import time

from _singer import Tap, stream
from _text import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Send rows, wait for their proof, send more."""
    tap = Tap()
    tap.offer(
        stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"),
        stream("quiet", {"id": "integer"}, replication_key="id"),
    )
    tap.schema("numbers")
    for n in range(1, 11):
        tap.record("numbers", {"id": n, "text": f"text {n}"})
    mark = {"replication_key": "id", "replication_key_value": 10}
    quiet = {"replication_key": "id", "replication_key_value": 7}
    tap.state({"bookmarks": {"numbers": mark, "quiet": quiet}})
    held: dict[str, Any] = {}
    end = time.monotonic() + tap.config.get("patience", 20)
    while time.monotonic() < end:
        with open(tap.given["state"], encoding="utf-8") as file:
            held = loads(file.read())
        if (held.get("bookmarks") or {}).get("numbers") == mark:
            break
        time.sleep(0.01)
    with open(tap.config["seen"], "w", encoding="utf-8") as file:
        file.write(dumps(held))
    tap.record("numbers", {"id": 11, "text": "after the proof"})
    mark = {"replication_key": "id", "replication_key_value": 11}
    tap.state({"bookmarks": {"numbers": mark, "quiet": quiet}})


main()
