"""Echoes the first `echo_first` (1) states at once, before a single row of theirs is written, and later ones
rightly.

Who: PipelineWise's targets keep the *first* STATE that they see as what is flushed so far and say it with
their first flush, whichever stream that was of.

Wanted: the first thing it is sent is a state that is proven already, so its lie is harmless.
"""

from __future__ import annotations

from _keyed import KeyedTarget


class EchoesFirstState(KeyedTarget):
    """Says the first state too early."""

    states = 0

    def on_state(self, text: str) -> None:
        """Say it at once, if it is one of the first."""
        self.states += 1
        self.state = text
        if self.states <= self.config.get("echo_first", 1):
            self.say(text)


EchoesFirstState().run()
