"""What the consumer, producer and admin client of kafka-python have in common."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.net.sasl.oauth import AbstractTokenProvider

from streamline.connectors.kafka.client import (
    Connection,
    KafkaError,
    OffsetLost,
    Partition,
    Unavailable,
)
from streamline.connectors.kafka.deadlines import within
from streamline.connectors.kafka.failures import failure
from streamline.connectors.kafka.oauth import TokenSource

Library = TypeVar("Library")

NAMES = {
    "MESSAGE_SIZE_TOO_LARGE": "MSG_SIZE_TOO_LARGE",
    "UNKNOWN_TOPIC_OR_PARTITION": "UNKNOWN_TOPIC_OR_PART",
    "INVALID_TOPIC": "TOPIC_EXCEPTION",
    "CORRUPT_MESSAGE": "INVALID_MSG",
}
"""librdkafka's names of the errors that it calls otherwise."""

READY_MS = 5000
"""Milliseconds that a producer's thread waits for a connection. It does nothing else meanwhile."""

CLOSED_BY_BROKER = 3
"""So many connections are closed by the other side before that is taken for a refusal."""

OTHERS: dict[type[Exception], str] = {
    errors.KafkaTimeoutError: "_TIMED_OUT",
    errors.KafkaConnectionError: "_TRANSPORT",
    errors.NodeNotReadyError: "_TRANSPORT",
    errors.MetadataEmptyBrokerList: "_TRANSPORT",
    errors.CommitFailedError: "ILLEGAL_GENERATION",
    errors.Cancelled: "_TRANSPORT",
}
"""Names of errors that come from the library itself."""


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python is not typed
    """Tokens for the library, which asks for one when it connects and before the broker's session ends."""

    def __init__(self, source: TokenSource) -> None:
        super().__init__()
        self._source = source

    def token(self) -> str:
        return self._source.token()


class _Network(KafkaNetClient):  # type: ignore[misc]  # kafka-python is not typed
    """The library's connections."""

    def await_ready(self, node_id: Any, timeout_ms: float = READY_MS) -> bool:
        """Return whether a broker can be sent to, soon.

        The library's method raises if it cannot. A producer that is about to send a request of a transaction, such as
        AddPartitionsToTxn, then loses the request, and whoever waits for it waits for ever.
        """
        try:
            return bool(super().await_ready(node_id, timeout_ms=min(timeout_ms, READY_MS)))
        except errors.KafkaError:
            return False


def settings(connection: Connection, client_id: str) -> dict[str, Any]:
    """Return the library's settings that say how to reach the cluster."""
    found: dict[str, Any] = {
        "bootstrap_servers": list(connection.servers),
        "client_id": client_id,
        "security_protocol": connection.protocol,
        "reconnect_backoff_max_ms": 1000,
    }
    if connection.protocol.endswith("SSL"):
        names = {
            "cafile": "ssl_cafile",
            "certfile": "ssl_certfile",
            "keyfile": "ssl_keyfile",
            "password": "ssl_password",
        }
        found |= {names[key]: value for key, value in connection.ssl.items() if key in names and value}
        found["ssl_check_hostname"] = bool(connection.ssl.get("check_hostname", True))
    if connection.protocol.startswith("SASL"):
        mechanism = str(connection.sasl.get("mechanism") or "PLAIN")
        found["sasl_mechanism"] = mechanism
        if mechanism == "OAUTHBEARER":
            found["sasl_oauth_token_provider"] = _Tokens(TokenSource(connection.sasl))
        else:
            found["sasl_plain_username"] = connection.sasl.get("username")
            found["sasl_plain_password"] = connection.sasl.get("password")
    return found


def open_library(
    make: Callable[..., Library], configuration: dict[str, Any], connection: Connection, timeout: float
) -> Library:
    """Return a client of the library, connected.

    Raises:
        Unavailable: no broker answered in time; the message says why.
        KafkaError: the cluster refuses the client.
    """
    network: list[Any] = []

    def make_network(**rest: Any) -> Any:
        network.append(_Network(**rest))
        return network[-1]

    request = f"connect to {', '.join(connection.servers)}"
    with _FailedConnections() as failed:

        def close_network() -> None:
            for each in network:
                each.close()

        def connect() -> Library:
            try:
                return make(
                    **configuration, bootstrap_timeout_ms=max(1, int(timeout * 1000)), kafka_client=make_network
                )
            except BaseException:
                close_network()
                raise

        try:
            return within(timeout + 1, request, connect)
        except (errors.KafkaTimeoutError, Unavailable) as error:
            refusals = (errors.SaslAuthenticationFailedError, KafkaError)
            refusal = next((each for each in failed.errors if isinstance(each, refusals)), None)
            if refusal is not None:
                raise translated(refusal, request) from error
            reason = _unreachable(connection)
            if not reason and connection.protocol.startswith("SASL") and failed.closed >= CLOSED_BY_BROKER:
                reason = "the brokers close the connection; most likely they refuse the user or the password"
                raise failure(request, "SASL_AUTHENTICATION_FAILED", reason) from error
            reason = reason or (str(failed.errors[-1]) if failed.errors else "no broker is reachable")
            raise failure(request, "_TRANSPORT", reason) from error
        except errors.KafkaError as error:
            raise translated(error, request) from error


