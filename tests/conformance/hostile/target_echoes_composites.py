"""Writes a stream when its own batch is full, and says composites: each stream's bookmark as of its last
flush.

Who: `pipelinewise-target-postgres`, `-snowflake`, `-redshift`. What they say was never said by the tap in one
piece, starts as a copy of the first STATE that they saw, and may show a stream's bookmark as flushed long
after.

Wanted: a composite counts as far as each stream's flushed bookmark carries, and no further.
"""

from __future__ import annotations

import sys

from _keyed import KeyedTarget
from _text import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class EchoesComposites(KeyedTarget):
    """Does as pipelinewise-target-postgres 2.1 does, line by line."""

    latest: dict[str, Any] | None = None
    flushed: dict[str, Any] | None = None

    def on_state(self, text: str) -> None:
        """Remember it; the first one is taken for flushed."""
        self.latest = loads(text)
        if not self.flushed:
            self.flushed = loads(text)

    def full(self, stream: str) -> bool:
        """A batch is counted per stream."""
        if len(self.rows[stream]) >= self.limit:
            self.flush(stream)
        return False

    def on_flushed(self, streams: list[str]) -> None:
        """Say the composite that this flush makes."""
        if self.latest is None or self.flushed is None:
            return
        for stream in streams:
            if stream in self.latest.get("bookmarks", {}):
                self.flushed.setdefault("bookmarks", {})[stream] = self.latest["bookmarks"][stream]
        self.say(dumps(self.flushed))

    def run(self) -> None:
        """At the end, the latest state is taken only if rows were pending."""
        for line in sys.stdin:
            if self.log:
                self.log.write(line.encode())
            self.take(line)
        if any(self.rows.values()):
            self.flushed = self.latest
            self.flush()
        elif self.flushed is not None:
            self.say(dumps(self.flushed))


EchoesComposites().run()
