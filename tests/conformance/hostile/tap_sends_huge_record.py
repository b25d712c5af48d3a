"""Sends a small record, one of `megabytes` (20), and a small one, in one line each.

Who: taps on document stores and file systems: embedded images, whole HTML pages, base64. Meltano fails at 50
MiB.

Wanted: it passes; memory follows the record, nothing else.
"""

from __future__ import annotations

from _singer import Tap, stream


def main() -> None:
    """Send three records."""
    tap = Tap()
    tap.offer(stream("files", {"id": "integer", "content": "string"}))
    tap.schema("files")
    tap.record("files", {"id": 1, "content": "small"})
    tap.out.write('{"type": "RECORD", "stream": "files", "record": {"id": 2, "content": "')
    for _ in range(tap.config.get("megabytes", 20)):
        tap.out.write("x" * 1_000_000)
    tap.out.write('"}}\n')
    tap.record("files", {"id": 3, "content": "small"})
    tap.state({"bookmarks": {"files": {"version": 1}}})


main()
