"""Prints greetings, progress bars and Python dicts to stdout among its states.

Who: targets with `print()` left in, progress bars (tqdm), SQL drivers with banners.

Wanted: log lines; the states between them count.
"""

from __future__ import annotations

from _keyed import KeyedTarget


class PrintsNoise(KeyedTarget):
    """Chatty."""

    def say(self, text: str) -> None:
        """Say the state among other things."""
        print("Connecting to warehouse… done")
        print("{'bookmarks': {'numbers': None}}")
        print('{"rows_loaded": 100}')
        super().say(text)
        print("null")
        print()


PrintsNoise().run()
