"""Produces in transactions: messages, dead letters and the offsets of what they were made of become visible together.

A transaction covers everything that the sources gave up to a position of each. Its messages are kept until it is
committed, and are produced again in another one if it has to be aborted. Where that is not enough the sink fails: the
next attempt reads from the group's offsets, which are right in any case.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from threading import TIMEOUT_MAX
from typing import Any, Final, NamedTuple, Protocol

import anyio.from_thread
import msgspec

from streamline.connectors.kafka.client import Committed, KafkaError, NotMember, Partition, ProducerOptions
from streamline.connectors.kafka.dead_letter_messages import letter_message
from streamline.connectors.kafka.deadlines import Call
from streamline.connectors.kafka.sent import Letters, Place, Sent, SentItems, origins_of
from streamline.connectors.kafka.sink_outages import REQUEST_SECONDS, RETRY_SECONDS
from streamline.connectors.kafka.sink_thread import ABANDON_SECONDS, QUIET_SECONDS, LoopSide, ProducerThread
from streamline.connectors.kafka.target_topics import MessageRefusedError
from streamline.connectors.stream_connector import OffsetSource
from streamline.errors import StreamlineError
from streamline.flow.items import MessageBatch, Origin, Position
from streamline.state.store import DeadLetter

LETTERS: Final = "dead letters"
"""In place of a block: these messages are dead letters."""

Offsets = tuple[Mapping[Partition, Committed], Any]
"""What a transaction commits of a source, and the group's metadata."""

MAX_TRIES: Final = 5
"""How often a transaction is tried that fails for no reason that passes by itself."""

_MOST_OF: Final = 0.8
"""A transaction that was open for this part of its timeout may have been aborted by the broker."""


class TransactionSide(LoopSide, Protocol):
    """What the thread uses of a `TransactionalKafkaSink`."""

    offsets_from: Mapping[str, OffsetSource]
    dead_letter_topic: str | None

    @property
    def letters_refused(self) -> Callable[[Sequence[DeadLetter]], None]: ...


class _Released(NamedTuple):
    """Keys that belong to somebody else, as far as a source's positions up to a number are concerned."""

    source: str
    keys: frozenset[str]
    number: int


class _UndeliveredError(Exception):
    """Messages of the transaction were not delivered."""

    def __init__(self, places: list[Place]) -> None:
        super().__init__()
        self.places = places


