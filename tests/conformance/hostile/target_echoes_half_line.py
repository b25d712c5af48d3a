"""Prints the beginning of a state without its end, as the last thing it does.

Who: any target killed, out of disk or out of memory while it prints; targets that write to stdout from two
threads.

Wanted: half a state is no state. What was said before counts; a good exit proves all, a bad one nothing more.
"""

from __future__ import annotations

import sys

from _keyed import KeyedTarget


class EchoesHalfLine(KeyedTarget):
    """Prints half of each state, and the newline never."""

    def say(self, text: str) -> None:
        """Print the first half, with no newline."""
        self.echoed = text
        sys.stdout.write(text[: len(text) // 2])
        sys.stdout.flush()


EchoesHalfLine().run()
