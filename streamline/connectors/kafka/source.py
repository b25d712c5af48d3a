"""A source that reads Kafka topics as a member of a consumer group."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import anyio
import anyio.to_thread

from streamline.connectors.kafka.client import Committed, KafkaClient, KafkaError, Partition
from streamline.connectors.kafka.consumer_thread import ConsumerThread
from streamline.connectors.kafka.exchange import Exchange, ThreadEnded
from streamline.connectors.kafka.offset_parts import decode_part, encode_part, shown_part
from streamline.connectors.kafka.settings import KafkaSourceSettings
from streamline.connectors.stream_connector import Lag, StreamContext
from streamline.flow.protocols import Emit, GiveUp


class KafkaSource:
    """Gives each poll as one batch for each topic and one position. A thread owns the consumer (`ConsumerThread`).

    It implements `Source`, `LastingSource`, `SharedSource`, `OffsetSource` and `LaggingSource`, on asyncio.
    """

    def __init__(self, settings: KafkaSourceSettings, client: KafkaClient, context: StreamContext) -> None:
        self.id = context.block
        self.stopped: str | None = None
        self.give_up: GiveUp = self._release_only
        self._group = settings.group
        self._close_seconds = settings.close_seconds
        # A library that hangs must not hang the end of the run: what is not committed is read again.
        self._answer_seconds = settings.commit_timeout + settings.drain_seconds + 30.0
        self._context = context
        self._exchange = Exchange()
        self._thread = ConsumerThread(
            settings,
            client,
            context,
            self._exchange,
            give_up=lambda keys, seconds: self.give_up(keys, seconds),
        )
        self._began = False

    async def run(self, emit: Emit) -> None:
        """See `Source.run`.

        Raises:
            StreamlineError: `kafka.unreachable` or `kafka.topic_missing` at the start; `kafka.offset_lost`,
                `kafka.topic_recreated` or `kafka.topic_deleted` where the settings say to stop; `kafka.not_authorized`;
                `kafka.replaced` by a member of the same group instance id.
        """
        if self.stopped is not None:
            return
        self._began = True
        self._exchange.open()
        self._thread.start()
        while (items := await self._exchange.take()) is not None:
            await emit(items)

    def stop(self, reason: str) -> None:
        """See `Source.stop`. What was read and not given yet is read again by the next run."""
        self.stopped = self.stopped or reason
        self._exchange.stop()

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`; `commit` has told the group."""

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`."""
        self._exchange.drop(keys)

    def commit(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """See `SelfKeptSource.commit`. Under exactly-once delivery the sink's transaction has committed them."""
        try:
            return self._exchange.ask(lambda: self._thread.commit(parts)).result(self._answer_seconds)
        except (ThreadEnded, TimeoutError):
            return {}

    def shown(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """See `SelfKeptSource.shown`."""
        return {key: shown_part(value, self._group) for key, value in parts.items()}

    def transaction_offsets(self, parts: Mapping[str, bytes]) -> tuple[Mapping[Partition, Committed], Any]:
        """See `OffsetSource.transaction_offsets`."""
        try:
            return self._exchange.ask(lambda: self._thread.transaction_offsets(parts)).result(self._answer_seconds)
        except TimeoutError:
            raise KafkaError("the consumer's thread does not answer", where=self.id, transient=True) from None
        except ThreadEnded:
            raise KafkaError("the source has ended", where=self.id, code="kafka.source_ended") from None

    def committed(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """See `OffsetSource.committed`: without the epochs of this process."""
        decoded = {key: decode_part(value) for key, value in parts.items()}
        return {key: encode_part(part.offset, part.topic_id) for key, part in decoded.items()}

    def lag(self) -> Sequence[Lag]:
        """See `LaggingSource.lag`; looked up every few seconds."""
        return self._thread.lag

    async def close(self) -> None:
        """See `LastingSource.close`. Takes a bounded time, whatever the cluster does."""
        if not self._began:
            return
        self._exchange.close()
        with anyio.CancelScope(shield=True):
            if not await anyio.to_thread.run_sync(self._thread.join, 2 * self._close_seconds):
                self._context.note(f"{self.id}: the Kafka client does not end; it is left alone", "WARNING")
            await self._exchange.cancel_tasks()

    async def _release_only(self, keys: Collection[str], within: float) -> None:
        await self.release(keys)
