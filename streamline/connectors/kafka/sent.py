"""What a Kafka sink is sent, and what of it is not proven yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from streamline.connectors.kafka.client import Outgoing
from streamline.flow.items import Item, MessageBatch, Origin
from streamline.state.store import DeadLetter

CLOSE: Final = "close"


class SentItems(NamedTuple):
    """Items of one call of `send`; `nbytes` is their room."""

    source: str
    items: Sequence[Item]
    nbytes: int


class Letters(NamedTuple):
    """Dead letters of a source, for the transaction."""

    source: str
    letters: Sequence[DeadLetter]
    nbytes: int


Job: TypeAlias = SentItems | Letters | Literal["close"] | None
"""None: look at what else has changed."""


class Sent(msgspec.Struct):
    """Messages that are not proven yet, of one batch.

    Args:
        data, origins, lineage: of each message, as the sink was sent it.
        after: number of the last position of the source before them.
    """

    source: str
    block: str
    stream: str
    messages: list[Outgoing]
    data: list[Any]
    origins: list[Origin | None]
    after: int = 0
    lineage: list[Origin | None] | None = None

    def lineage_of(self, number: int) -> Origin | None:
        """Return the origin of the message that a new one was most likely made of."""
        return self.lineage[number] if self.lineage is not None else None


class Place(NamedTuple):
    """A message among those that are not proven."""

    sent: Sent
    number: int

    @property
    def message(self) -> Outgoing:
        """The message."""
        return self.sent.messages[self.number]


def origins_of(batch: MessageBatch) -> list[Origin | None]:
    """Return the origin of each message of a batch."""
    return batch.origins if batch.origins is not None else [None] * batch.count
