"""Shows its secrets wherever it can: its config on stderr (as JSON, as a Python dict, within a URL), among
its output, and in its last words; then fails.

Who: taps that log their config at start, HTTP clients that log URLs, drivers whose exceptions hold the
connection string.

Wanted: masked in everything that the run shows or keeps.
"""

from __future__ import annotations

from _singer import Tap, stream
from _text import dumps


def main() -> None:
    """Leak, then fail."""
    tap = Tap()
    tap.log(f"starting with {tap.config}")
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    tap.log("INFO config " + dumps(tap.config))
    tap.raw("connecting to postgres://me:" + tap.config["password"] + "@db:5432/shop\n")
    tap.schema("numbers")
    tap.record("numbers", {"id": 1, "text": "one"})
    tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": 1}}})
    tap.raw("config: {'api_key': '" + tap.config["api_key"] + "'}\n")
    tap.die("FATAL: could not log in as " + tap.config["password"] + " with token " + tap.config["auth"]["token"])


main()
