"""Writes and says everything, then fails: exit code 1.

Who: targets that clean up stages, send a webhook or report usage at their end.

Wanted: the run fails, but what it said counts: the next run does not send it again.
"""

from __future__ import annotations

import sys

from _keyed import KeyedTarget


class FailsAtEnd(KeyedTarget):
    """Fails after its work is done."""

    def run(self) -> None:
        """Work, then fail."""
        super().run()
        print("could not delete the staging area", file=sys.stderr)
        sys.exit(1)


FailsAtEnd().run()
