"""In which order dead letters are sent again, and the sources that give them to the flows.

Letters of one key go one after the other: the next is given when what became of the one before it is known. So letters
go in *waves*, each with at most one letter of a key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import anyio

from streamline.execution.streaming.letters import data_of
from streamline.flow.items import MessageBatch, Origin, Position
from streamline.flow.protocols import Emit
from streamline.flow.stages.repartition import without_first_headers
from streamline.state.store import DeadLetter

MAX_WAVE = 1_000
"""Letters of one wave."""

WAVE = "wave"
"""The part of a position that numbers the wave."""


class Waves:
    """Hands out letters.

    Args:
        letters: by the source that gives them; None: none can, and what comes after them of their keys waits.

    Attributes:
        held: letters that are not sent because one before them stays.
    """

    def __init__(self, letters: Mapping[str | None, Sequence[DeadLetter]]) -> None:
        self.held: list[DeadLetter] = []
        self._number = 0
        self._unsettled: set[str] = set()
        self._given: dict[str, list[DeadLetter]] = {}
        self._blocked: set[Hashable] = set()
        self._changed = anyio.Event()
        self._ended = False
        queues: dict[Hashable, deque[tuple[str | None, DeadLetter]]] = {}
        pairs = [(source, letter) for source, each in letters.items() for letter in each]
        for source, letter in sorted(pairs, key=lambda pair: place_in_queue(pair[1])):
            queues.setdefault(key_of(letter), deque()).append((source, letter))
        self._queues = deque(queues.values())

    async def next(self, source: str) -> tuple[int, list[DeadLetter]] | None:
        """Return the number of the next wave with letters of a source, and these; None: there are no more."""
        while True:
            while not self._unsettled and not self._ended:
                self._begin()
            if source in self._given:
                return self._number, self._given.pop(source)
            if self._ended:
                return None
            await self._changed.wait()

    def settled(self, source: str) -> None:
        """Note that it is known what became of all letters of a source in the wave."""
        self._unsettled.discard(source)
        self._notify()

    def refused(self, letter: DeadLetter) -> None:
        """Hold back all letters of later messages with the letter's key."""
        self._blocked.add(key_of(letter))

    def end(self) -> None:
        """Give no more letters."""
        self._ended = True
        self._notify()

    def _begin(self) -> None:
        """Begin the next wave; end if no letters are left."""
        given: dict[str, list[DeadLetter]] = {}
        waiting: deque[deque[tuple[str | None, DeadLetter]]] = deque()
        count = 0
        while self._queues and count < MAX_WAVE:
            queue = self._queues.popleft()
            first = queue[0][1]
            if key_of(first) in self._blocked:
                self.held += [letter for _, letter in queue]
                continue
            # Several letters of one message were refused at different places.
            while queue and (queue[0][1] is first or _same_message(queue[0][1], first)):
                source, letter = queue.popleft()
                if source is None:
                    self._blocked.add(key_of(letter))
                else:
                    given.setdefault(source, []).append(letter)
                    count += 1
            if queue:
                waiting.append(queue)
        self._queues += waiting
        self._given = given
        self._unsettled = set(given)
        self._number += 1
        self._ended = not given and not self._queues
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class LetterSource:
    """Gives the letters of a source block, each in a batch of its own: a `flow.protocols.Source`.

    Args:
        sent: is told what is given.
    """

    stopped: str | None = None

    def __init__(self, id: str, waves: Waves, sent: SentLetters) -> None:
        self.id = id
        self._waves = waves
        self._sent = sent

    async def run(self, emit: Emit) -> None:
        """See `Source.run`."""
        while (wave := await self._waves.next(self.id)) is not None:
            number, letters = wave
            self._sent.begin(letters)
            for letter in letters:
                await emit([self._sent.batch(letter)])
            await emit([Position(self.id, number, {WAVE: str(number).encode()}, awaited=True)])

    def stop(self, reason: str) -> None:
        """See `Source.stop`."""
        self.stopped = reason
        self._waves.end()

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`."""

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`."""


class SentLetters:
    """Which letters of a source are on their way, and of which one a message is. Objects are found by their ids.

    Attributes:
        letters: of the wave.
        current: the one that is processed.
    """

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.current: DeadLetter | None = None
        self._origins: dict[int, tuple[Origin, DeadLetter]] = {}
        self._batches: dict[int, tuple[MessageBatch, DeadLetter]] = {}

    def begin(self, letters: Sequence[DeadLetter]) -> None:
        """Begin the next wave; everything of the one before has arrived or was refused."""
        self.letters, self.current = list(letters), None
        self._origins.clear()
        self._batches.clear()

    def batch(self, letter: DeadLetter) -> MessageBatch:
        """Return a letter as a message."""
        origin = origin_of(letter)
        data: Any = letter.value if letter.form in ("value", "text") else data_of(letter)
        batch = MessageBatch(letter.stream, [data], None if origin is None else [origin])
        if origin is not None:
            self._origins[id(origin)] = (origin, letter)
        self._batches[id(batch)] = (batch, letter)
        return batch

    def by_batch(self, batch: MessageBatch) -> DeadLetter:
        """Return the letter that was made a batch."""
        return self._batches[id(batch)][1]

    def by_origin(self, origin: Origin | None) -> DeadLetter | None:
        """Return the letter that a message with this very origin is of."""
        return None if origin is None else self._origins.get(id(origin), (None, None))[1]


def origin_of(letter: DeadLetter) -> Origin | None:
    """Return where a letter's message was read, and what stood beside its data; None: nothing is known of it."""
    if letter.topic is None and letter.key is None and letter.value is None:
        return None
    origin = Origin(
        letter.topic or letter.stream,
        -1 if letter.partition is None else letter.partition,
        -1 if letter.offset is None else letter.offset,
        letter.key,
        letter.value,
        letter.headers,
        letter.message_time,
    )
    return without_first_headers(origin)


def key_of(letter: DeadLetter) -> Hashable:
    """Return what is equal for letters that must arrive in their order: those of one key in one partition."""
    if letter.key is None:
        return letter.id
    return letter.block, letter.topic or letter.stream, letter.partition, letter.key


def place_in_queue(letter: DeadLetter) -> tuple[int, str, int]:
    """Return what orders letters of one key."""
    # A message without an offset has only the time at which it was refused.
    return letter.offset or 0, letter.time, letter.id


def _same_message(letter: DeadLetter, other: DeadLetter) -> bool:
    return letter.topic is not None and letter.offset == other.offset
