"""Messages that wait at a transformer block, because an earlier message of their key was refused there."""

from __future__ import annotations

from streamline.flow.items import Origin


class Parking:
    """The keys of messages that a block has refused in this attempt. One thread uses it.

    Messages of a block's next calls are on their way before the flow hears of what this one has refused.
    """

    def __init__(self) -> None:
        self._refused: dict[tuple[str, int, bytes], int] = {}

    def __bool__(self) -> bool:
        return bool(self._refused)

    def refused(self, origin: Origin | None) -> None:
        """Take a message that was refused."""
        if origin is not None and origin.key is not None:
            place = (origin.topic, origin.partition, origin.key)
            self._refused[place] = min(origin.offset, self._refused.get(place, origin.offset))

    def takes(self, origin: Origin | None) -> bool:
        """Return whether a message has to wait."""
        if origin is None or origin.key is None:
            return False
        first = self._refused.get((origin.topic, origin.partition, origin.key))
        return first is not None and origin.offset > first
