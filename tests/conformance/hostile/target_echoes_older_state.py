"""Says states that are behind: after each flush the one before the last, and at its end the first that it
ever saw.

Who: `pipelinewise-target-postgres` and `-snowflake` when the last rows filled a batch exactly, or no rows
came: they end with an old state; `target-duckdb` 0.8.0 on a batch boundary.

Wanted: positions never go back; the good exit proves all that was sent.
"""

from __future__ import annotations

from _keyed import KeyedTarget


class EchoesOlderState(KeyedTarget):
    """Lags one state behind."""

    first: str | None = None
    previous: str | None = None

    def on_state(self, text: str) -> None:
        """Remember the last two and the first."""
        self.first = self.first or text
        self.previous, self.state = self.state, text

    def on_flushed(self, streams: list[str]) -> None:
        """Say the one before the last."""
        if self.previous is not None:
            self.say(self.previous)

    def on_end(self) -> None:
        """Say the very first."""
        if self.first is not None:
            self.say(self.first)


EchoesOlderState().run()
