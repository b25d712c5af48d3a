"""Says `{}` at its end.

Who: targets on older releases of the Singer SDK when the tap emits no STATE: Meltano's state was wiped by it.

Wanted: an empty state wipes nothing.
"""

from __future__ import annotations

from _keyed import KeyedTarget


class EchoesEmpty(KeyedTarget):
    """Ends with nothing in its hands."""

    def say(self, text: str) -> None:
        """Say nothing until the end."""

    def on_end(self) -> None:
        """Say an empty state."""
        super().say("{}")


EchoesEmpty().run()
