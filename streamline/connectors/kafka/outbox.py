"""What a producer has taken since the last flush, and what becomes of it.

A broker refuses a whole batch for one message, and both client libraries then also fail messages that nothing is wrong
with. So what failed is sent again in ever smaller groups until it is known which message is refused for itself. With a
failed message all later ones of the same key are sent again, so that the last one of a key stays the last: the price is
that some arrive twice, as they may after any failure of an at-least-once delivery.

In a transaction nothing can be sent again: it has to be aborted. Who produces in it finds out which message it was, in
another transaction.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from streamline.connectors.kafka.client import Outgoing, Unavailable, Undelivered
from streamline.connectors.kafka.failures import OF_THE_MESSAGE, OF_THE_TOPIC, failure

PAUSE_SECONDS = 0.1
"""Between two attempts to send what failed through no fault of its own."""


TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Library(Protocol):
    """What the outbox asks of a client library's producer."""

    def send(self, numbers: Sequence[int], messages: Sequence[Outgoing]) -> None:
        """Give messages to the library. Failures go to `Outbox.failed` or `Outbox.refuse`, by number."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait until each message that was given has been delivered or has failed; False: not within the timeout."""
        ...

    def recover(self, timeout: float) -> None:
        """Make the library ready to send again after messages have failed.

        Raises:
            Unavailable: not within the timeout.
            KafkaError: it cannot; it is fenced or fatal.
        """
        ...


class Outbox:
    """Messages since the last flush, by their numbers."""

    def __init__(self, library: Library, *, transactional: bool) -> None:
        self._library = library
        self._transactional = transactional
        self._lock = threading.Lock()
        self._topics: set[str] = set()  # whose names are valid
        self.round = 0
        """Rises with each flush and drop; the messages are numbered anew."""
        self._clear()

    def _clear(self) -> None:
        self.round += 1
        self._messages: list[Outgoing] = []
        self._failures: dict[int, tuple[str, str]] = {}
        self._undelivered: dict[int, Undelivered] = {}
        self._groups: list[list[int]] = []  # to be sent again; the next one is the last
        self._sent_again: list[int] | None = None

    def add(self, messages: Sequence[Outgoing]) -> None:
        """Take messages and give them to the library."""
        first = len(self._messages)
        self._messages.extend(messages)
        numbers: Sequence[int] = range(first, len(self._messages))
        if not self._topics.issuperset(message.topic for message in messages):
            numbers = [
                number
                for number, message in zip(numbers, messages, strict=True)
                if message.topic in self._topics or self._is_topic(number, message.topic)
            ]
            messages = [self._messages[number] for number in numbers]
        self._library.send(numbers, messages)

    def _is_topic(self, number: int, topic: str) -> bool:
        """Return whether a topic's name is valid; if it is not, the message is refused."""
        if TOPIC.fullmatch(topic) is None or topic in (".", ".."):
            self.refuse(number, "TOPIC_EXCEPTION", f"{topic!r} cannot be the name of a topic")
            return False
        self._topics.add(topic)
        return True

    def failed(self, number: int, kafka_code: str, reason: str, *, of_round: int | None = None) -> None:
        """A message was not delivered. May be called from any thread.

        Args:
            of_round: `round` when it was sent, where the library may report it after it was dropped.
        """
        with self._lock:
            if of_round is None or of_round == self.round:
                self._failures[number] = (kafka_code, reason)

    @property
    def any_failed(self) -> bool:
        """Whether a message has failed since the library was last waited for."""
        with self._lock:
            return bool(self._failures)

    def refuse(self, number: int, kafka_code: str, reason: str) -> None:
        """A message can never be delivered; the broker need not be asked. Called in the producer's thread."""
        self._undelivered[number] = Undelivered(number, kafka_code, reason)

    def flush(self, timeout: float) -> list[Undelivered] | None:
        """See `Producer.flush`."""
        deadline = time.monotonic() + timeout
        while True:
            if not self._library.wait(max(0.0, deadline - time.monotonic())):
                return None
            with self._lock:
                failures, self._failures = self._failures, {}
            if failures and self._transactional:
                self._accuse(failures)
            elif failures:
                transient = self._divide(failures)
                if transient:
                    time.sleep(min(PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))
            if not self._groups:
                break
            try:
                self._library.recover(max(0.0, deadline - time.monotonic()))
            except Unavailable:
                return None
            self._sent_again = self._groups.pop()
            self._library.send(self._sent_again, [self._messages[number] for number in self._sent_again])
        undelivered = [self._undelivered[number] for number in sorted(self._undelivered)]
        self._clear()
        return undelivered

    def drop(self) -> None:
        """Forget all messages: their transaction is aborted."""
        self._clear()

    def _divide(self, failures: dict[int, tuple[str, str]]) -> bool:
        """Decide what of the last group is sent again and how; returns whether nothing but time may help."""
        group = self._sent_again if self._sent_again is not None else range(len(self._messages))
        one_topic = len({self._messages[number].topic for number in group}) == 1
        again: list[int] = []
        keys: set[tuple[str, bytes]] = set()
        for number in group:
            message = self._messages[number]
            code, reason = failures.get(number, ("", ""))
            if (code in OF_THE_MESSAGE and len(group) == 1) or (code in OF_THE_TOPIC and one_topic):
                self._undelivered[number] = Undelivered(number, code, reason)
            elif code or (message.key is not None and (message.topic, message.key) in keys):
                again.append(number)
                if message.key is not None:
                    keys.add((message.topic, message.key))
        blamed = any(code in OF_THE_MESSAGE or code in OF_THE_TOPIC for code, _ in failures.values())
        if not again:
            return False
        if not blamed:
            self._groups.append(again)
            return True
        self._groups.extend(reversed(self._parts(again)))
        return False

    def _parts(self, numbers: list[int]) -> list[list[int]]:
        """Return the messages in smaller groups: by topic, or in halves. Those of one key keep their order."""
        by_topic: dict[str, list[int]] = {}
        for number in numbers:
            by_topic.setdefault(self._messages[number].topic, []).append(number)
        if len(by_topic) > 1:
            return list(by_topic.values())
        half = (len(numbers) + 1) // 2
        return [part for part in (numbers[:half], numbers[half:]) if part]

    def _accuse(self, failures: dict[int, tuple[str, str]]) -> None:
        """Return the messages for which a transaction may have failed as undelivered.

        Raises:
            KafkaError: none of them is to blame.
        """
        accused = [
            Undelivered(number, code, reason)
            for number, (code, reason) in failures.items()
            if code in OF_THE_MESSAGE or code in OF_THE_TOPIC
        ]
        if not accused and not self._undelivered:
            code, reason = next(iter(failures.values()))
            raise failure("deliver messages", code, reason, transient=True)
        self._undelivered.update((each.number, each) for each in accused)
