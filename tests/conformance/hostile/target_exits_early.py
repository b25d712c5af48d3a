"""Exits 0 before its input ends, after `exit_after` records (10), its pending rows lost.

Who: targets that treat a closed connection, a quota or a `head`-like limit as a normal end; any with a bare
`except: sys.exit()`. Meltano kills the tap and reports success: silent loss.

Wanted: the run fails and names the target, whatever the exit code; only what it had proven is saved; the next
run sends the rest again.
"""

from __future__ import annotations

import os

from _keyed import KeyedTarget


class ExitsEarly(KeyedTarget):
    """Leaves with exit code 0 in the middle."""

    def take(self, line: str) -> None:
        """As usual, until enough was seen."""
        super().take(line)
        if self.seen >= self.config.get("exit_after", 10):
            os._exit(0)


ExitsEarly().run()