class Transactions(ProducerThread):
    """Produces exactly once; see `ProducerThread`."""

    _loop: TransactionSide

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._parts: dict[str, dict[str, tuple[int, bytes]]] = {}
        """By source and key: the newest value in this transaction, and the number of its position."""
        self._unfinished: set[str] = set()
        """Sources that gave something after their newest position."""
        self._began_at: float | None = None
        """When the open transaction was begun."""
        self._stale = False
        """What was produced is not what the transaction is to hold."""
        self._produce_error: KafkaError | None = None
        self._lost = False
        """The producer is unusable."""
        self._incoming: deque[_Released] = deque()
        self._released: list[_Released] = []

    # -- called in the event loop

    def forget(self, source: str, keys: Collection[str], number: int) -> None:
        """Commit nothing more of these keys that came before a source's position of a number."""
        self._incoming.append(_Released(source, frozenset(keys), number))

    # -- what is sent

    def _options(self) -> ProducerOptions:
        context = self._context
        return msgspec.structs.replace(
            super()._options(),
            transactional_id=f"streamline.{context.pipeline}.{context.checkout}.{context.slot}",
            transaction_seconds=self._settings.transaction_seconds,
        )

    def _required_topics(self) -> list[str]:
        letters = self._loop.dead_letter_topic
        return [*super()._required_topics(), *([letters] if letters is not None else [])]

    def _prepare(self) -> None:
        self._outages.ask(self._producer.init_transactions)

    def _wait_seconds(self) -> float | None:
        if not self._pending:
            return None
        return max(QUIET_SECONDS, self._last + self._context.checkpoint_interval - time.monotonic())

    def _due(self, idle: bool, *, quiet: bool) -> bool:
        full = self._nbytes >= self._max_bytes
        late = time.monotonic() - self._last >= self._context.checkpoint_interval
        if not self._pending or not (full or late or (idle and self._hurried())):
            return False
        if not self._unfinished:
            return True
        if full and idle:
            anyio.from_thread.run_sync(self._loop.take_more)
        return False

    def _take(self, job: SentItems | Letters) -> None:
        super()._take(job)
        if isinstance(job, Letters):
            self._apply_releases()
            self._unfinished.add(job.source)
            letters = list(job.letters)
            for released in self._released:
                if released.source == job.source:
                    kept = _indexes_without([_origin(letter) for letter in letters], released.keys)
                    letters = [letters[index] for index in kept]
            self._produce_letters(job.source, letters, self._newest.get(job.source, 0))

    def _take_batch(self, source: str, batch: MessageBatch) -> None:
        self._apply_releases()
        self._unfinished.add(source)
        for released in self._released:
            if released.source == source:
                batch = _batch_without(batch, released.keys)
        if batch.data:
            super()._take_batch(source, batch)

    def _take_position(self, position: Position) -> None:
        super()._take_position(position)
        source, number = position.source, position.number
        self._apply_releases()
        self._unfinished.discard(source)
        gone = {key for each in self._released if each.source == source and number <= each.number for key in each.keys}
        self._released = [each for each in self._released if each.source != source or each.number > number]
        self._parts.setdefault(source, {}).update(
            {
                key: (number, value)
                for key, value in position.parts.items()
                if key not in position.withheld and key not in gone
            }
        )

    def _refuse(
        self, sent: Sent, data: Any, origin: Origin | None, reason: str, lineage: Origin | None = None
    ) -> Sequence[DeadLetter]:
        letters = super()._refuse(sent, data, origin, reason, lineage)
        self._produce_letters(sent.source, letters, sent.after)
        return letters

    def _produce_letters(self, source: str, letters: Sequence[DeadLetter], after: int) -> None:
        topic = self._loop.dead_letter_topic
        if topic is None:
            return
        sent = Sent(source, LETTERS, LETTERS, [], [], [], after)
        for letter in letters:
            message = letter_message(letter, topic)
            try:
                self._check([message], topic)
            except MessageRefusedError:
                self._loop.letters_refused([letter])
                continue
            sent.messages.append(message)
            sent.data.append(letter)
            sent.origins.append(_origin(letter))
        if sent.messages:
            self._produce(sent)

    def _produce(self, sent: Sent) -> None:
        self._window.append(sent)
        if not self._stale and self._produce_error is None:
            try:
                self._begin()
            except KafkaError as error:
                self._produce_error = error
            else:
                self._produce_now(sent)

    def _produce_now(self, sent: Sent) -> None:
        """Produce within the transaction. An error is seen at the next flush, which tells why there is one."""
        try:
            self._hand_over(sent)
        except KafkaError as error:
            self._produce_error = error

    # -- one transaction

    def _checkpoint(self, *, closing: bool) -> None:
        if self._unfinished:
            self._drop_unfinished()
        tries, suspects = 0, list[Place]()
        while True:
            try:
                if suspects:
                    self._refuse_culprits(suspects)
                    suspects = []
                self._transact()
                break
            except _UndeliveredError as error:
                suspects = error.places
            except KafkaError as error:
                tries += 1
                self._judge(error, tries)
            self._stale = True
        self._window.clear()
        self._parts.clear()
        self._prove()

    def _transact(self) -> None:
        self._apply_releases()
        if self._stale:
            self._roll_back()
            _answers(self._ask_offsets())
            for sent in self._window:
                self._begin()
                self._produce_now(sent)
        # The consumers' threads answer while messages are delivered. If the group rebalances meanwhile, the broker
        # refuses the offsets, because the metadata are of the former generation.
        asked = self._ask_offsets()
        self._flush_all()
        offsets = _answers(asked)
        if self._incoming:
            raise NotMember("partitions were taken away during the transaction")
        for of_source, group_metadata in offsets:
            self._begin()
            self._producer.send_offsets(of_source, group_metadata, REQUEST_SECONDS)
        if self._began_at is not None:
            self._commit()

    def _begin(self) -> None:
        if self._began_at is None:
            self._producer.begin()
            self._began_at = time.monotonic()

    def _flush_all(self) -> None:
        if undelivered := self._flush():
            raise _UndeliveredError([place for place, _ in undelivered])
        if self._produce_error is not None:
            raise self._produce_error

    def _ask_offsets(self) -> list[Call[Offsets]]:
        """Ask each source for the offsets that the transaction commits."""
        asked = []
        for source, parts in self._parts.items():
            if parts and source in self._loop.offsets_from:
                values = {key: value for key, (_, value) in parts.items()}
                ask = partial(self._loop.offsets_from[source].transaction_offsets, values)
                asked.append(Call("ask for offsets", ask))
        return asked

    def _commit(self) -> None:
        """Commit. Whether a request that was not answered did so is found out by making it again."""
        deadline = time.monotonic() + self._settings.transaction_seconds
        while True:
            try:
                self._producer.commit(REQUEST_SECONDS)
            except KafkaError as error:
                known = not (error.transient or error.fatal or error.fenced)
                if known or (error.fenced and not self._timed_out):
                    raise
                if error.fatal or error.fenced or time.monotonic() >= deadline:
                    raise StreamlineError(
                        f"it is not known whether a transaction was committed: {error.message}",
                        where=self._connection.cluster,
                        hint="the group's offsets tell it: the next attempt reads from there",
                        code="kafka.transaction_unknown",
                    ) from error
                self._outages.unanswered(error.message)
                self._outages.pause(RETRY_SECONDS)
            else:
                self._outages.answered()
                self._began_at = None
                return

    @property
    def _timed_out(self) -> bool:
        """Whether the broker may have aborted the transaction."""
        return self._open_seconds >= _MOST_OF * self._settings.transaction_seconds

    @property
    def _open_seconds(self) -> float:
        return 0.0 if self._began_at is None else time.monotonic() - self._began_at

    def _check_age(self) -> None:
        """Give up a transaction that the broker has aborted for its age, and the producer, which may have lost what it
        waits for.

        Raises:
            KafkaError: it is as old.
        """
        if self._open_seconds > self._settings.transaction_seconds:
            raise KafkaError(
                f"messages were not acknowledged within {self._settings.transaction_seconds:g} seconds",
                kafka_code="_TIMED_OUT",
                transient=True,
                fatal=True,
                code="kafka.unavailable",
            )

    def _judge(self, error: KafkaError, tries: int) -> None:
        """Decide what follows an error: to return is to try again.

        Raises:
            KafkaError: there is no sense in that.
        """
        if error.fenced and not self._timed_out:
            raise error
        passes = error.transient or isinstance(error, NotMember)
        if not passes and (tries >= MAX_TRIES or error.kafka_code.endswith("_AUTHORIZATION_FAILED")):
            raise error
        self._lost = self._lost or error.fatal or error.fenced
        self._outages.unanswered(error.message)
        self._outages.pause(RETRY_SECONDS)

    def _roll_back(self) -> None:
        """Abort the open transaction, with another producer if this one cannot."""
        if self._began_at is not None and not self._lost:
            try:
                self._outages.ask(self._producer.abort)
            except KafkaError as error:
                if error.fenced and not self._timed_out:
                    raise
                self._lost = True
        if self._lost:
            self._producer.close(ABANDON_SECONDS)
            self._producer = self._client.producer(self._connection, self._options())
            self._outages.ask(self._producer.init_transactions)  # aborts what the other one has left
            self._lost = False
        self._unflushed.clear()
        self._began_at = self._produce_error = None
        self._stale = False

    def _drop_unfinished(self) -> None:
        """Drop what came after the last position of its source: the source has failed."""
        kept = [
            sent
            for sent in self._window
            if sent.source not in self._unfinished or sent.after < self._newest.get(sent.source, 0)
        ]
        self._stale = self._stale or len(kept) < len(self._window)
        self._window = kept
        self._unfinished.clear()

    # -- refused messages

    def _refuse_culprits(self, suspects: list[Place]) -> None:
        """Take the messages out of the transaction that are refused for their own sake."""
        culprits = self._culprits(suspects)
        self._stale = True
        reasons: dict[int, dict[int, str]] = {}
        for place, reason in culprits:
            reasons.setdefault(id(place.sent), {})[place.number] = reason
        refused = [(sent, reasons[id(sent)]) for sent in self._window if id(sent) in reasons]
        taken = [
            (sent, sent.data[index], sent.origins[index], why, sent.lineage_of(index))
            for sent, at in refused
            for index, why in at.items()
        ]
        for sent, at in refused:
            _keep(sent, [index for index in range(len(sent.messages)) if index not in at])
        for sent, data, origin, reason, lineage in taken:
            if sent.block == LETTERS:
                self._loop.letters_refused([data])
            else:
                self._refuse(sent, data, origin, reason, lineage)

    def _culprits(self, suspects: list[Place]) -> list[tuple[Place, str]]:
        """Return the messages that are refused also when they are alone, and why: found in transactions that are
        aborted."""
        self._roll_back()
        self._begin()
        self._produce_now(Sent("", "", "", [place.message for place in suspects], [], []))
        undelivered = self._flush()
        error, self._stale = self._produce_error, True
        if not undelivered:
            if error is not None:
                raise error
            return []
        if len(suspects) == 1:
            return [(suspects[0], undelivered[0][1])]
        failed = [suspects[place.number] for place, _ in undelivered]
        middle = (len(failed) + 1) // 2
        return [culprit for part in (failed[:middle], failed[middle:]) if part for culprit in self._culprits(part)]

    # -- keys that belong to somebody else

    def _apply_releases(self) -> None:
        while self._incoming:
            released = self._incoming.popleft()
            if released.number <= self._newest.get(released.source, 0) and not self._window and not self._parts:
                continue
            if released.number > self._newest.get(released.source, 0):
                self._released.append(released)
            for sent in self._window:
                if sent.source == released.source and sent.after < released.number:
                    self._drop(sent, released.keys)
            parts = self._parts.get(released.source, {})
            for key in released.keys & parts.keys():
                if parts[key][0] <= released.number:
                    del parts[key]
            self._window = [sent for sent in self._window if sent.messages]

    def _drop(self, sent: Sent, keys: Collection[str]) -> None:
        kept = _indexes_without(sent.origins, keys)
        if len(kept) < len(sent.messages):
            _keep(sent, kept)
            self._stale = True

    # -- the end

    def _abandon(self) -> None:
        if self._began_at is not None:
            with contextlib.suppress(KafkaError):
                self._producer.abort(ABANDON_SECONDS)
        super()._abandon()

    def _explained(self, error: KafkaError) -> StreamlineError:
        if not error.fenced:
            return super()._explained(error)
        return KafkaError(
            f"another instance of this pipeline took over: {error.message}",
            where=self._connection.cluster,
            hint="run a pipeline only once, or with `instances`",
            kafka_code=error.kafka_code,
            fenced=True,
            code="kafka.producer_fenced",
        )


