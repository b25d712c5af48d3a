"""The one thread that owns a consumer. It goes on polling whatever happens, so that the group keeps its member."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from streamline.connectors.kafka.assignment import Assignment, Owned
from streamline.connectors.kafka.caught_up import GroupProgress
from streamline.connectors.kafka.client import (
    Committed,
    Consumer,
    ConsumerOptions,
    KafkaClient,
    KafkaError,
    NotMember,
    OffsetLost,
    Partition,
)
from streamline.connectors.kafka.commits import Commits
from streamline.connectors.kafka.earlier_offsets import EarlierOffsets
from streamline.connectors.kafka.exchange import Exchange
from streamline.connectors.kafka.followed_topics import FollowedTopics
from streamline.connectors.kafka.high_watermarks import HighWatermarkReader
from streamline.connectors.kafka.lag import LagMeter
from streamline.connectors.kafka.membership import Membership
from streamline.connectors.kafka.offset_parts import encode_part, topic_id_of
from streamline.connectors.kafka.settings import KafkaSourceSettings
from streamline.connectors.kafka.source_outages import SourceOutages
from streamline.connectors.kafka.topics import TopicSelection
from streamline.connectors.kafka.user_errors import addresses, explained
from streamline.connectors.stream_connector import Lag, StreamContext
from streamline.errors import StreamlineError
from streamline.flow.items import Item, Origin

POLL_MESSAGES = 5_000
"""The most messages of one poll; what bounds their bytes is `ConsumerOptions.fetch_bytes`."""

POLL_SECONDS = 0.1
FULL_SECONDS = 0.5
"""Partitions are paused when there was no room for so long: pausing drops what the client has fetched."""

JOIN_SECONDS = 5.0
"""A group that is not changing gives partitions in less; with its first member it waits for others for 3 seconds."""

HIDDEN_SECONDS = 5.0
"""The log tells of an open transaction that has hidden the rest for so long."""

ADVANCE_SECONDS = 0.2
LAG_SECONDS = 5.0
PLACE_SECONDS = 0.5
PROBE_SECONDS = 3.0
GROUP_SECONDS = 1.0
"""How often it is looked up: positions past messages, ends, starts that are not known yet, whether a static member was
replaced, what the group has read."""

DRAIN_GRACE = 5.0
"""Seconds beyond a deadline until what does not return in time is left alone."""


class ConsumerThread:
    """Reads into an exchange until it is stopped, all is read, or it fails; then serves commits until it is closed."""

    def __init__(
        self,
        settings: KafkaSourceSettings,
        client: KafkaClient,
        context: StreamContext,
        exchange: Exchange,
        *,
        give_up: Callable[[Collection[str], float], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lag: Sequence[Lag] = ()
        self._settings = settings
        self._client = client
        self._context = context
        self._exchange = exchange
        self._give_up = give_up
        self._clock = clock
        # kafka-python tells a static member that it was replaced only when it commits. A transaction asks as well.
        self._instance_id = settings.group_instance_id
        if self._instance_id is not None and context.slot:
            self._instance_id = f"{self._instance_id}-{context.slot}"  # each process is a member of its own
        self._static = self._instance_id is not None and context.delivery == "at-least-once"
        self._selection = TopicSelection(settings.topics, settings.pattern)
        self._outages = SourceOutages(addresses(settings.connection), self._instance_id, clock, self.note)
        self._assignment = Assignment(context.block)
        self._thread = threading.Thread(target=self._run, name=f"kafka-{context.block}", daemon=True)
        self._full_since: float | None = None
        self._holding = False
        self._usable = True
        self._moved = False
        self._subscribed = False
        self._joined_at: float | None = None
        """When it began to wait for the first partitions."""
        self._hidden_since: float | None = None
        """When all was read but what an open transaction hides."""
        self._ends = HighWatermarkReader(client, settings.connection, self._options())
        self._due: dict[str, float] = {}

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Wait until it has ended; whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # -- what is asked of it, in its thread

    def commit(self, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        """See `SelfKeptSource.commit`."""
        if not self._usable:
            return {}
        offsets = self._assignment.offsets(parts)
        if self._context.delivery == "at-least-once":
            self._commits.add(offsets)
            try:
                self._flush_commits()
            except KafkaError as error:
                raise self._explained(error) from error
            offsets = self._commits.done(offsets)
        return {
            str(partition): encode_part(committed.offset, topic_id_of(committed))
            for partition, committed in offsets.items()
        }

    def transaction_offsets(self, parts: Mapping[str, bytes]) -> tuple[dict[Partition, Committed], Any]:
        """See `OffsetSource.transaction_offsets`."""
        offsets = self._assignment.offsets(parts)
        if len(offsets) < len(parts) or not self._usable:
            raise NotMember("partitions of the transaction were taken away", kafka_code="ILLEGAL_GENERATION")
        self._commits.supersede(offsets.keys())
        return offsets, self._consumer.group_metadata()

    # -- `Surroundings`

    @property
    def closing(self) -> bool:
        """See `Surroundings`."""
        return self._exchange.closing

    def drain(self, keys: Collection[str], seconds: float) -> None:
        """See `Surroundings`."""
        done = threading.Event()

        async def give_up() -> None:
            try:
                await self._give_up(keys, seconds)
            except Exception as error:
                self.note(f"what was in flight of {', '.join(sorted(keys))} is not saved: {error}", "WARNING")
            finally:
                done.set()
                self._exchange.notify()

        if not self._exchange.spawn(give_up):
            return
        deadline = self._clock() + seconds + DRAIN_GRACE
        while not done.is_set() and not self.closing and self._clock() < deadline:
            self.pause_for(POLL_SECONDS)

    def pause_for(self, seconds: float) -> None:
        """See `Surroundings`."""
        self._exchange.serve()
        self._exchange.wait(seconds)
        self._exchange.serve()

    def note(self, text: str, level: str) -> None:
        """See `Surroundings`."""
        self._exchange.call(self._context.note, text, level)

    # -- its life

    def _run(self) -> None:
        consumer: Consumer | None = None
        try:
            consumer = self._consumer = self._client.consumer(self._settings.connection, self._options())
            self._commits = Commits(consumer, self._clock)
            self._topics = FollowedTopics(
                consumer, self._selection, self._settings, self._outages, self._clock, self.note
            )
            if self._topics.find(self._context.startup_timeout, ended=self._ends_now, pause=self.pause_for):
                self._read()
        except Exception as error:
            self._usable = not (isinstance(error, KafkaError) and (error.fatal or error.fenced))
            self._exchange.end(self._explained(error))
        try:
            if consumer is not None:
                self._serve_until_closed(polling=self._usable and self._subscribed)
        finally:
            self._exchange.refuse()
            self._ends.close()
            if consumer is not None:
                with suppress(Exception):
                    consumer.close(self._settings.close_seconds / 2)

    def _options(self) -> ConsumerOptions:
        settings, context = self._settings, self._context
        return ConsumerOptions(
            group=settings.group,
            client_id=f"streamline-{context.pipeline}-{context.block}-{context.slot}",
            protocol=settings.group_protocol,
            instance_id=self._instance_id,
            isolation_level=settings.isolation_level,
            session_seconds=self._settings.session_seconds,
            max_poll_seconds=settings.max_poll_seconds,
            metadata_seconds=settings.metadata_refresh,
            max_partition_bytes=settings.max_partition_bytes,
        )

    def _ends_now(self) -> bool:
        return self._exchange.closing or self._exchange.stopped

    def _read(self) -> None:
        topics = self._topics.known
        self._group_progress = GroupProgress(self._consumer, self._topics, self._outages, self._ends.of)
        self._lag_meter = LagMeter(self._consumer, self._assignment, self._outages, self._settings, self._clock)
        # An attempt that follows another in the same run knows what there was when that began.
        known_partitions = self._context.memory.setdefault(
            f"{self._selection} in group {self._settings.group}",
            {name: topic.partitions for name, topic in topics.items()},
        )
        self._membership = Membership(
            self._consumer,
            self._assignment,
            self._commits,
            settings=self._settings,
            topics=topics,
            known_partitions=known_partitions,
            earlier=EarlierOffsets(self._context.start, self._settings.group),
            surroundings=self,
            clock=self._clock,
            high_watermarks=self._ends.of if self._context.until_caught_up else None,
        )
        self._due["topics"] = self._clock() + self._settings.metadata_refresh
        if topics:
            self._subscribe()
        else:
            self.note(f"no topic matches {self._selection} yet", "WARNING")
        while not self._ends_now():
            self._exchange.serve()
            self._do_what_is_due()
            if self._context.until_caught_up and self._caught_up():
                self._hand_over([])
                self._exchange.end()
                return
            self._turn()

    def _serve_until_closed(self, *, polling: bool) -> None:
        """Keep the membership until what was given is committed."""
        while not self._exchange.closing:
            self._exchange.serve()
            try:
                if polling:
                    if self._commits.due:
                        self._flush_commits()
                    self._hold()
                    self._pause(True)
                    self._poll()
            except Exception as error:
                if isinstance(error, KafkaError) and (error.fatal or error.fenced):
                    polling = self._usable = False
                self._exchange.wait(POLL_SECONDS)
            else:
                if not polling:
                    self._exchange.wait(POLL_SECONDS)
        if polling:
            with suppress(KafkaError):
                self._commits.flush(self._settings.close_seconds / 2)

    # -- reading

    def _turn(self) -> None:
        now = self._clock()
        if self._exchange.room and not self._holding:
            self._full_since = None
            self._pause(False)
            messages = self._poll()
            if messages or self._moved:
                self._hand_over(messages)
            elif self._is_due("advance", ADVANCE_SECONDS):
                self._advance()
            return
        self._full_since = now if self._full_since is None else self._full_since
        left = self._full_since + FULL_SECONDS - now
        if left > 0 and not self._membership.paused and not self._holding:
            self._exchange.wait_for_room(left)
            return
        self._pause(True)
        messages = self._poll()
        if messages:
            self._hand_over(messages)

    def _hand_over(self, messages: Sequence[Origin]) -> None:
        items: list[Item] = self._assignment.take(messages) if messages else []
        if items or self._moved:
            self._moved = False
            self._exchange.put([*items, self._assignment.position()])

    def _advance(self) -> None:
        """Move past what is not a message: markers of transactions, and what compaction has removed."""
        for owned in self._assignment.placed:
            position = self._consumer.position(owned.partition)
            if position is not None and self._assignment.advance(owned, position):
                self._moved = True

    def _pause(self, paused: bool) -> None:
        if self._membership.paused == paused:
            return
        self._membership.paused = paused
        if paused:
            self._consumer.pause(self._assignment.all)
        else:
            self._consumer.resume([owned.partition for owned in self._assignment.placed])

    def _poll(self) -> list[Origin]:
        if not self._subscribed:
            self._exchange.wait(POLL_SECONDS)
            return []
        messages: list[Origin] = []
        try:
            try:
                messages = self._consumer.poll_batch(POLL_MESSAGES, POLL_SECONDS)
            except OffsetLost as lost:
                self._membership.lost_at(lost)
                self._exchange.wait(POLL_SECONDS)
        except KafkaError as error:
            self.wait_out("poll", error)
            self._exchange.wait(POLL_SECONDS)
        if self._membership.failure is not None:
            raise self._membership.failure
        if messages:
            self.answered("poll")
        return messages

    def _caught_up(self) -> bool:
        """Return whether the ends seen at the start are reached: of the partitions that this member owns, or if it owns
        none, of all by the group."""
        goals = self._membership.goals
        owned = self._assignment.placed
        if self._assignment.all:
            if self._assignment.unplaced:
                return False
            if left := [each for each in owned if each.next is not None and each.next < goals[each.partition]]:
                if self._is_due("advance", ADVANCE_SECONDS):
                    self._advance()
                self._tell_of_hidden(left)
                return False
            return True
        return self._is_due("group", GROUP_SECONDS) and self._group_progress.complete()

    def _tell_of_hidden(self, left: Sequence[Owned]) -> None:
        """Tell once why it does not end: a transaction that nobody ends hides the rest until the broker aborts it."""
        if self._hidden_since == inf:
            return
        if any(each.end is None or each.next is None or each.next < each.end for each in left):
            self._hidden_since = None
            return
        now = self._clock()
        if self._hidden_since is None:
            self._hidden_since = now
        elif now - self._hidden_since >= HIDDEN_SECONDS:
            self._hidden_since = inf
            first = left[0]
            self.note(
                f"{first.key} is read up to {first.next} of {self._membership.goals[first.partition]}: a transaction "
                "that is still open hides the rest; it waits until that is ended, or aborted by the broker after its "
                "timeout",
                "WARNING",
            )

    # -- what is done from time to time

    def _is_due(self, what: str, seconds: float) -> bool:
        now = self._clock()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + seconds
        return True

    def _do_what_is_due(self) -> None:
        if self._commits.due:
            self._flush_commits()
        elif self._static and self._is_due("probe", PROBE_SECONDS):
            self._commits.probe(self._settings.commit_timeout)
        if self._assignment.unplaced and self._is_due("place", PLACE_SECONDS):
            self._membership.place()
        elif self._outages.is_silent("place") and not self._assignment.unplaced:
            self.answered("place")
        self._tell_of_the_wait()
        if self._is_due("topics", self._settings.metadata_refresh):
            self._look_again()
        if self._is_due("lag", LAG_SECONDS):
            self._measure_lag()
        self._hold()

    def _flush_commits(self) -> None:
        deadline, timeout = self._membership.deadline, self._settings.commit_timeout
        if deadline is not None:
            timeout = min(timeout, max(deadline - self._clock(), 0.1))
        self._commits.flush(timeout)

    def _hold(self) -> None:
        """Give nothing more to sinks while the group may have given the partitions to another member."""
        held = self._commits.failing_seconds > self._settings.session_seconds
        if held == self._holding:
            return
        self._holding = held
        self._exchange.hold(held)
        if held:
            seconds = f"{self._commits.failing_seconds:.0f} seconds"
            self.note(
                f"commits have failed for {seconds} ({self._commits.reason}): it waits until they succeed", "WARNING"
            )
        else:
            self.note("commits succeed again", "INFO")

    def _measure_lag(self) -> None:
        if not self._lag_meter.look_up_ends():
            return
        self._advance()
        reading = not self._holding and not self._membership.paused and self._full_since is None
        self.lag, stalled = self._lag_meter.measure(reading=reading)
        for each, text in stalled:
            self.note(text, "WARNING")
            self._consumer.resume([each])

    def _look_again(self) -> None:
        changes = self._topics.look_again()
        if changes.names:
            self._subscribe()
        for name in changes.recreated:
            self._membership.recreated(name)

    def _subscribe(self) -> None:
        if self._topics.known:
            self._consumer.subscribe(sorted(self._topics.known), self._membership)
            self._subscribed = True

    def _tell_of_the_wait(self) -> None:
        """Tell once why no partition is assigned for a while after the start."""
        if not self._subscribed or self._joined_at == inf:
            return
        now = self._clock()
        if self._joined_at is None:
            self._joined_at = now
        if self._assignment.all:
            self._joined_at = inf
        elif now - self._joined_at >= JOIN_SECONDS and not self._outages.ongoing:
            self._joined_at = inf
            classic = self._settings.group_protocol == "classic"
            session = f"{self._settings.session_seconds:g} seconds" if classic else "its session"
            self.note(
                f"waiting for consumer group {self._settings.group}, which has given it no partitions yet: a member "
                f"that was killed stays in the group for up to {session}, and others may have all of them",
                "WARNING",
            )

    # -- failures

    def wait_out(self, request: str, error: KafkaError) -> None:
        """See `Surroundings`."""
        self._outages.wait_out(request, error)

    def answered(self, *requests: str) -> None:
        """See `Surroundings`."""
        self._outages.answered(*requests)

    def _explained(self, error: Exception) -> Exception:
        if not isinstance(error, KafkaError):
            return error
        if error.fenced and self._instance_id is not None:
            return StreamlineError(
                f"replaced by another member with group_instance_id {self._instance_id}",
                where=addresses(self._settings.connection),
                hint="give each running instance a group_instance_id of its own",
                code="kafka.replaced",
            )
        return explained(error, self._settings.connection, topics=str(self._selection), group=self._settings.group)
