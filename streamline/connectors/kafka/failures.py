"""Errors of a Kafka client as users see them: which right is missing, who took a place, what does not answer."""

from __future__ import annotations

from streamline.connectors.kafka.client import Connection, KafkaError
from streamline.errors import StreamlineError

_LOGIN = ("SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "ILLEGAL_SASL_STATE", "_AUTHENTICATION")


def addresses(connection: Connection) -> str:
    """Return where the cluster is, for messages."""
    return ", ".join(connection.servers)


def explained(
    error: KafkaError, connection: Connection, *, topics: str, group: str | None = None, write: bool = False
) -> StreamlineError:
    """Return what an error that ends a source or sink means.

    Args:
        topics: those that it reads or writes, as text.
        group: its consumer group, if it has one.
        write: it writes.
    """
    where = addresses(connection)
    right = "WRITE" if write else "READ"
    code = error.kafka_code
    if code == "TOPIC_AUTHORIZATION_FAILED":
        return StreamlineError(
            f"not allowed to {right.lower()} {topics}: {error.message}",
            where=where,
            hint=f"grant {right} and DESCRIBE on the topic",
            code="kafka.forbidden",
        )
    if code == "GROUP_AUTHORIZATION_FAILED":
        return StreamlineError(
            f"not allowed to use consumer group {group}: {error.message}",
            where=where,
            hint="grant READ on the group",
            code="kafka.forbidden",
        )
    if code == "TRANSACTIONAL_ID_AUTHORIZATION_FAILED":
        return StreamlineError(
            f"not allowed to use the transactional id: {error.message}",
            where=where,
            hint="grant WRITE and DESCRIBE on the transactional id",
            code="kafka.forbidden",
        )
    if code == "CLUSTER_AUTHORIZATION_FAILED":
        return StreamlineError(
            f"not allowed by the cluster: {error.message}",
            where=where,
            hint="grant IDEMPOTENT_WRITE on the cluster" if write else "grant DESCRIBE on the cluster",
            code="kafka.forbidden",
        )
    if code in _LOGIN:
        return StreamlineError(
            f"the login was refused: {error.message}",
            where=where,
            hint="check security_protocol and sasl_config",
            code="kafka.login_failed",
        )
    return error