def _answers(asked: Sequence[Call[Offsets]]) -> list[Offsets]:
    """Return the offsets; a source answers within a time of its own."""
    offsets = [call.result(TIMEOUT_MAX) for call in asked]
    return [each for each in offsets if each[0]]


def _keep(sent: Sent, indexes: Sequence[int]) -> None:
    sent.messages = [sent.messages[index] for index in indexes]
    sent.data = [sent.data[index] for index in indexes]
    sent.origins = [sent.origins[index] for index in indexes]
    if sent.lineage is not None:
        sent.lineage = [sent.lineage[index] for index in indexes]


def _indexes_without(origins: Sequence[Origin | None], keys: Collection[str]) -> list[int]:
    """Return which messages are not of these keys.

    Raises:
        StreamlineError: a message has no origin.
    """
    kept = []
    for index, origin in enumerate(origins):
        if origin is None:
            raise StreamlineError(
                "partitions were taken away, and it is not known which messages were made of theirs",
                hint="the next attempt reads from the group's offsets",
                code="kafka.partitions_lost",
            )
        if f"{origin.topic}/{origin.partition}" not in keys:
            kept.append(index)
    return kept


def _batch_without(batch: MessageBatch, keys: Collection[str]) -> MessageBatch:
    origins = origins_of(batch)
    kept = _indexes_without(origins, keys)
    if len(kept) == batch.count:
        return batch
    return MessageBatch(
        batch.stream, [batch.data[index] for index in kept], [origins[index] for index in kept], batch.sink
    )


def _origin(letter: DeadLetter) -> Origin | None:
    """Return where the message of a letter was read, if that is certain."""
    if letter.inferred or letter.topic is None or letter.partition is None or letter.offset is None:
        return None
    return Origin(letter.topic, letter.partition, letter.offset, letter.key, letter.value)
