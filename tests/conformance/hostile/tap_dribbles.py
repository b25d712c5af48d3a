"""Writes its messages in pieces of a few bytes, cut inside characters and escapes, with pauses; and many STATEs.

Who: taps behind `ssh`, `docker logs` or slow disks; unbuffered stdout.

Wanted: lines are lines however they come.
"""

from __future__ import annotations

import io
import os
import time

from _singer import Tap, stream


def main() -> None:
    """Send 12 rows a few bytes at a time."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    tap.out = io.StringIO()
    tap.schema("numbers")
    for n in range(tap.bookmark("numbers").get("replication_key_value", 0) + 1, 13):
        tap.record("numbers", {"id": n, "text": "naïve ✓ \u2028"})
        tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": n}}})
    data = tap.out.getvalue().encode().replace(b"\\u2713", "✓".encode())
    for begin in range(0, len(data), 7):
        os.write(1, data[begin : begin + 7])
        if begin % 70 == 0:
            time.sleep(0.0005)


main()
