"""What a source's requests to the cluster say of it: outages are told once, and waited for."""

from __future__ import annotations

from collections.abc import Callable

from streamline.connectors.kafka.client import KafkaError, NotMember, Unavailable
from streamline.connectors.kafka.user_errors import silent_text

_WAITED_FOR = frozenset(
    {
        "UNRELEASED_INSTANCE_ID",  # until the member of this instance id before it has left
        "_MAX_POLL_EXCEEDED",  # the member joins again with the next poll
        # Until it is known that the topic was deleted, or made again.
        "UNKNOWN_TOPIC_OR_PART",
        "UNKNOWN_TOPIC_ID",
        "INCONSISTENT_TOPIC_ID",
    }
)
"""Errors that pass by themselves, or that something else handles."""


class SourceOutages:
    """Used by the consumer's thread alone. Requests are known by names, such as `poll`.

    Args:
        where: the cluster's addresses.
        instance_id: the group instance id of the member.
        note: writes a text to the run's log, at a level.
    """

    def __init__(
        self, where: str, instance_id: str | None, clock: Callable[[], float], note: Callable[[str, str], None]
    ) -> None:
        self.ongoing = False
        """Whether the cluster does not answer."""
        self._where = where
        self._instance_id = instance_id
        self._clock = clock
        self._note = note
        self._told: dict[str, str] = {}
        """What fails now, and is told: by request, Kafka's name of the error."""
        self._silent: set[str] = set()
        self._heard_at = clock()
        """When all requests were answered last."""

    def is_silent(self, request: str) -> bool:
        """Return whether a request is not answered now."""
        return request in self._silent

    def wait_out(self, request: str, error: KafkaError) -> None:
        """See `Surroundings.wait_out`."""
        passes = error.transient or isinstance(error, NotMember) or error.kafka_code in _WAITED_FOR
        if error.fatal or error.fenced or not passes:
            raise error
        if isinstance(error, Unavailable):
            if not self.ongoing:
                self.ongoing = True
                self._note(silent_text(self._where, self._clock() - self._heard_at, error.message), "WARNING")
            self._silent.add(request)
            return
        if error.kafka_code in self._told.values() or isinstance(error, NotMember):
            return
        self._told[request] = error.kafka_code
        if error.kafka_code == "UNRELEASED_INSTANCE_ID":
            text = f"another member has group_instance_id {self._instance_id}; waiting until it has left"
        else:
            text = f"{self._where}: {error.message}; waiting"
        self._note(text, "WARNING")

    def answered(self, *requests: str) -> None:
        """See `Surroundings.answered`."""
        for request in requests:
            self._told.pop(request, None)
            self._silent.discard(request)
        if self._silent:
            return
        if self.ongoing:
            seconds = self._clock() - self._heard_at
            self._note(f"{self._where} answers again, after {seconds:.0f} s", "WARNING")
            self.ongoing = False
        self._heard_at = self._clock()
