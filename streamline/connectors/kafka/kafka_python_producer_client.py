"""A producer of kafka-python."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition, codec, errors

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
from streamline.connectors.kafka.deadlines import Call, within
from streamline.connectors.kafka.failures import failure
from streamline.connectors.kafka.kafka_python_admin_client import KafkaPythonAdmin
from streamline.connectors.kafka.kafka_python_batches_client import (
    Deliveries,
    Delivery,
    Numbered,
    Places,
    append,
    batches_known,
)
from streamline.connectors.kafka.kafka_python_shared_client import (
    code_of,
    keep_refreshing,
    open_library,
    reason_of,
    settings,
    translated,
)
from streamline.connectors.kafka.outbox import Outbox
from streamline.errors import ConfigError

OPEN_SECONDS = 10.0
METADATA_SECONDS = 5.0
"""How long a topic that is not known yet is looked for."""
INIT_SECONDS = 30.0
"""Seconds after which a library that does not take over the transactional id is given up for another."""
MISSING_SECONDS = 10.0
"""A topic that does not exist is looked for again after so long."""
FOREVER_MS = 10**12
OVERHEAD_BYTES = 128
"""More than a message without headers takes besides its key and value."""
CODECS = {"gzip": codec.has_gzip, "lz4": codec.has_lz4, "zstd": codec.has_zstd, "snappy": codec.has_snappy}


class KafkaPythonProducer:
    """See `Producer`. It connects with its first request."""

    def __init__(self, connection: Connection, options: ProducerOptions) -> None:
        if options.compression != "none" and not CODECS[options.compression]():
            raise ConfigError(
                f"kafka-python lacks what it needs for compression {options.compression}",
                hint="pip install 'streamline[kafka-compression]'",
                code="kafka.codec_missing",
            )
        self._connection = connection
        self._options = options
        self._admin = KafkaPythonAdmin(connection, options.client_id)
        self._library: Any = None
        self._outbox = Outbox(self, transactional=options.transactional_id is not None)
        self._appends = batches_known()
        self._sent: list[Deliveries] = []
        self._failed = False  # a message, since the library was opened
        self._opened_at = 0.0
        self._initialized = False  # the library's transactions
        self._commit: Call[None] | None = None
        self._known: set[str] = set()
        self._doubtful: set[str] = set()  # the library has not found them in time
        self._missing: dict[str, float] = {}  # since when

    def produce_batch(self, messages: Sequence[Outgoing]) -> None:
        """See `Producer.produce_batch`."""
        if self._library is None:
            with contextlib.suppress(Unavailable):  # `flush` tries again
                self._open(METADATA_SECONDS)
        self._outbox.add(messages)

    def flush(self, timeout: float) -> list[Undelivered] | None:
        """See `Producer.flush`."""
        return self._outbox.flush(timeout)

    def init_transactions(self, timeout: float) -> None:
        """See `Producer.init_transactions`."""
        deadline = time.monotonic() + timeout
        if self._library is None:
            self._open(timeout)

        def init() -> None:
            while True:
                try:
                    self._library.init_transactions()
                    return
                except errors.KafkaTimeoutError:
                    if time.monotonic() > deadline:
                        raise

        try:
            self._ask("take over the transactional id", deadline - time.monotonic(), init)
        except Unavailable:
            if time.monotonic() - self._opened_at > INIT_SECONDS:
                self._drop_library()
            raise
        self._initialized = True

    def begin(self) -> None:
        """See `Producer.begin`."""
        self._ask("begin a transaction", OPEN_SECONDS, self._library.begin_transaction)

    def send_offsets(self, offsets: Mapping[Partition, Committed], group_metadata: Any, timeout: float) -> None:
        """See `Producer.send_offsets`."""
        values = {
            TopicPartition(*place): OffsetAndMetadata(each.offset, each.metadata, -1) for place, each in offsets.items()
        }
        self._ask(
            "add offsets to the transaction",
            timeout,
            lambda: self._library.send_offsets_to_transaction(values, group_metadata),
            late_is_fatal=True,
        )

    def commit(self, timeout: float) -> None:
        """See `Producer.commit`. One that is not answered in time goes on, and the next call waits for it again."""
        request = "commit the transaction"
        commit = self._commit or Call(request, self._library.commit_transaction)
        try:
            with self._errors(request):
                commit.result(timeout)
        finally:
            self._commit = None if commit.ended else commit

    def abort(self, timeout: float) -> None:
        """See `Producer.abort`."""
        self._sent = []
        self._outbox.drop()
        if self._failed:
            # After a failed batch the library goes on with sequence numbers that the broker does not expect. A new
            # producer aborts the transaction, too.
            self._drop_library()
        if not self._initialized:
            self.init_transactions(timeout)
        else:
            self._ask("abort the transaction", timeout, self._library.abort_transaction, late_is_fatal=True)

    def close(self, timeout: float) -> None:
        """See `Producer.close`."""
        library, self._library = self._library, None
        if library is not None:
            with contextlib.suppress(Unavailable):
                within(timeout, "close the producer", partial(_end, library, timeout / 2))
        self._admin.close()

    def send(self, numbers: Sequence[int], messages: Sequence[Outgoing]) -> None:
        """See `outbox.Library.send`."""
        give = self._append if self._appends else self._send_each
        give(zip(numbers, messages, strict=True))

    def _check(self, number: int, message: Outgoing) -> bool:
        """Return whether a message can be given to the library."""
        if message.topic not in self._known and not self._find(number, message.topic):
            return False
        reason = ""
        if message.key is None and message.value is None:
            reason = "kafka-python writes no message without key and value"
        elif message.headers and any(value is None for _, value in message.headers):
            reason = "kafka-python writes no header without a value"
        if reason:
            self._outbox.refuse(number, "INVALID_RECORD", reason)
        return not reason

    def _append(self, numbered: Iterable[Numbered]) -> None:
        """Append messages to the library's batches, by partition."""
        messages = [each for each in numbered if self._check(*each)]
        library, limit = self._library, self._options.max_message_bytes - OVERHEAD_BYTES
        topics = {topic: self._places(topic) for topic in {message.topic for _, message in messages}}
        of_place: dict[Any, list[Numbered]] = {}
        for each in messages:
            number, message = each
            key, value, places = message.key, message.value, topics[message.topic]
            try:
                if not isinstance(places, Places):
                    raise places
                if message.headers or len(key or b"") + len(value or b"") > limit:
                    library._ensure_valid_record_size(library._estimate_size_in_bytes(key, value, message.headers))
                of_place.setdefault(places.place(message), []).append(each)
            except (errors.KafkaError, ValueError) as error:
                self._not_sent(number, message, error)
        for place, of_this in of_place.items():
            try:
                self._sent += append(library, place, of_this)
            except errors.KafkaError as error:
                for number, message in of_this:
                    self._not_sent(number, message, error)

    def _places(self, topic: str) -> Places | errors.KafkaError:
        try:
            return Places(topic, self._library)
        except errors.KafkaError as error:
            return error

    def _send_each(self, numbered: Iterable[Numbered]) -> None:
        """Give messages to a library whose batches are not known."""
        for number, message in numbered:
            if not self._check(number, message):
                continue
            try:
                future = self._library.send(
                    message.topic,
                    value=message.value,
                    key=message.key,
                    headers=message.headers,
                    partition=message.partition,
                    timestamp_ms=message.time,
                )
            except (errors.KafkaError, ValueError) as error:
                self._not_sent(number, message, error)
            else:
                self._sent.append(Delivery(number, future))

    def _not_sent(self, number: int, message: Outgoing, error: Exception) -> None:
        """A message was not given to the library."""
        if isinstance(error, errors.MessageSizeTooLargeError):
            self._outbox.refuse(number, "MSG_SIZE_TOO_LARGE", str(error.args[0]))
        elif isinstance(error, ValueError):
            self._outbox.refuse(number, "_UNKNOWN_PARTITION", str(error))
        elif isinstance(error, errors.KafkaTimeoutError):
            # The topic is gone. The library would wait as long for each of its messages.
            self._known.discard(message.topic)
            self._doubt(number, message.topic)
        else:
            self._raise_if_fatal("deliver messages")
            self._outbox.failed(number, code_of(error), reason_of(error))

    def wait(self, timeout: float) -> bool:
        """See `outbox.Library.wait`."""
        deadline = time.monotonic() + timeout
        while self._library is not None:
            keep_refreshing(self._library._metadata)
            try:
                self._library.flush(max(0.0, deadline - time.monotonic()))
            except errors.KafkaTimeoutError:
                return False
            except errors.UnknownError:  # a batch was taken apart meanwhile
                if time.monotonic() > deadline:
                    return False
            if all(deliveries.is_done for deliveries in self._sent):
                break
            time.sleep(0.01)
        for deliveries in self._sent:
            for number, error in deliveries.failures():
                self._failed = True
                self._outbox.failed(number, code_of(error), reason_of(error))
        self._sent = []
        return True

    def recover(self, timeout: float) -> None:
        """See `outbox.Library.recover`."""
        deadline = time.monotonic() + timeout
        if self._library is not None and self._broken():
            # The library declares its idempotent producer broken for any message that a broker refuses.
            self._raise_if_fatal("deliver messages")
            self._drop_library()
        if self._library is None:
            self._open(timeout)
        for topic in tuple(self._doubtful):
            if topic not in self._admin.topics(max(0.1, deadline - time.monotonic()), [topic]):
                self._missing[topic] = time.monotonic()
        self._doubtful.clear()

    def _find(self, number: int, topic: str) -> bool:
        """Return whether a topic is known; if it is not, the message has failed."""
        if time.monotonic() - self._missing.get(topic, float("-inf")) < MISSING_SECONDS:
            self._outbox.failed(number, "UNKNOWN_TOPIC_OR_PART", f"there is no topic {topic}")
        elif topic in self._doubtful or self._library is None:
            self._outbox.failed(number, "_TRANSPORT", "no broker is reachable")
        else:
            try:
                self._library.partitions_for(topic)
            except errors.KafkaTimeoutError:
                self._doubt(number, topic)
            except errors.KafkaError as error:
                self._outbox.failed(number, code_of(error), reason_of(error))
            else:
                self._known.add(topic)
                return True
        return False

    def _doubt(self, number: int, topic: str) -> None:
        self._doubtful.add(topic)
        self._outbox.failed(number, "_TIMED_OUT", f"topic {topic} was not found in time")

    def _open(self, timeout: float) -> None:
        options = self._options
        configuration = settings(self._connection, options.client_id) | {
            "enable_idempotence": True,
            "acks": "all",
            "transactional_id": options.transactional_id,
            "transaction_timeout_ms": int(options.transaction_seconds * 1000),
            "delivery_timeout_ms": FOREVER_MS,
            "compression_type": None if options.compression == "none" else options.compression,
            "linger_ms": int(options.linger_seconds * 1000),
            "batch_size": options.batch_bytes,
            "max_request_size": options.max_message_bytes,
            "max_block_ms": int(METADATA_SECONDS * 1000),
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        self._missing.clear()
        self._library = open_library(KafkaProducer, configuration, self._connection, timeout)
        self._opened_at = time.monotonic()
        if options.transactional_id is not None:
            # Told by a broker that its epoch is an old one, the library would ask for a newer one, and so take the
            # transactional id away from the producer that has it now. A producer with such an error is to be given up.
            self._library._transaction_manager._supports_epoch_bump = lambda: False

    def _drop_library(self) -> None:
        library, self._library = self._library, None
        self._known.clear()
        self._failed = self._initialized = False
        self._commit = None
        threading.Thread(target=_end, args=(library, 0.0), daemon=True).start()

    def _broken(self) -> bool:
        manager = self._library._transaction_manager
        return manager is not None and bool(manager.has_fatal_error())

    def _raise_if_fatal(self, request: str) -> None:
        """Raise the library's error if another producer would meet it, too."""
        if not self._broken():
            return
        cause = self._library._transaction_manager.last_error
        error = translated(cause, request)
        if error.fenced or self._options.transactional_id is not None or error.code == "kafka.authentication_failed":
            raise failure(request, code_of(cause), reason_of(cause), fatal=True) from cause

    def _ask(self, request: str, timeout: float, call: Callable[[], Any], *, late_is_fatal: bool = False) -> None:
        with self._errors(request):
            try:
                within(timeout, request, call)
            except Unavailable as error:
                if not late_is_fatal:
                    raise
                raise KafkaError(
                    error.message, kafka_code=error.kafka_code, transient=True, fatal=True, code="kafka.unavailable"
                ) from error

    @contextlib.contextmanager
    def _errors(self, request: str) -> Iterator[None]:
        """Raise the library's errors as the port's."""
        try:
            yield
        except errors.KafkaError as error:
            self._raise_if_fatal(request)
            raise translated(error, request) from error


def _end(library: Any, timeout: float) -> None:
    """Close a producer; what it has not delivered is dropped."""
    library._sender.force_close()  # `close` would wait for deliveries first, and give up without closing
    with contextlib.suppress(errors.KafkaError):
        library.close(timeout=timeout)
