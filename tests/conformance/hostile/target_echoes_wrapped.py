"""Says states as whole messages, `{"type": "STATE", "value": {…}}`.

Who: early targets made with the Singer SDK, home-made ones that pass lines on.

Wanted: the wrapper never becomes what the tap gets. Whether it counts as an echo or as a log line, the good
exit proves all.
"""

from __future__ import annotations

from _keyed import KeyedTarget


class EchoesWrapped(KeyedTarget):
    """Wraps what it says."""

    def say(self, text: str) -> None:
        """Print the message instead of its value."""
        super().say('{"type": "STATE", "value": ' + text + "}")


EchoesWrapped().run()
