"""Where a streaming run keeps its positions and dead letters.

A source that keeps its positions itself, such as a consumer group, commits them; the state store then has a copy that
is only shown. Of other sources the state store has the positions. Dead letters are durable before the position that
covers them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from streamline.connectors.stream_connector import OffsetSource, SelfKeptSource
from streamline.execution.streaming.letters import AttemptLetters
from streamline.execution.streaming.plan import Plan
from streamline.execution.streaming.stored_state import StateChanges
from streamline.flow.items import FORGOTTEN, BadRecord
from streamline.flow.protocols import Source
from streamline.state.store import BookmarkSave, DeadLetter, StateChange, Store

if TYPE_CHECKING:
    from streamline.execution.connector_blocks.streams import SingerAttempt

COPY_SECONDS = 1.0
"""Seconds between two copies of a consumer group's offsets in the state store."""


class StreamPositions:
    """A `flow.protocols.PositionStore` of one attempt.

    Args:
        sources: by id.
        letters: None: the sink keeps dead letters in its transactions, or there are none.
        singer: keeps the positions of taps.
        states: what changes of state that is saved with the positions.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        run_id: str,
        sources: Mapping[str, Source],
        letters: AttemptLetters | None,
        *,
        singer: SingerAttempt | None = None,
        states: Sequence[StateChanges] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._plan = plan
        self._run_id = run_id
        self._sources = sources
        self._letters = letters
        self._singer = singer
        self._states = states
        self._clock = clock
        self._saved: dict[str, dict[str, bytes]] = {source: {} for source in sources}
        self._shown: dict[str, dict[str, bytes]] = {source: {} for source in sources}
        self._copied: dict[str, float] = {}

    def save(
        self, source: str, parts: Mapping[str, bytes], refused: Sequence[BadRecord], number: int = 0
    ) -> Mapping[str, bytes]:
        """See `PositionStore.save`."""
        rows = self._letters.store(source, refused) if refused and self._letters is not None else ()
        state = [change for each in self._states for change in each.until(source, number)]
        if self._singer is not None:
            self._singer.before_save()
        if self._singer is not None and self._singer.is_tap(source):
            tap_moved = self._singer.save(source, parts, rows, state)
            self._state_saved(source, number)
            return tap_moved
        if not self._plan.sources[source].traits.keeps_positions:
            moved = self._moved(source, parts)
            self._write(source, moved, rows, state)
            self._saved[source].update(moved)
            self._state_saved(source, number)
            return moved
        if rows:
            self._write(source, {}, rows)
        if self._plan.exactly_once:  # committed already, in the sink's transaction
            kept = cast(OffsetSource, self._sources[source]).committed(parts)
        else:
            kept = cast(SelfKeptSource, self._sources[source]).commit(parts)
        moved = self._moved(source, kept)
        self._saved[source].update(moved)
        self._copy(source)
        return moved

    def close(self) -> None:
        """Write the newest copies."""
        for source in self._sources:
            self._copy(source, at_once=True)

    def _state_saved(self, source: str, number: int) -> None:
        for each in self._states:
            each.saved(source, number)

    def _moved(self, source: str, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        saved = self._saved[source]
        return {key: value for key, value in parts.items() if saved.get(key) != value}

    def _copy(self, source: str, *, at_once: bool = False) -> None:
        """Copy what a source has committed to the state store, for display."""
        if not self._plan.sources[source].traits.keeps_positions:
            return
        if not at_once and self._clock() - self._copied.get(source, float("-inf")) < COPY_SECONDS:
            return
        self._copied[source] = self._clock()
        shown = self._shown[source]
        new = {key: value for key, value in self._saved[source].items() if shown.get(key) != value}
        self._write(source, cast(SelfKeptSource, self._sources[source]).shown(new), ())
        shown.update(new)

    def _write(
        self,
        source: str,
        parts: Mapping[str, bytes],
        letters: Sequence[DeadLetter],
        state: Sequence[StateChange] = (),
    ) -> None:
        if not parts and not letters and not state:
            return
        sinks = self._plan.sinks_of(source)
        self._store.save(
            self._plan.pipeline,
            source,
            self._run_id,
            [
                BookmarkSave(stream=key, value=value.decode("utf-8", "surrogateescape"), sinks=sinks)
                for key, value in parts.items()
                if value != FORGOTTEN
            ],
            letters,
            dropped=[key for key, value in parts.items() if value == FORGOTTEN],
            state=state,
        )
