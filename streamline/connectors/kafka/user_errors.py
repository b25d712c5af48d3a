"""Errors that end a Kafka source or sink, as users see them: which right is missing, and where the cluster is."""

from __future__ import annotations

import time

from streamline.connectors.kafka.client import Connection, KafkaError
from streamline.errors import StreamlineError


def addresses(connection: Connection) -> str:
    """Return where the cluster is, for messages."""
    return ", ".join(connection.servers)


def silent_text(where: str, seconds: float, reason: str) -> str:
    """Return that a cluster does not answer, since when, and why.

    Args:
        seconds: how long ago it last did.
    """
    since = time.strftime("%H:%M:%S", time.gmtime(time.time() - seconds))
    return f"{where} does not answer since {since} UTC: {reason}; waiting until it does"


def explained(
    error: KafkaError, connection: Connection, *, topics: str, group: str | None = None, write: bool = False
) -> StreamlineError:
    """Return what an error that ends a source or sink means.

    Args:
        topics: those that it reads or writes, as text.
        group: its consumer group, if it has one.
        write: it writes.
    """
    right = "WRITE" if write else "READ"
    needed = {
        "TOPIC_AUTHORIZATION_FAILED": (f"{right.lower()} {topics}", f"{right} and DESCRIBE on the topic"),
        "GROUP_AUTHORIZATION_FAILED": (f"use consumer group {group}", "READ on the group"),
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": (
            "write in transactions",
            "WRITE and DESCRIBE on the transactional ids that begin with streamline.PIPELINE.",
        ),
        "CLUSTER_AUTHORIZATION_FAILED": ("use the cluster", "IDEMPOTENT_WRITE or DESCRIBE on the cluster"),
    }.get(error.kafka_code)
    if needed is not None:
        action, acl = needed
        return StreamlineError(
            f"not allowed to {action}: {error.message}",
            where=addresses(connection),
            hint=f"grant the user {acl}: kafka-acls --add",
            code="kafka.not_authorized",
        )
    if error.where is None:
        error.where = addresses(connection)
    return error
