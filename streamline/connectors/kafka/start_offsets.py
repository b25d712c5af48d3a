"""Where an assigned partition is read from: the group's offset; without one, or where it is lost, by the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from streamline.connectors.kafka.client import Committed, Partition
from streamline.connectors.kafka.offset_parts import topic_id_of
from streamline.connectors.kafka.settings import StartOffset
from streamline.connectors.stream_connector import PositionLost

OnOffsetLost: TypeAlias = Literal["stop", "earliest", "latest"]
LostCode: TypeAlias = Literal["kafka.offset_lost", "kafka.topic_recreated"]

_HINT = (
    "set on_offset_lost to earliest or latest to go on there; or move the group: `streamline state set PIPELINE "
    "TOPIC/PARTITION '{\"offset\": NUMBER}'`; or have it begin anew: `streamline state reset PIPELINE`"
)

_NAMED = 5
"""Partitions beside the first that an error describes."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a partition when it is assigned.

    Args:
        committed: the group's offset.
        topic_id: of the topic as it is now.
        read_id: of the topic that this process has read under this name before.
        first, end: the offsets that can be read are from `first` on, before `end`.
        high_watermark: the end for everybody, also where an open transaction hides it; None: it was not asked for.
        appeared: it was not there when this process began to read, or when the group's offsets of the topic's other
            partitions were committed.
        siblings: how many partitions the topic has.
        at_time: the first offset not older than the start offset's timestamp; None: there is no such message.
        earlier: the offset that the group had here, as far as the state store knows.
        earlier_topic: the group has read another topic under this name.
    """

    committed: Committed | None
    topic_id: str | None
    first: int
    end: int
    high_watermark: int | None = None
    read_id: str | None = None
    appeared: bool = False
    siblings: int = 0
    at_time: int | None = None
    earlier: int | None = None
    earlier_topic: bool = False

    @property
    def recreated(self) -> bool:
        """Whether it is of another topic than the one that this process has read under this name."""
        return _differ(self.read_id, self.topic_id)

    @property
    def forgotten(self) -> bool:
        """Whether the group had an offset, and has none any more."""
        return self.committed is None and (self.earlier is not None or self.earlier_topic)


class Start(msgspec.Struct, frozen=True):
    """Where a partition starts.

    Args:
        applied: it is not the group's offset, and has to be committed.
        warning: what the operator should know.
    """

    offset: int
    applied: bool = False
    warning: str | None = None


def start_of(partition: Partition, known: Known, *, offset: StartOffset, on_lost: OnOffsetLost) -> Start:
    """Return where to start.

    Raises:
        PositionLost: the group's offset is lost, and the settings say to stop then.
    """
    committed_id = topic_id_of(known.committed) if known.committed is not None else None
    if _differ(committed_id, known.topic_id) or known.recreated or (known.forgotten and known.earlier_topic):
        before = known.committed.offset if known.committed is not None else known.earlier
        at = f"; the group's offset {before} is one of the topic before" if before is not None else ""
        return _lost(
            partition,
            known,
            on_lost,
            f"the topic was deleted and created again{at}: {_readable(known)}",
            code="kafka.topic_recreated",
        )
    if known.committed is None and known.earlier is not None:
        return _lost(
            partition,
            known,
            on_lost,
            f"the cluster has forgotten the group's offset, which was {known.earlier}: it does so when a group is not "
            f"used for long (offsets.retention.minutes); {_readable(known)}",
            code="kafka.offset_lost",
        )
    if known.committed is None:
        return _first_start(partition, known, offset)
    if not known.first <= known.committed.offset <= known.end:
        return _lost(partition, known, on_lost, lost_text(known.committed.offset, known), code="kafka.offset_lost")
    return Start(known.committed.offset)


def stands_at(committed: Committed | None, topic_id: str | None, offset: int) -> bool:
    """Return whether a group's offset is one of this topic, and has reached an offset."""
    return committed is not None and committed.offset >= offset and not _differ(topic_id_of(committed), topic_id)


def needs_time(partition: Partition, known_offset: Committed | None, offset: StartOffset, *, appeared: bool) -> bool:
    """Return whether the offset of a time has to be looked up for a partition."""
    return known_offset is None and not appeared and _kind(partition, offset) == "timestamp"


def lost_text(offset: int, known: Known) -> str:
    """Return what is lost, and what is left, where an offset cannot be read."""
    if offset < known.first:
        gone = known.first - offset
        return f"offset {offset} is no longer there: {_messages(gone)} gone, {_readable(known)}"
    return f"offset {offset} is past the end {known.end}: the topic was truncated; {_readable(known)}"


def lost_start(known: Known, on_lost: OnOffsetLost, text: str) -> Start:
    """Return where to go on after an offset was lost."""
    offset = known.first if on_lost == "earliest" else known.end
    return Start(offset, applied=True, warning=f"{text}; it goes on at {offset} (on_offset_lost: {on_lost})")


def skipped(partition: Partition, known: Known, offset: StartOffset) -> int:
    """Return how many messages lie before the place where a new group starts at the latest."""
    new = known.committed is None and not known.appeared and not known.forgotten
    return known.end - known.first if new and _kind(partition, offset) == "latest" else 0


def lost_error(partition: Partition, text: str, code: LostCode) -> PositionLost:
    """Return the error of a lost offset."""
    return PositionLost(text, where=str(partition), hint=_HINT, code=code)


def all_lost(errors: Sequence[PositionLost]) -> PositionLost:
    """Return the error of several partitions: the first one's, which names the others."""
    first, *others = errors
    if others:
        names = ", ".join(f"{error.where}: {error.message}" for error in others[:_NAMED])
        more = f", and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        first.message = f"{first.message}; {names}{more}"
    return first


def _lost(
    partition: Partition,
    known: Known,
    on_lost: OnOffsetLost,
    text: str,
    *,
    code: LostCode,
) -> Start:
    if on_lost == "stop":
        raise lost_error(partition, text, code)
    return lost_start(known, on_lost, text)


def _first_start(partition: Partition, known: Known, offset: StartOffset) -> Start:
    if known.appeared:
        return Start(known.first, applied=True)
    kind, value = _kind(partition, offset), offset.value
    if kind == "earliest":
        return Start(known.first, applied=True)
    if kind == "timestamp":
        return Start(known.end if known.at_time is None else known.at_time, applied=True)
    if kind == "number" and value is not None:
        place = min(max(value, known.first), known.end)
        warning = None
        if place != value:
            warning = f"there is no offset {value}: it starts at {place}, of {known.first} to {known.end}"
        return Start(place, applied=True, warning=warning)
    return Start(known.end, applied=True)


def _kind(partition: Partition, offset: StartOffset) -> str:
    return offset.kind if not offset.partitions or partition in offset.partitions else offset.elsewhere


def _differ(before: str | None, now: str | None) -> bool:
    return before is not None and now is not None and before != now


def _readable(known: Known) -> str:
    return f"{known.end - known.first} can still be read, from {known.first} on"


def _messages(count: int) -> str:
    return "1 message is" if count == 1 else f"{count} messages are"
