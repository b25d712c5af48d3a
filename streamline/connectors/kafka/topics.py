"""Which topics a source reads: a list of names, or all whose whole name matches a pattern."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from streamline.connectors.kafka.client import TopicInfo


class TopicSelection:
    """Chooses topics from what the cluster says there is.

    Patterns are matched here, and not by the client or the broker, whose rules differ.
    """

    def __init__(self, names: Sequence[str], pattern: str | None = None) -> None:
        self._names = list(dict.fromkeys(names))
        self._pattern = re.compile(pattern) if pattern is not None else None

    @property
    def grows(self) -> bool:
        """Whether topics may be added and go."""
        return self._pattern is not None

    @property
    def wanted(self) -> Collection[str] | None:
        """The names to ask the cluster for; None: all."""
        return self._names if self._pattern is None else None

    def choose(self, topics: Mapping[str, TopicInfo]) -> dict[str, TopicInfo]:
        """Return the topics to read, sorted by name. Kafka's own topics have to be named."""
        if self._pattern is None:
            return {name: topics[name] for name in sorted(self._names) if name in topics}
        return {
            name: topics[name]
            for name in sorted(topics)
            if not topics[name].internal and self._pattern.fullmatch(name) is not None
        }

    def missing(self, topics: Mapping[str, TopicInfo]) -> list[str]:
        """Return the names that the cluster does not have."""
        return [name for name in self._names if name not in topics]

    def __str__(self) -> str:
        return f"pattern {self._pattern.pattern!r}" if self._pattern is not None else ", ".join(self._names)
