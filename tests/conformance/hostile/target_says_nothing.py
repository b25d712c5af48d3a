"""Never prints a state; exits 0 when its input has ended and everything is written.

Who: small home-made targets, `target-csv` style scripts whose authors never met incremental taps.

Wanted: its good exit proves all that was sent.
"""

from __future__ import annotations

from _keyed import KeyedTarget


class SaysNothing(KeyedTarget):
    """Mute."""

    def say(self, text: str) -> None:
        """Say nothing."""


SaysNothing().run()
