"""What the consumer, producer and admin client of confluent-kafka have in common."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaException

from streamline.connectors.kafka.client import (
    Connection,
    KafkaError,
)
from streamline.connectors.kafka.failures import NOT_AUTHENTICATED, UNAVAILABLE, failure

RECENT_SECONDS = 120.0
"""librdkafka tells the same error of a broker again after 30 seconds at the latest."""

log = logging.getLogger("streamline.kafka")
log.addHandler(logging.NullHandler())


class Troubles:
    """What librdkafka last told of its connections: its requests only say that they timed out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: tuple[Any, float] | None = None
        self._refused: tuple[Any, float] | None = None
        self.fatal: KafkaError | None = None

    def tell(self, error: Any) -> None:
        """Take an error from librdkafka; its `error_cb`."""
        with self._lock:
            now = time.monotonic()
            if error.name() in NOT_AUTHENTICATED:
                self._refused = error, now
            # `_ALL_BROKERS_DOWN` says less than the error of the single broker before it.
            if _recent(self._newest) is None or error.name() != "_ALL_BROKERS_DOWN":
                self._newest = error, now

    @contextlib.contextmanager
    def errors(self, request: str) -> Iterator[None]:
        """Raise the library's errors inside as the port's, with what is known of the cause."""
        try:
            yield
        except KafkaException as error:
            raise self.failure(error, request) from error
        except SystemError as error:
            # The library calls back while it raises a fatal error.
            if not isinstance(error.__cause__, KafkaException):
                raise
            raise self.failure(error.__cause__, request) from error

    def failure(self, error: KafkaException, request: str) -> KafkaError:
        """Return the port's error for one of the library, with what is known of its cause."""
        cause = error.args[0]
        if not isinstance(cause, confluent_kafka.KafkaError):
            return failure(request, "_FAIL", str(error))
        with self._lock:
            refused, newest = _recent(self._refused), _recent(self._newest)
        name = str(cause.name())
        if name == "_FATAL" and "group.instance.id" in cause.str():
            name = "FENCED_INSTANCE_ID"
        if name in UNAVAILABLE and refused is not None:
            return failure(request, refused.name(), refused.str())
        reason = newest.str() if name in UNAVAILABLE and newest is not None else f"{name}: {cause.str()}"
        failed = failure(request, name, reason, transient=cause.retriable(), fatal=cause.fatal())
        if cause.fatal():
            self.fatal = failed
        return failed


def _recent(told: tuple[Any, float] | None) -> Any:
    """Return an error that was told not long ago: an older one is not the reason of what fails now."""
    return told[0] if told is not None and time.monotonic() - told[1] < RECENT_SECONDS else None


def settings(connection: Connection, client_id: str, troubles: Troubles) -> dict[str, Any]:
    """Return librdkafka's settings that say how to reach the cluster."""
    found: dict[str, Any] = {
        "bootstrap.servers": ",".join(connection.servers),
        "client.id": client_id,
        "security.protocol": connection.protocol,
        "error_cb": troubles.tell,
        "logger": log,
        "reconnect.backoff.max.ms": 1000,
        "allow.auto.create.topics": False,
    }
    if connection.protocol.endswith("SSL"):
        names = {
            "cafile": "ssl.ca.location",
            "certfile": "ssl.certificate.location",
            "keyfile": "ssl.key.location",
            "password": "ssl.key.password",
        }
        found |= {names[key]: value for key, value in connection.ssl.items() if key in names and value}
        check = bool(connection.ssl.get("check_hostname", True))
        found["ssl.endpoint.identification.algorithm"] = "https" if check else "none"
    if connection.protocol.startswith("SASL"):
        mechanism = str(connection.sasl.get("mechanism") or "PLAIN")
        found["sasl.mechanism"] = mechanism
        if mechanism == "OAUTHBEARER":
            # librdkafka fetches tokens in a thread of its own, also while nobody polls.
            found |= {
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": connection.sasl["oauth_token_url"],
                "sasl.oauthbearer.client.id": connection.sasl["oauth_client_id"],
                "sasl.oauthbearer.client.secret": connection.sasl["oauth_client_secret"],
            }
            if scope := connection.sasl.get("oauth_scope"):
                found["sasl.oauthbearer.scope"] = scope
        else:
            found["sasl.username"] = connection.sasl.get("username")
            found["sasl.password"] = connection.sasl.get("password")
    return found
