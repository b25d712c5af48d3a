"""Logs 20 kB for each 100th record, 1 MB in a line now and then, and a megabyte before it reads at all.

Who: targets with DEBUG logging that print every statement; drivers that dump tracebacks by the thousand.

Wanted: no deadlock on a full pipe, every row there, memory flat.
"""

from __future__ import annotations

import sys

from _keyed import KeyedTarget


class FillsStderr(KeyedTarget):
    """Noisy."""

    def take(self, line: str) -> None:
        """Log more than is read."""
        super().take(line)
        if self.seen % 100 == 0:
            sys.stderr.write(("DEBUG inserting " + "y" * 183 + "\n") * 100)
        if self.seen == 1000:
            sys.stderr.write("z" * 1_000_000 + "\n")


sys.stderr.write("INFO starting up\n" * 60_000)
FillsStderr().run()
