"""What a plugin logged last, for the error of its failure: the reason first, tracebacks folded."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from streamline.telemetry.runlog import level_of, message_of

KEPT_LINES = 200
LINE_LENGTH = 2000
REASON_LINES = 5
BEFORE_LINES = 8

_TRACEBACK = "(most recent call last):"
_FRAME = r'\s+File ".*", line \d+|\s*[╭│╰]'
"""A frame of Python, or a line of the box that the library rich draws around them."""

_OTHER_FRAME = r"\s+(at \S|\.\.\. \d+ more)"
"""A frame of Java or JavaScript; they stand below their error."""

_CHAIN = r"(During handling of the above exception|The above exception was the direct cause)"

# How singer-python, its PipelineWise fork, the SDK and our connectors refuse a config.
_REFUSED = (
    r"(?i)config(uration)? validation failed|config is missing required keys|missing from config"
    r"|invalid config(uration)?\b|\bunknown setting '|\bsetting '[^']*' (must be|is|contains)\b"
)


class LogTail:
    """Keeps the last lines of a plugin's log."""

    def __init__(self, lines: int = KEPT_LINES) -> None:
        self.lines: deque[str] = deque(maxlen=lines)

    def add(self, line: str) -> None:
        """Add `line`, or its beginning if it is long."""
        self.lines.append(line if len(line) <= LINE_LENGTH else line[:LINE_LENGTH] + " …")


def hint_of(lines: Sequence[str]) -> str:
    """Return what the last lines of a log say of a failure: the reason, and some lines before it.

    Frames of tracebacks are left out; the run's log has them.
    """
    folded, at = _folded([line for line in lines if line.strip()])
    if not folded:
        return "It logged nothing."
    reason = [message_of(line).strip() for line in folded[at : at + REASON_LINES]]
    # singer-python logs the text of an exception before its traceback.
    before = [line for line in folded[:at] if message_of(line).strip() not in "\n".join(reason)]
    text = "\n    ".join(reason)
    return text + ("\n  Before that it logged:\n    " + "\n    ".join(before[-BEFORE_LINES:]) if before else "")


def refuses_config(code: int, lines: Sequence[str]) -> bool:
    """Return whether a plugin that exited with this code says that its config is wrong."""
    return code > 0 and any(re.search(_REFUSED, message_of(line)) for line in lines)


def _folded(lines: Sequence[str]) -> tuple[list[str], int]:
    """Return the lines without frames of tracebacks, and which of them begins the reason of the failure."""
    kept: list[str] = []
    reason: int | None = None
    inside = False
    for line in lines:
        text = message_of(line)
        if text.rstrip().endswith(_TRACEBACK) or re.match(_FRAME, text):
            inside = True
        elif re.match(_CHAIN, text) or re.match(_OTHER_FRAME, text):
            pass
        elif inside and text[:1] in " \t":
            pass  # a frame's line of code
        else:
            if inside:
                reason = len(kept)
            inside = False
            kept.append(line)
    if inside or not kept:  # a traceback of another shape
        kept, reason = list(lines[-BEFORE_LINES:]), None
    last = max((at for at, line in enumerate(kept) if _is_error(line)), default=None)
    if reason is not None and len(kept) - reason > REASON_LINES:
        reason = last  # that exception was handled, and the work went on
    elif reason is None:
        reason = last
    return kept, max(len(kept) - 1, 0) if reason is None else reason


def _is_error(line: str) -> bool:
    """Return whether a logger wrote this line as an error; the word alone may stand in any line."""
    return message_of(line) != line and level_of(line) == "ERROR"
