"""The text of a message's data where it is kept, such as in a dead letter."""

from __future__ import annotations

from typing import Any

from streamline.flow.codecs.jsontext import encode


def message_text(data: Any) -> bytes:
    """Return data as JSON text; bytes as they are; what JSON has no word for as the text that Python shows."""
    if isinstance(data, bytes):
        return data
    try:
        return encode(data)
    except (TypeError, ValueError, RecursionError):
        return encode(repr(data))
