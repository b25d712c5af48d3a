"""Says nothing until its input has ended, then the last state; full batches are written meanwhile.

Who: every target made with the Singer SDK (25,000 records, 25 STATEs and two drained batches later: not a
line).

Wanted: nothing is saved while it runs, everything at its good end; if it dies, all is sent again.
"""

from __future__ import annotations

from _keyed import KeyedTarget


class SilentUntilEnd(KeyedTarget):
    """Speaks once."""

    def on_state(self, text: str) -> None:
        """Remember it."""
        self.state = text

    def on_flushed(self, streams: list[str]) -> None:
        """Keep silent."""


SilentUntilEnd().run()
