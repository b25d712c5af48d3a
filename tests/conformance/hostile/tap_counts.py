"""A well-behaved and fast tap: rows `id` 1…n of one stream, in order, from the bookmark on.

Config: rows (1000), state_every (100), pause (seconds after each `pause_every` rows, 0), pause_every (1000),
stream ("numbers"), payload (bytes of text in each row, 20), wait_at (row) with wait_for (a file).

Row n is {"id": n, "square": n * n, "text": "x" * payload}.
"""

from __future__ import annotations

import time

from _singer import Tap, stream, wait_for


def main() -> None:
    """Send what is after the bookmark."""
    tap = Tap()
    config = tap.config
    name = config.get("stream", "numbers")
    tap.offer(stream(name, {"id": "integer", "square": "integer", "text": "string"}, replication_key="id"))
    if not tap.selected(name):
        return
    every: int = config.get("state_every", 100)
    pause: float = config.get("pause", 0)
    pause_every: int = config.get("pause_every", 1000)
    text = "x" * config.get("payload", 20)
    wait_at: int = config.get("wait_at", 0)
    write = tap.out.write
    tap.schema(name)
    last = count = config.get("rows", 1000)
    for n in range(tap.bookmark(name).get("replication_key_value", 0) + 1, count + 1):
        write(
            f'{{"type": "RECORD", "stream": "{name}", "record": {{"id": {n}, "square": {n * n}, "text": "{text}"}}}}\n'
        )
        if n % every == 0 or n == last:
            value = f'{{"bookmarks": {{"{name}": {{"replication_key": "id", "replication_key_value": {n}}}}}}}'
            write(f'{{"type": "STATE", "value": {value}}}\n')
        if pause and n % pause_every == 0:
            tap.out.flush()
            time.sleep(pause)
        if n == wait_at:
            tap.out.flush()
            wait_for(config["wait_for"])
    tap.out.flush()


main()
