"""Sends 10 rows of `numbers` with SCHEMA and STATE, then a RECORD of `letters` whose SCHEMA comes only after
it.

Who: taps with threads, hand-written taps. Every target dies of it.

Wanted: the tap has failed, the stream and the reason are named; the target never sees the record; what came
before is proven and saved.
"""

from __future__ import annotations

from _singer import Tap, stream


def main() -> None:
    """Send a record too early."""
    tap = Tap()
    tap.offer(
        stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"),
        stream("letters", {"id": "integer", "letter": "string"}),
    )
    tap.schema("numbers")
    for n in range(1, 11):
        tap.record("numbers", {"id": n, "text": f"text {n}"})
    tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": 10}}})
    tap.record("letters", {"id": 1, "letter": "a"})
    tap.schema("letters")
    tap.record("letters", {"id": 2, "letter": "b"})
    tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": 10}, "letters": {}}})


main()
