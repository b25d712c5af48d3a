"""Delivery guarantees: the effect of a failure on what a destination has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec


class Grade(StrEnum):
    """A guarantee; the weakest comes first."""

    AT_MOST_ONCE = "at most once"
    """Records that are on their way when the run fails are lost."""
    AT_LEAST_ONCE = "at least once"
    """Records that were sent since the last proof are sent again."""
    EFFECTIVELY_ONCE = "effectively once"
    """They are sent again, and replace what they have written."""
    EXACTLY_ONCE = "exactly once"
    """Records and positions are committed together."""


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """A grade and its reason.

    Args:
        better: what would raise it.
    """

    grade: Grade
    why: str
    better: str | None = None


def joined(deliveries: Mapping[str, Delivery]) -> Delivery:
    """Return the weakest grade of several streams; the reasons name their streams if they differ.

    Args:
        deliveries: by stream, not empty.
    """
    grade = min((each.grade for each in deliveries.values()), key=list(Grade).index)
    streams_of: dict[str, list[str]] = {}
    for stream, delivery in deliveries.items():
        streams_of.setdefault(delivery.why, []).append(stream)
    if len(streams_of) == 1:
        return Delivery(grade, next(iter(streams_of)))
    return Delivery(grade, "; ".join(f"{_names(streams)}: {why}" for why, streams in streams_of.items()))


def _names(streams: Sequence[str]) -> str:
    shown = ", ".join(streams[:3])
    return shown if len(streams) <= 3 else f"{shown} and {len(streams) - 3} more"
