"""Reads `--properties` only; `--catalog` is not known to it, and without a catalog it silently moves nothing.

Who: `pipelinewise-tap-s3-csv`, `-kafka` and many old taps; which flag a tap reads shows only in its `--help`.

Wanted: the engine finds out which flag it takes, and writes the selection where such taps look for it.
"""

from __future__ import annotations

from _singer import Tap, stream


def main() -> None:
    """Send 10 rows, if asked in the old way."""
    tap = Tap("legacy tap")
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    if tap.catalog is None or not tap.selected("numbers"):
        return
    tap.schema("numbers")
    for n in range(tap.bookmark("numbers").get("replication_key_value", 0) + 1, 11):
        tap.record("numbers", {"id": n, "text": f"text {n}"})
    tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": 10}}})


main()
