"""The last lines of a terminal while a run goes on, and what a streaming run shows there."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from streamline.cli.output import aligned, count, cut, has_colour, say
from streamline.cli.terminal import printable, unguarded

if TYPE_CHECKING:
    from streamline.execution.events import StreamProgress

STREAM_LINE_SECONDS = 5.0
"""Seconds between two lines of counts of a streaming run if stdout is no terminal."""

IDLE_LINE_SECONDS = 60.0
"""Seconds between two such lines while nothing moves."""


class Screen:
    """The last lines of a terminal: what runs now, drawn again several times a second.

    Args:
        live: whether stdout is a terminal; else nothing is drawn.
    """

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self.lock = threading.RLock()
        self._height = 0

    def draw(self, lines: list[str]) -> None:
        """Replace the lines. What does not fit is cut."""
        size = shutil.get_terminal_size()
        shown = [cut(printable(line), size.columns - 1) for line in lines[: size.lines - 1]]
        if has_colour(sys.stdout):
            shown = [click.style(line, dim=True) for line in shown]
        with self.lock:
            self._write(self._erasing() + "\n".join(shown))
            self._height = len(shown)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Erase the lines while permanent ones are printed."""
        with self.lock:
            self._write(self._erasing())
            self._height = 0
            yield

    def _erasing(self) -> str:
        up = f"\x1b[{self._height - 1}A" if self._height > 1 else ""
        return f"\r{up}\x1b[J" if self._height else ""

    def _write(self, text: str) -> None:
        if self.live and text:
            with suppress(OSError, ValueError):
                stream = unguarded(sys.stdout)
                stream.write(text)
                stream.flush()


class LiveCounts:
    """Rates, lag and proof of a streaming run: drawn in a terminal, else a line now and then."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._before = (0, 0, 0)
        self._then = 0.0
        self._rates = (0.0, 0.0, 0.0)
        self._said: tuple[object, ...] = ()
        self._said_at = 0.0

    def show(self, event: StreamProgress) -> None:
        """Show new counts."""
        elapsed = event.seconds - self._then
        if elapsed >= (1.0 if self._screen.live else STREAM_LINE_SECONDS):
            # Another attempt reads again what was not proven: counts may go back.
            now = (event.read, event.written, event.dead_letters)
            rates = [max(0, after - before) / elapsed for after, before in zip(now, self._before, strict=True)]
            self._rates = rates[0], rates[1], rates[2]
            self._before, self._then = now, event.seconds
            if not self._screen.live:
                self._say(event)
        if self._screen.live:
            self._screen.draw([*self._lags(event), self._total(event)])

    def _say(self, event: StreamProgress) -> None:
        lags = [lag["behind"] for lag in event.lag]
        moving = (event.read, event.written, event.in_flight, event.dead_letters, lags)
        if moving != self._said or event.seconds - self._said_at >= IDLE_LINE_SECONDS:
            self._said, self._said_at = moving, event.seconds
            say(self._total(event))

    def _total(self, event: StreamProgress) -> str:
        known = [lag["behind"] for lag in event.lag if lag["behind"] is not None]
        parts = [
            f"in {self._rates[0]:,.0f}/s",
            f"out {self._rates[1]:,.0f}/s",
            f"{event.written:,} written",
            f"{event.in_flight:,} in flight",
            *([f"lag {sum(known):,}"] if known else []),
            count(event.dead_letters, "dead letter") + (f" ({self._rates[2]:,.0f}/s)" if self._rates[2] >= 1 else ""),
            f"proof {event.saved_ago:.0f} s ago" if event.saved_ago is not None else "no proof yet",
        ]
        return ", ".join(parts)

    def _lags(self, event: StreamProgress) -> list[str]:
        """Return the lag of each partition, the largest first, as many as the terminal has lines for."""
        order = sorted(event.lag, key=lambda lag: -(lag["behind"] or 0))
        room = max(1, shutil.get_terminal_size().lines - 5)
        rows = [["BLOCK", "PARTITION", "LAG"]]
        rows += [
            [lag["block"], lag["name"], "?" if lag["behind"] is None else f"{lag['behind']:,}"] for lag in order[:room]
        ]
        more = [f"and {len(order) - room:,} more"] if len(order) > room else []
        return [*aligned(rows), *more] if order else []
