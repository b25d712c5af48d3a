"""A producer of confluent-kafka."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaException, Producer, TopicPartition

from streamline.connectors.kafka.client import (
    Committed,
    Connection,
    KafkaError,
    Outgoing,
    Partition,
    ProducerOptions,
    Unavailable,
    Undelivered,
)
from streamline.connectors.kafka.confluent_shared_client import Troubles, settings
from streamline.connectors.kafka.deadlines import within
from streamline.connectors.kafka.outbox import Outbox

NO_LIMIT = 2**31 - 1
LIBRARY_NAMES = {"_UNKNOWN_TOPIC": "UNKNOWN_TOPIC_OR_PART"}
REFUSED = ("MSG_SIZE_TOO_LARGE", "_UNKNOWN_PARTITION", "_INVALID_ARG")
PURGED = ("_PURGE_QUEUE", "_PURGE_INFLIGHT")
LIMIT_SECONDS = 10.0


class ConfluentProducer:
    """See `Producer`."""

    def __init__(self, connection: Connection, options: ProducerOptions) -> None:
        self._troubles = Troubles()
        self._transactional = options.transactional_id is not None
        self._outbox = Outbox(self, transactional=self._transactional)
        self._configuration = _configuration(connection, options, self._troubles)
        self._library: Any = Producer(self._configuration)
        self._failed = False  # a message, since the library was opened

    def produce_batch(self, messages: Sequence[Outgoing]) -> None:
        """See `Producer.produce_batch`."""
        self._outbox.add(messages)
        with self._troubles.errors("deliver messages"):
            self._library.poll(0)

    def flush(self, timeout: float) -> list[Undelivered] | None:
        """See `Producer.flush`."""
        try:
            return self._outbox.flush(timeout)
        except KafkaError as error:
            if error.kafka_code in PURGED:
                # A transaction with an undelivered message cannot be committed: the refusal says why it has failed.
                self._ask("deliver messages", LIMIT_SECONDS, partial(self._library.commit_transaction, LIMIT_SECONDS))
            raise

    def init_transactions(self, timeout: float) -> None:
        """See `Producer.init_transactions`."""
        self._ask("take over the transactional id", timeout, partial(self._library.init_transactions, timeout))

    def begin(self) -> None:
        """See `Producer.begin`."""
        self._ask("begin a transaction", LIMIT_SECONDS, self._library.begin_transaction)

    def send_offsets(self, offsets: Mapping[Partition, Committed], group_metadata: Any, timeout: float) -> None:
        """See `Producer.send_offsets`."""
        places = [TopicPartition(*place, value.offset, value.metadata) for place, value in offsets.items()]
        request = "add offsets to the transaction"
        call = partial(self._library.send_offsets_to_transaction, places, group_metadata, timeout)
        try:
            # librdkafka may ignore its timeout and hang for ever when brokers die (librdkafka #5456, #5511).
            self._ask(request, timeout, call)
        except Unavailable as error:
            raise KafkaError(
                error.message, kafka_code=error.kafka_code, transient=True, fatal=True, code="kafka.unavailable"
            ) from error

    def commit(self, timeout: float) -> None:
        """See `Producer.commit`."""
        self._ask("commit the transaction", timeout, partial(self._library.commit_transaction, timeout))

    def abort(self, timeout: float) -> None:
        """See `Producer.abort`."""
        self._outbox.drop()
        if self._failed:
            # After a failed message librdkafka may find gaps in the sequence of the next transaction, and fail it, too.
            # A new producer aborts the transaction.
            library, self._library = [self._library], Producer(self._configuration)
            self._failed = False
            threading.Thread(target=_end, args=(library, 0.0), name="kafka close", daemon=True).start()
            self.init_transactions(timeout)
        else:
            self._ask("abort the transaction", timeout, partial(self._library.abort_transaction, timeout))

    def close(self, timeout: float) -> None:
        """See `Producer.close`."""
        library, self._library = [self._library], None
        if library[0] is not None:
            with contextlib.suppress(Unavailable, KafkaException):
                within(timeout, "close the producer", partial(_end, library, timeout))

    def send(self, numbers: Sequence[int], messages: Sequence[Outgoing]) -> None:
        """See `outbox.Library.send`."""
        produce, of_round = self._library.produce, self._outbox.round
        for number, message in zip(numbers, messages, strict=True):
            time_ms = message.time
            try:
                produce(
                    message.topic,
                    message.value,
                    message.key,
                    -1 if message.partition is None else message.partition,
                    on_delivery=partial(self._delivered, of_round, number),
                    # librdkafka takes 0 for now, so 1970 itself cannot be written.
                    timestamp=0 if time_ms is None else time_ms or 1,
                    headers=message.headers,
                )
            except KafkaException as error:
                cause = error.args[0]
                if cause.name() in REFUSED:
                    self._outbox.refuse(number, cause.name(), cause.str())
                else:
                    self._raise_if_fatal()
                    self._outbox.failed(number, _name(cause), cause.str())

    def wait(self, timeout: float) -> bool:
        """See `outbox.Library.wait`."""
        with self._troubles.errors("deliver messages"):
            if self._transactional:
                return self._wait_in_transaction(timeout)
            return int(self._library.flush(timeout)) == 0

    def _wait_in_transaction(self, timeout: float) -> bool:
        """Wait as `wait` does; when a message has failed, the others are not sent until the transaction is aborted."""
        deadline = time.monotonic() + timeout
        while self._library.flush(min(0.1, max(0.0, deadline - time.monotonic()))):
            if self._outbox.any_failed:
                return True
            if time.monotonic() > deadline:
                return False
        return True

    def recover(self, timeout: float) -> None:
        """See `outbox.Library.recover`."""
        self._raise_if_fatal()

    def _delivered(self, of_round: int, number: int, error: Any, _: Any) -> None:
        if error is not None:
            self._failed = True
            self._outbox.failed(number, _name(error), error.str(), of_round=of_round)

    def _raise_if_fatal(self) -> None:
        if self._troubles.fatal is not None:
            raise self._troubles.fatal

    def _ask(self, request: str, timeout: float, call: Callable[[], Any]) -> None:
        with self._troubles.errors(request):
            within(timeout + 1, request, call)


def _end(library: list[Any], timeout: float) -> None:
    """Close a producer; what it has not delivered is dropped."""
    library[0].purge()
    library[0].flush(timeout)
    library.clear()  # the last reference: librdkafka ends its threads here


def _name(error: Any) -> str:
    name = str(error.name())
    return LIBRARY_NAMES.get(name, name)


def _configuration(connection: Connection, options: ProducerOptions, troubles: Troubles) -> dict[str, Any]:
    found = settings(connection, options.client_id, troubles) | {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "compression.type": options.compression,
        "linger.ms": options.linger_seconds * 1000,
        "batch.size": options.batch_bytes,
        "batch.num.messages": 100_000,
        "message.max.bytes": options.max_message_bytes,
        # What waits is bounded by the caller: a full queue would refuse messages, and lose memory with their headers.
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": NO_LIMIT,
        "delivery.report.only.error": True,
    }
    if options.transactional_id is None:
        return found | {"message.timeout.ms": 0}
    return found | {
        "transactional.id": options.transactional_id,
        "transaction.timeout.ms": int(options.transaction_seconds * 1000),
    }
