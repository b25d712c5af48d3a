"""Dies of any key in a bookmark that it did not write itself, and of any other key than `bookmarks` and
`currently_syncing` in its state. A STATE comes before the first SCHEMA, as tap-mysql has it.

Who: PipelineWise's tap-postgres raises "invalid keys found in state"; LOG_BASED taps index keys that they
once wrote.

Wanted: nothing of the engine's own is ever put into the payload.
"""

from __future__ import annotations

from _singer import Tap, stream

OWN = {"replication_key", "replication_key_value", "version", "last_replication_method"}


def main() -> None:
    """Check the state, send 10 rows."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    foreign = set(tap.saved) - {"bookmarks", "currently_syncing"}
    foreign |= {key for mark in (tap.saved.get("bookmarks") or {}).values() for key in set(mark) - OWN}
    if foreign:
        tap.die(f"invalid keys found in state: {sorted(foreign)}")
    start = tap.bookmark("numbers").get("replication_key_value", 0)
    if start:
        tap.state({"currently_syncing": "numbers", "bookmarks": {"numbers": tap.bookmark("numbers")}})
    else:
        tap.state({"currently_syncing": "numbers"})
    tap.schema("numbers")
    for n in range(start + 1, start + 11):
        tap.record("numbers", {"id": n, "text": f"text {n}"})
    bookmark = {"replication_key": "id", "replication_key_value": start + 10, "last_replication_method": "INCREMENTAL"}
    tap.state({"currently_syncing": None, "bookmarks": {"numbers": bookmark}})


main()
