"""Offsets that are to be committed, until they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import islice

from streamline.connectors.kafka.client import Committed, Consumer, KafkaError, NotMember, Partition

RETRY_SECONDS = 0.5
"""Seconds until a commit that failed is tried again."""


class Commits:
    """Keeps what could not be committed, for the group has no generation now or no broker answers. Of two offsets of a
    partition the newer counts. Used by the consumer's thread alone.
    """

    def __init__(self, consumer: Consumer, clock: Callable[[], float]) -> None:
        self._consumer = consumer
        self._clock = clock
        self._pending: dict[Partition, Committed] = {}
        self._done: dict[Partition, Committed] = {}
        self._failing_since: float | None = None
        self._last_try = -RETRY_SECONDS
        self.reason = ""
        """Why the last commit failed."""
        self.member = True
        """Whether that was for another reason than that the group does not count it as a member now."""

    def add(self, offsets: Mapping[Partition, Committed]) -> None:
        """Have offsets committed; those that are committed already are not committed again."""
        for partition, committed in offsets.items():
            if partition in self._pending or self._done.get(partition) != committed:
                self._pending[partition] = committed

    def note(self, partition: Partition, committed: Committed) -> None:
        """Note what is the group's offset of a partition."""
        self._done[partition] = committed

    def probe(self, timeout: float) -> None:
        """Commit an offset again that is committed, to be told if another member has taken this one's place."""
        if not self._pending:
            self._pending.update(islice(self._done.items(), 1))
        self.flush(timeout)

    def supersede(self, partitions: Collection[Partition]) -> None:
        """Commit nothing pending of these: a transaction commits newer offsets."""
        self._drop_pending(partitions)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Forget partitions that belong to somebody else, or are read from another place."""
        for partition in partitions:
            self._done.pop(partition, None)
        self._drop_pending(partitions)

    def flush(self, timeout: float) -> bool:
        """Commit what is pending; False: it stays pending.

        Raises:
            KafkaError: it can never be committed by this consumer.
        """
        if not self._pending:
            return True
        self._last_try = self._clock()
        asked = dict(self._pending)
        try:
            # Partitions may be taken away meanwhile, and newer offsets committed.
            self._consumer.commit(asked, timeout)
        except KafkaError as error:
            if error.fatal or error.fenced or not (error.transient or isinstance(error, NotMember)):
                raise
            self.reason, self.member = error.message, not isinstance(error, NotMember)
            if self._failing_since is None and self._pending:
                self._failing_since = self._clock()
            return not self._pending
        self._failing_since = None
        for partition, committed in asked.items():
            if self._pending.get(partition) == committed:
                self._done[partition] = self._pending.pop(partition)
        return not self._pending

    @property
    def due(self) -> bool:
        """Whether something is pending and may be tried again."""
        return bool(self._pending) and self._clock() - self._last_try >= RETRY_SECONDS

    @property
    def failing_seconds(self) -> float:
        """For how long commits have failed without one that succeeded."""
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since

    def pending(self, partitions: Collection[Partition]) -> bool:
        """Whether something of these is pending."""
        return any(partition in self._pending for partition in partitions)

    def done(self, offsets: Mapping[Partition, Committed]) -> dict[Partition, Committed]:
        """Return those of these offsets that are committed."""
        return {
            partition: committed
            for partition, committed in offsets.items()
            if partition in self._done and self._done[partition].offset >= committed.offset
        }

    def retry_now(self) -> None:
        """Let what is pending be due: the group has a new generation."""
        self._last_try = self._clock() - RETRY_SECONDS

    def _drop_pending(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._pending.pop(partition, None)
        if not self._pending:
            self._failing_since = None
