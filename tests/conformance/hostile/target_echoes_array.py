"""Prints `[1]` after each flush, and no state.

Who: targets whose authors print debugging output, row counts or progress to stdout. Meltano takes any JSON
line for a state and leaves `{"singer_state": [1]}`: the next run starts from nothing or crashes the tap.

Wanted: a log line, no state. A good exit still proves what was sent.
"""

from __future__ import annotations

from _keyed import KeyedTarget


class EchoesArray(KeyedTarget):
    """Prints an array where a state belongs."""

    def say(self, text: str) -> None:
        """Print `[1]`."""
        super().say("[1]")


EchoesArray().run()
