"""Keeps control characters of foreign text from a terminal: they set its title and its clipboard, or clear it."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Any, TextIO

# Colours may pass. Also escaped: characters that reverse the order of those around them.
_CONTROL = re.compile("(\x1b\\[[0-9;]*m)|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def guard_streams() -> None:
    """Escape from now on what a stream cannot show, and in a terminal the control characters."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, _Guarded):
            continue
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")
        if stream.isatty():
            setattr(sys, name, _Guarded(stream))


def printable(text: str) -> str:
    """Return text with control characters escaped, but newlines, tabs and colours."""
    return _CONTROL.sub(lambda match: match[1] or _escape(match[0]), text)


def unguarded(stream: TextIO) -> TextIO:
    """Return the stream behind a guarded one, for our own control characters."""
    return stream.guarded if isinstance(stream, _Guarded) else stream


def _escape(sign: str) -> str:
    return f"\\x{ord(sign):02x}" if sign < "\u0100" else f"\\u{ord(sign):04x}"


class _Guarded:
    """A text stream whose text is made `printable`."""

    def __init__(self, stream: TextIO) -> None:
        self.guarded = stream

    def write(self, text: str) -> int:
        return self.guarded.write(printable(text))

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guarded, name)
