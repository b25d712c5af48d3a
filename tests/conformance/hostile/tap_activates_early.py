"""Announces a new version of its table right after SCHEMA, before any record of it, then sends `rows` rows of
that version with a STATE after each fifth; dies after `die_after` rows.

Who: every tap made with the Singer SDK that has `emit_activate_version_messages`. Targets delete the old rows
at once: until the new ones are there the table is empty, and stays so if the tap fails.

Wanted: the announcement is held back until the stream is complete and dropped if it fails; while it is held
back, the stream's bookmark is not saved.
"""

from __future__ import annotations

from _singer import Tap, stream


def main() -> None:
    """Send a whole table anew."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}))
    version = tap.config.get("version", 2)
    tap.schema("numbers")
    tap.message(type="ACTIVATE_VERSION", stream="numbers", version=version)
    for n in range(1, tap.config.get("rows", 20) + 1):
        tap.record("numbers", {"id": n, "text": f"v{version} {n}"}, version=version)
        if n % 5 == 0:
            tap.state({"bookmarks": {"numbers": {"version": version, "row": n}}})
        if n == tap.config.get("die_after"):
            tap.die("the API is gone")


main()
