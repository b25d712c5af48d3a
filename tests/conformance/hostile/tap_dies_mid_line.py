"""Sends `rows` rows (25) and a STATE after each tenth, then half a line, and dies: `code` 1, 0, or a negative
signal. `whole`: the last line is whole and only its newline is missing.

Who: taps killed for memory, power cuts, `timeout 3600 tap-x`, full disks of a tap that spools.

Wanted: what came whole is proven and saved, half a line is not data; half a line is a failure even with exit
code 0. A whole last line without its newline is data.
"""

from __future__ import annotations

import os

from _singer import Tap, stream
from _text import dumps


def main() -> None:
    """Send rows and die in the middle of one."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    tap.schema("numbers")
    rows = tap.config.get("rows", 25)
    n = 0
    for n in range(tap.bookmark("numbers").get("replication_key_value", 0) + 1, rows + 1):
        tap.record("numbers", {"id": n, "text": f"text {n}"})
        if n % 10 == 0:
            tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": n}}})
    line = dumps({"type": "RECORD", "stream": "numbers", "record": {"id": n + 1, "text": "last"}})
    tap.raw(line if tap.config.get("whole") else line[: len(line) - 12])
    code = tap.config.get("code", 1)
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
