"""Which position of a source may be saved: the newest that every one of its sinks has proven.

A sink reports numbers of positions. How it comes to know them is its own matter: a database sink numbers its
transactions, a Singer target echoes states (`connectors/singer/echo_account.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import msgspec

from streamline.flow.items import Position

MAX_POSITIONS = 100_000
"""Unproven positions kept per source and sink. More are thinned out, which makes saving coarser and loses nothing."""

MAX_POSITION_BYTES = 16 << 20
"""Bytes of unproven positions kept per source and sink."""


class Unproven:
    """The positions of one source that one sink was sent and has not proven, oldest first.

    Where they are too many, every second one is dropped, and from then on fewer are kept. The oldest stays, because it
    is proven next, and the newest, because it is proven last.
    """

    def __init__(self, max_positions: int = MAX_POSITIONS, max_bytes: int = MAX_POSITION_BYTES) -> None:
        self._max = max_positions
        self._max_bytes = max_bytes
        self._positions: deque[Position] = deque()
        self._bytes = 0
        self._stride = 1
        """How many positions in a row one that is kept stands for."""
        self._counted = 0
        """How many the newest one stands for so far."""

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, position: Position) -> None:
        """Add the newest position."""
        if self._counted < self._stride and len(self._positions) > 1:
            self._bytes -= self._positions.pop().nbytes
        else:
            self._counted = 0
        self._counted += 1
        self._positions.append(position)
        self._bytes += position.nbytes
        if len(self._positions) > self._max or self._bytes > self._max_bytes:
            self._thin()

    def take(self, number: int) -> Position | None:
        """Remove the positions up to a number; return the last of them."""
        newest: Position | None = None
        while self._positions and self._positions[0].number <= number:
            newest = self._positions.popleft()
            self._bytes -= newest.nbytes
        if 2 * len(self._positions) <= self._max and 2 * self._bytes <= self._max_bytes:
            self._stride = 1
        return newest

    def _thin(self) -> None:
        newest = self._positions[-1]
        kept = [position for index, position in enumerate(self._positions) if not index % 2 or position is newest]
        if len(kept) == len(self._positions):
            return  # the oldest and the newest, which are large
        self._positions = deque(kept)
        self._bytes = sum(position.nbytes for position in kept)
        self._stride *= 2


class Ledger:
    """The minimum over sinks.

    Args:
        sinks_of: the ids of the sinks that each source feeds.
    """

    def __init__(self, sinks_of: Mapping[str, frozenset[str]]) -> None:
        self._sinks_of = dict(sinks_of)
        self._unproven = {(sink, source): Unproven() for source, sinks in sinks_of.items() for sink in sinks}
        self._proven: dict[str, dict[str, Position]] = {source: {} for source in sinks_of}
        self._returned: dict[str, int] = dict.fromkeys(sinks_of, 0)

    def sent(self, sink: str, position: Position) -> None:
        """Note that a sink is about to be sent a position."""
        self._unproven[sink, position.source].add(position)

    def proven(self, sink: str, source: str, number: int) -> Position | None:
        """Note that a sink has proven a source's positions up to a number.

        Returns:
            The position that all sinks of the source have now proven, if it is newer than the one before, or if less
            of it is withheld.
        """
        by_sink = self._proven[source]
        position = self._unproven[sink, source].take(number)
        if position is None:
            return None
        by_sink[sink] = position
        if len(by_sink) < len(self._sinks_of[source]):
            return None
        common = min(by_sink.values(), key=lambda each: each.number)
        # What is held back on the way to one sink must not be saved, whichever path's position this is.
        withheld = frozenset[str]().union(*(each.withheld for each in by_sink.values()))
        if withheld != common.withheld:
            common = msgspec.structs.replace(common, withheld=withheld)
        if common.number < self._returned[source]:
            return None
        self._returned[source] = common.number
        return common
