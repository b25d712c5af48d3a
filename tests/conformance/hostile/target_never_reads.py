"""Stops reading after `stop_after` records (100) and sleeps, deaf to SIGTERM if `deaf`.

Who: a warehouse that holds a lock for ever; Meltano hangs with it.

Wanted: memory stays bounded (the tap is made to wait), an interrupt ends the run, nothing is left behind.
"""

from __future__ import annotations

import signal
import time

from _keyed import KeyedTarget


class NeverReads(KeyedTarget):
    """Gets stuck."""

    def take(self, line: str) -> None:
        """Sleep for ever once enough was seen."""
        super().take(line)
        if self.seen >= self.config.get("stop_after", 100):
            if self.config.get("deaf"):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)


NeverReads().run()
