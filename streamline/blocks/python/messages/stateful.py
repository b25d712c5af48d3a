"""A transformer block with keyed state as a stage: its calls hold messages of one partition each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial

from streamline.blocks.python.messages.caller import MessageCaller
from streamline.blocks.python.messages.keyed_state import BlockState, place_of
from streamline.blocks.python.messages.transform import AHEAD, MessageTransform
from streamline.blocks.python.messages.worker import MessageCall, MessageWorker
from streamline.flow.items import Item, MessageBatch, Position
from streamline.flow.keyed_state import Place


class StatefulTransform(MessageTransform):
    """Calls the function partition by partition, and sends what it changed of its state before each position, as
    batches for the sink `log`.

    Implements `flow.protocols.FlushableStage` and `KeyedStage`.

    Args:
        log: id of the sink for changes.
        interval: seconds between two positions, while more is waiting: others are left out, because the next one
            covers them and a key that is changed often is then written once. 0: none is.
        place: of the state that all messages of the source use; None: that of their partition.
    """

    def __init__(self, worker: MessageWorker, log: str, *, interval: float = 0.0, place: Place | None = None) -> None:
        super().__init__(worker, place=place)
        self._log = log
        self._interval = interval
        self._places: set[Place] = set() if place is None else {place}
        self._held: Position | None = None
        """Left out so far; it goes on if nothing comes after it."""
        self._passed_at = 0.0
        self._newest = 0
        self._forgotten: list[tuple[int, frozenset[Place]]] = []
        """Until the position of this number comes, messages of these partitions are old ones."""
        self._told: deque[MessageCall] = deque()

    @property
    def pending(self) -> bool:
        """See `MessageTransform.pending`."""
        return self._held is not None or super().pending

    async def process(self, item: Item) -> Sequence[Item]:
        """See `MessageTransform.process`."""
        if isinstance(item, MessageBatch) and item.data:
            self._held = None
            items: list[Item] = []
            for batch in _by_partition(item) if self._place is None else [item]:
                if self._place is None and (place := place_of(batch.made_of(0)[0])) is not None:
                    self._places.add(place)
                items += await super().process(batch)
            return items
        if not isinstance(item, Position):
            return await super().process(item)
        while self._told and self._told[0].future.done():
            self._told.popleft().future.result()
        for number, places in self._forgotten:
            if number <= item.number:
                # Messages that were given before they were forgotten have come since.
                self._drop(places)
        self._forgotten = [each for each in self._forgotten if each[0] > item.number]
        self._newest = item.number
        if item.awaited or time.monotonic() - self._passed_at >= self._interval:
            self._pass(item)
        else:
            self._held = item
        return await self._ready(AHEAD)

    async def flush(self) -> Sequence[Item]:
        """See `MessageTransform.flush`."""
        if self._held is not None:
            self._pass(self._held)
        return await super().flush()

    async def finish(self) -> Sequence[Item]:
        """See `MessageTransform.finish`."""
        if self._held is not None:
            self._pass(self._held)
        return await super().finish()

    def forget(self, keys: Collection[str], number: int) -> None:
        """See `KeyedStage.forget`."""
        places = frozenset(place for place in self._places if str(place) in keys)
        if places and not self._closed:
            self._drop(places)
            if number > self._newest:
                self._forgotten.append((number, places))

    def saved(self, position: Position, keys: Collection[str]) -> None:
        """Note that a position is saved, as far as these of its keys are concerned."""
        own = keys if self._place is None else [str(self._place)]
        if own and not self._closed:
            self._tell(lambda state: state.saved(position.source, position.number, own))

    def _pass(self, position: Position) -> None:
        self._held = None
        self._passed_at = time.monotonic()
        work = partial(_propose, position, frozenset(self._places), self._log)
        self._submit(MessageCall(None, work=work))
        self._queue.append(position)

    def _drop(self, places: frozenset[Place]) -> None:
        self._tell(lambda state: state.drop(places))

    def _tell(self, what: Callable[[BlockState], None]) -> None:
        def work(caller: MessageCaller) -> list[Item]:
            assert caller.state is not None
            what(caller.state)
            return []

        call = MessageCall(None, work=work)
        self._worker.submit(call)
        self._told.append(call)


def _propose(position: Position, places: Collection[Place], log: str, caller: MessageCaller) -> list[Item]:
    assert caller.state is not None
    return list(caller.state.propose(position.source, position.number, places, log))


def _by_partition(batch: MessageBatch) -> Sequence[MessageBatch]:
    """Return the messages of each partition, in their order."""
    numbers: dict[tuple[str, int] | None, list[int]] = {}
    topic: str | None = None
    of_topic: dict[int, list[int]] = {}
    for number, origin in enumerate(batch.made_of_all()):
        if origin is None:
            numbers.setdefault(None, []).append(number)
            continue
        if origin.topic != topic:
            topic, of_topic = origin.topic, {}
        theirs = of_topic.get(origin.partition)
        if theirs is None:
            theirs = of_topic[origin.partition] = numbers.setdefault((topic, origin.partition), [])
        theirs.append(number)
    return [batch] if len(numbers) == 1 else [batch.only(chosen) for chosen in numbers.values()]
