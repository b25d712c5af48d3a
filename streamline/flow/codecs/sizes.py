"""About how much memory messages take, cheaply: for bounds on what waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

WAITING_BYTES = 16 << 20
"""Bytes of messages that may wait in one place."""

UNKNOWN_BYTES = 1_000
"""Taken for the size of a message that has no JSON text."""


def size_of(data: Sequence[Any]) -> int:
    """Return the size of messages as text: of bytes exactly, of others as if each were as large as the last."""
    if not data:
        return 0
    last = data[-1]
    if type(last) is bytes:
        return sum(len(value) for value in data if type(value) is bytes)
    try:
        return len(data) * len(msgspec.json.encode(last))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return len(data) * UNKNOWN_BYTES