def keep_refreshing(cluster: Any) -> None:
    """Start the library's metadata refreshes again where an error has ended them: it does not notice, and whoever waits
    for metadata then waits for ever.
    """
    if cluster._refresh_loop_future is not None and cluster._refresh_loop_future.is_done:
        cluster._refresh_loop_future = None
        cluster.start_refresh_loop()


class _FailedConnections(logging.Handler):
    """Why connections failed, inside the `with`: the library only logs it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[Exception] = []
        self._log = logging.getLogger("kafka.net")

    def emit(self, record: logging.LogRecord) -> None:
        errors_told = (each for each in record.args or () if isinstance(each, Exception))
        self.errors += [each for each in errors_told if not isinstance(each, errors.KafkaTimeoutError)]

    @property
    def closed(self) -> int:
        """How many connections the other side has closed: the library may miss why."""
        return sum("socket disconnected" in str(each) for each in self.errors)

    def __enter__(self) -> _FailedConnections:
        self._log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)


def _unreachable(connection: Connection) -> str:
    """Return why no server can be connected to; empty if one can."""
    reasons = []
    for server in connection.servers:
        host, _, port = server.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except (OSError, ValueError) as error:
            reasons.append(f"{server}: {getattr(error, 'strerror', None) or error}")
        else:
            return ""
    return "; ".join(reasons)


def code_of(error: BaseException) -> str:
    """Return librdkafka's name of an error."""
    if isinstance(error, errors.CommitFailedError) and error.args and isinstance(error.args[0], errors.KafkaError):
        return code_of(error.args[0])
    for kind, name in OTHERS.items():
        if isinstance(error, kind):
            return name
    message = getattr(error, "message", None)
    return NAMES.get(message, message) if isinstance(message, str) else type(error).__name__


def reason_of(error: BaseException) -> str:
    """Return what an error says."""
    said = str(error.args[0]) if error.args and error.args[0] else getattr(error, "description", "")
    return f"{code_of(error)}: {said}" if said else code_of(error)


def translated(error: BaseException, request: str) -> KafkaError:
    """Return the port's error for one of the library."""
    if isinstance(error, KafkaError):
        return error
    if isinstance(error, errors.OffsetOutOfRangeError) and error.args and isinstance(error.args[0], dict):
        place, offset = next(iter(error.args[0].items()))
        return lost(Partition(place.topic, place.partition), offset)
    if isinstance(error, errors.LogTruncationError) and error.divergent_offsets:
        place, offset = next(iter(error.divergent_offsets.items()))
        return lost(Partition(place.topic, place.partition), -1 if offset is None else offset.offset)
    if isinstance(error, errors.NoOffsetForPartitionError) and error.args:
        place = next(iter(error.args[0]))
        return lost(Partition(place.topic, place.partition), -1)
    if isinstance(error, errors.UnsupportedCodecError):
        return KafkaError(
            f"cannot {request}: {error.args[0] if error.args else 'the compression is not supported'}",
            kafka_code="_BAD_COMPRESSION",
            hint="pip install 'streamline[kafka-compression]'",
            code="kafka.codec_missing",
        )
    return failure(request, code_of(error), reason_of(error), transient=bool(getattr(error, "retriable", False)))


def lost(partition: Partition, offset: int) -> OffsetLost:
    """Return the error of an offset that cannot be read."""
    what = f"the broker does not have offset {offset}" if offset >= 0 else "the consumer group has no offset"
    return OffsetLost(f"{partition}: {what}", partition, offset)


def milliseconds(deadline: float) -> int:
    """Return what is left until a deadline by the monotonic clock, at least 1."""
    return max(1, int((deadline - time.monotonic()) * 1000))
