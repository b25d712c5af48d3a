"""Errors of the client libraries as the port's. Names are librdkafka's; kafka-python's are mapped to them."""

from __future__ import annotations

from streamline.connectors.kafka.client import KafkaError, NotMember, Unavailable

NOT_MEMBER = frozenset({
    "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "STALE_MEMBER_EPOCH", "FENCED_MEMBER_EPOCH",
    "FENCED_INSTANCE_ID", "_ASSIGNMENT_LOST",
})  # fmt: skip

UNAVAILABLE = frozenset({
    "_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_WAIT_COORD", "_WAIT_CACHE", "_TIMED_OUT_QUEUE",
    "_MSG_TIMED_OUT", "_PREV_IN_PROGRESS", "REQUEST_TIMED_OUT", "NETWORK_EXCEPTION", "COORDINATOR_NOT_AVAILABLE",
    "COORDINATOR_LOAD_IN_PROGRESS", "NOT_COORDINATOR", "BROKER_NOT_AVAILABLE", "LEADER_NOT_AVAILABLE",
    "NOT_LEADER_FOR_PARTITION", "NOT_ENOUGH_REPLICAS", "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "KAFKA_STORAGE_ERROR",
    "NOT_CONTROLLER", "_NOENT", "UNKNOWN_LEADER_EPOCH", "FENCED_LEADER_EPOCH", "OFFSET_NOT_AVAILABLE",
    "REPLICA_NOT_AVAILABLE", "LISTENER_NOT_FOUND", "UNSTABLE_OFFSET_COMMIT", "THROTTLING_QUOTA_EXCEEDED",
    "PREFERRED_LEADER_NOT_AVAILABLE", "ELIGIBLE_LEADERS_NOT_AVAILABLE", "FETCH_SESSION_ID_NOT_FOUND",
    "INVALID_FETCH_SESSION_EPOCH", "FETCH_SESSION_TOPIC_ID_ERROR",
})  # fmt: skip

FENCED = frozenset({
    "FENCED_INSTANCE_ID", "PRODUCER_FENCED", "_FENCED", "INVALID_PRODUCER_EPOCH", "TRANSACTION_COORDINATOR_FENCED",
})  # fmt: skip

NOT_AUTHENTICATED = frozenset({
    "_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "ILLEGAL_SASL_STATE",
})  # fmt: skip

NOT_AUTHORIZED = frozenset({
    "TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
})  # fmt: skip

OF_THE_MESSAGE = frozenset({
    "MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE", "INVALID_RECORD", "INVALID_TIMESTAMP",
    "INVALID_MSG", "UNSUPPORTED_FOR_MESSAGE_FORMAT", "POLICY_VIOLATION",
})  # fmt: skip
"""A broker refuses a message for itself. It says so of all messages that were sent to it in one batch."""

OF_THE_TOPIC = frozenset({
    "UNKNOWN_TOPIC_OR_PART", "TOPIC_EXCEPTION", "TOPIC_AUTHORIZATION_FAILED",
})  # fmt: skip
"""A broker refuses all messages of a topic."""


def failure(request: str, kafka_code: str, reason: str, *, transient: bool = False, fatal: bool = False) -> KafkaError:
    """Return the error of a request that failed.

    Args:
        request: what was asked, as in `cannot <request>: <reason>`.
    """
    message = f"cannot {request}: {reason}"
    fenced = kafka_code in FENCED
    if kafka_code == "_FATAL":  # librdkafka gives the name of the error in the text alone
        fatal, fenced = True, "fenced" in reason
    if kafka_code in NOT_MEMBER:
        return NotMember(
            message, kafka_code=kafka_code, transient=not fenced, fenced=fenced, fatal=fatal, code="kafka.not_member"
        )
    if kafka_code in UNAVAILABLE and not fatal:
        return Unavailable(message, kafka_code=kafka_code, transient=True, code="kafka.unavailable")
    if kafka_code in NOT_AUTHENTICATED:
        return KafkaError(
            message,
            kafka_code=kafka_code,
            fatal=fatal,
            code="kafka.authentication_failed",
            hint="check security_protocol, sasl_config and ssl_config",
        )
    if kafka_code in NOT_AUTHORIZED:
        return KafkaError(
            message,
            kafka_code=kafka_code,
            fatal=fatal,
            code="kafka.not_authorized",
            hint="give the user the ACLs that it lacks: kafka-acls --add",
        )
    return KafkaError(message, kafka_code=kafka_code, transient=transient, fenced=fenced, fatal=fatal or fenced)


def not_member() -> NotMember:
    """Return the error of a consumer that its group does not count as a member now."""
    return NotMember("the consumer is no member of its group now", kafka_code="UNKNOWN_MEMBER_ID")
