"""Writes a new refresh token back into its own config file, as rotation of tokens demands, then sends its
rows.

Who: taps on OAuth APIs with one-time refresh tokens (Xero, QuickBooks, Google Ads, `singer.utils` with
`--dev`). Meltano deletes the file after the run: the next one cannot log in.

Wanted: the next run's config holds what was written back, and no file or log shows it.
"""

from __future__ import annotations

import os

from _singer import Tap, stream
from _text import dumps


def main() -> None:
    """Rotate the token; refuse one that was used before."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    used = tap.config["used"]
    token = tap.config["refresh_token"]
    if os.path.exists(used) and token in open(used).read().split():  # noqa: PTH110, SIM115
        tap.die("this refresh token was used before")
    with open(used, "a") as file:
        file.write(token + "\n")
    tap.config["refresh_token"] = token + "-next"
    with open(tap.given["config"], "w") as file:
        file.write(dumps(tap.config))
    tap.schema("numbers")
    n = tap.bookmark("numbers").get("replication_key_value", 0) + 1
    tap.record("numbers", {"id": n, "text": "one a run"})
    tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": n}}})


main()
