"""Prints log lines, a banner, blank lines and `print()` debris to stdout among its messages, one before
discovery's JSON if `noisy_discovery`.

Who: taps with a forgotten `print()`, libraries that greet, shells that say "activated". Meltano passes them
on and the target dies of them.

Wanted: what does not begin with `{` is a log line; not a record is lost.
"""

from __future__ import annotations

from _singer import Tap, stream


def main() -> None:
    """Send 30 rows, each with noise about it."""
    tap = Tap()
    if tap.given.get("discover") and tap.config.get("noisy_discovery"):
        print("Loading the .env file…")
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    tap.raw("Welcome to tap-noise 1.0\n\n")
    tap.schema("numbers")
    for n in range(tap.bookmark("numbers").get("replication_key_value", 0) + 1, 31):
        tap.raw(f"INFO fetching page {n} of 30\n")
        tap.record("numbers", {"id": n, "text": f"text {n}"})
        tap.raw("   \n\tprogress: [=====>    ]\r\n")
        if n % 10 == 0:
            tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": n}}})
    tap.raw("bye, no newline at the end")


main()
