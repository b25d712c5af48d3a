"""What a sink has to know about the topics that it writes to: whether they exist, and what they refuse."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

import msgspec

from streamline.connectors.kafka.client import Admin, KafkaError, Outgoing
from streamline.errors import StreamlineError

T = TypeVar("T")

REFRESH_SECONDS = 10.0
"""What is known about a topic is looked up again after so long, before a message is refused because of it."""

_FRAMING = 68
"""The fewest bytes that a batch has besides the key, value and headers of its only message."""

_VALID = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Ask(Protocol):
    """Makes a request, which is given its timeout, until the cluster answers."""

    def __call__(self, request: Callable[[float], T]) -> T:
        """Return what the request returns."""
        ...


class MessageRefusedError(ValueError):
    """The topic will refuse a message."""


class _Topic(msgspec.Struct):
    read_at: float
    max_bytes: int | None = None
    compacted: bool = False
    exists: bool = True


class TargetTopics:
    """Looks up topics, and finds messages that their topic is sure to refuse before they spoil a batch.

    Args:
        ask: makes requests.
        compressed: messages are: only the broker knows whether one is too large.
        pause: waits so many seconds.
        patience: seconds that a topic may be missing, for it may just be being created.
    """

    def __init__(
        self,
        admin: Admin,
        ask: Ask,
        *,
        compressed: bool,
        pause: Callable[[float], None],
        patience: float,
    ) -> None:
        self._admin = admin
        self._ask = ask
        self._compressed = compressed
        self._pause = pause
        self._patience = patience
        self._topics: dict[str, _Topic] = {}

    def require(self, names: Collection[str]) -> None:
        """Look up topics that have to be there.

        Raises:
            StreamlineError: one of them does not exist.
        """
        deadline = time.monotonic() + self._patience
        while missing := [name for name in names if not self._look_up(name).exists]:
            if time.monotonic() >= deadline:
                raise topic_missing(missing[0])
            self._pause(0.2)
            for name in missing:
                del self._topics[name]

    @property
    def smallest_limit(self) -> int | None:
        """The smallest `max.message.bytes` of the topics that are known."""
        return min((topic.max_bytes for topic in self._topics.values() if topic.max_bytes is not None), default=None)

    def check(self, messages: Sequence[Outgoing], own: str) -> None:
        """Check messages before they are produced.

        Args:
            own: the topic that the sink's settings name; it has to exist.

        Raises:
            MessageRefusedError: one of them would be refused.
            StreamlineError: the topic `own` does not exist.
        """
        for name in {message.topic for message in messages}:
            if name not in self._topics and name == own:
                self.require([name])
            topic = self._look_up(name)
            if not topic.exists and not self._look_up(name, again=True).exists:
                raise MessageRefusedError(f"the topic {name} does not exist")
            keyless = topic.compacted and any(message.key is None for message in messages if message.topic == name)
            if keyless and self._look_up(name, again=True).compacted:
                raise MessageRefusedError(f"the topic {name} is compacted: its messages need a key")
            if topic.max_bytes is None or self._compressed:
                continue
            # Only messages of half the limit are looked at closely: keys and headers are seldom so large.
            largest = max([len(message.value) for message in messages if message.value is not None], default=0)
            if largest * 2 > topic.max_bytes:
                sizes = [smallest_size(message) for message in messages if message.topic == name]
                if max(sizes) > topic.max_bytes:
                    limit = self._look_up(name, again=True).max_bytes
                    if limit is not None and max(sizes) > limit:
                        raise MessageRefusedError(
                            f"the message is too large: {max(sizes)} bytes, and the topic {name} takes {limit}"
                        )

    def _look_up(self, name: str, *, again: bool = False) -> _Topic:
        known = self._topics.get(name)
        now = time.monotonic()
        if known is not None and (not again or now - known.read_at < REFRESH_SECONDS):
            return known
        exists = _VALID.fullmatch(name) is not None and self._ask(
            lambda timeout: name in self._admin.topics(timeout, [name])
        )
        topic = self._topics[name] = _Topic(now, exists=exists)
        if not exists:
            return topic
        try:
            config = self._ask(lambda timeout: self._admin.topic_config(name, timeout))
        except KafkaError:
            return topic  # not allowed: the broker will say what it refuses
        limit = config.get("max.message.bytes", "")
        topic.max_bytes = int(limit) if limit.isdecimal() else None
        topic.compacted = "compact" in config.get("cleanup.policy", "")
        return topic


def smallest_size(message: Outgoing) -> int:
    """Return the fewest bytes of a batch that has only this message, not compressed."""
    size = _FRAMING + len(message.key or b"") + len(message.value or b"")
    for name, value in message.headers or ():
        size += 2 + len(name.encode()) + len(value or b"")
    return size


def topic_missing(name: str) -> StreamlineError:
    """Return the error of a topic that has to exist and does not."""
    return StreamlineError(
        f"the topic {name} does not exist",
        hint="create it (Streamline creates no topics to write to), or correct `topic`",
        code="kafka.topic_missing",
    )
