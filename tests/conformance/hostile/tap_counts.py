"""A well-behaved and fast tap: rows `id` 1…n of each of its streams, in order, from the bookmark on.

Config: rows (1000), state_every (100), pause (seconds after each `pause_every` rows, 0), pause_every (1000),
stream ("numbers") or streams (a list of names), payload (bytes of text in each row, 20), wait_at (row) with wait_for (a
file).

Row n is {"id": n, "square": n * n, "text": "x" * payload}.
"""

from __future__ import annotations

import time

from _singer import Tap, stream, wait_for


def main() -> None:
    """Send what is after the bookmarks."""
    tap = Tap()
    names = tap.config.get("streams") or [tap.config.get("stream", "numbers")]
    tap.offer(
        *(
            stream(name, {"id": "integer", "square": "integer", "text": "string"}, replication_key="id")
            for name in names
        )
    )
    bookmarks = dict(tap.saved.get("bookmarks") or {})
    for name in names:
        if tap.selected(name):
            count(tap, name, bookmarks)
    tap.out.flush()


def count(tap: Tap, name: str, bookmarks: dict[str, object]) -> None:
    """Send the rows of one stream."""
    config = tap.config
    every: int = config.get("state_every", 100)
    pause: float = config.get("pause", 0)
    pause_every: int = config.get("pause_every", 1000)
    text = "x" * config.get("payload", 20)
    wait_at: int = config.get("wait_at", 0)
    write = tap.out.write
    tap.schema(name)
    last: int = config.get("rows", 1000)
    for n in range(tap.bookmark(name).get("replication_key_value", 0) + 1, last + 1):
        write(
            f'{{"type": "RECORD", "stream": "{name}", "record": {{"id": {n}, "square": {n * n}, "text": "{text}"}}}}\n'
        )
        if n % every == 0 or n == last:
            bookmarks[name] = {"replication_key": "id", "replication_key_value": n}
            tap.message(type="STATE", value={"bookmarks": bookmarks})
        if pause and n % pause_every == 0:
            tap.out.flush()
            time.sleep(pause)
        if n == wait_at:
            tap.out.flush()
            wait_for(config["wait_for"])


main()
