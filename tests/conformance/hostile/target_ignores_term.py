"""Ignores SIGTERM, and after its input has ended and all is written and said, it does not end.

Who: targets on drivers with threads that never join (old Snowflake and MongoDB clients), `docker run`
wrappers.

Wanted: an interrupted run ends within its deadline by SIGKILL; nothing of it is left behind.
"""

from __future__ import annotations

import signal
import time

from _keyed import KeyedTarget


class IgnoresTerm(KeyedTarget):
    """Stays."""

    def run(self) -> None:
        """Never return."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        super().run()
        while True:
            time.sleep(60)


IgnoresTerm().run()
