"""Splits the output of a process into lines, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

LONGEST = 4 * (81 << 10)
"""Bytes of a line that are passed on; the rest of a longer one is dropped.

More than `child.log_text` shows of a line, even if each character takes four bytes: that cuts a line again that was cut
here, and never shows its end, where a secret may have been cut in two.
"""


class LineSplitter:
    """Splits at newlines.

    Args:
        emit: called with each line without its newline.
    """

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        self._emit = emit
        self._rest = bytearray()
        self._cut = False

    def feed(self, chunk: bytes) -> None:
        """Add output."""
        first, newline, others = chunk.partition(b"\n")
        if not newline:
            self._keep(chunk)
            return
        if self._cut:
            self._cut = False
        else:
            self._rest += first
            self._emit(bytes(self._rest[:LONGEST]))
        self._rest.clear()
        *lines, last = others.split(b"\n")
        for line in lines:
            self._emit(line[:LONGEST])
        self._keep(last)

    def end(self) -> None:
        """Emit what came after the last newline as a line."""
        if self._rest:
            self._emit(bytes(self._rest))
        self._rest.clear()
        self._cut = False

    def _keep(self, part: bytes) -> None:
        if self._cut:
            return
        self._rest += part
        if len(self._rest) > LONGEST:
            # Emitted as soon as it is too long: its newline may never come.
            self._emit(bytes(self._rest[:LONGEST]))
            self._rest.clear()
            self._cut = True
