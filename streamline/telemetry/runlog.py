"""A run's log file: one line per event, `time level source message`, secrets masked by the writer."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

LOG_FILE = "run.log"
"""The log's name in the run's folder."""

LOG_FILES = "*.log"
"""Names of all logs there: with `instances`, each process has one of its own."""

HEAD_CHARACTERS = 16 << 20
"""Of what a child process prints, so much is written as it comes."""

TAIL_CHARACTERS = 1 << 20
"""So much of its end is kept until it fails or the run ends; what is between is left out."""

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

_LEVEL = re.compile(
    r"\b(CRITICAL|FATAL|ERROR|WARN(?:ING)?|INFO|DEBUG|TRACE)\b|\"?level\"?\s*[:=]\s*\"?(\w+)", re.IGNORECASE
)
_LOGGED = re.compile(
    r"""
    (?:CRITICAL|FATAL|ERROR|WARN(?:ING)?|INFO|DEBUG|TRACE)\s(.*)                        # singer-python
    | (?i:critical|fatal|error|warn(?:ing)?|info|debug|trace)\s?:(?:[\w.-]+:|\s?)(.*)   # Python's, and by hand
    | \d{4}-\d\d-\d\d[ T][\d:.,+Z-]+\s*\|\s*[A-Z]+\s*\|[^|]*\|\s?(.*)                   # the SDK's
    | time=.*?\bname=\S+\slevel=\w+\smessage=(.*)                                       # PipelineWise's
    """,
    re.VERBOSE,
)
"""The forms of known loggers: the message behind time, level and name."""

_NAMES = {"CRITICAL": "ERROR", "FATAL": "ERROR", "WARN": "WARNING", "TRACE": "DEBUG", "EXCEPTION": "ERROR"}


def level_of(line: str, default: str = "INFO") -> str:
    """Return the level at the start of a program's log line, else `default`."""
    match = _LEVEL.search(line[:120])
    if match is None:
        return default
    name = (match[1] or match[2]).upper()
    name = _NAMES.get(name, name)
    return name if name in LEVELS else default


def message_of(line: str) -> str:
    """Return a program's log line without its time, level and logger, where it has the form of a known logger."""
    match = _LOGGED.match(line)
    if match is not None:
        return next(text for text in match.groups() if text is not None)
    if line.startswith("{"):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            return line
        text = next((values[name] for name in ("message", "msg", "event") if name in values), None)
        return text if isinstance(text, str) and any(name in values for name in ("level", "levelname")) else line
    return line


class RunLog:
    """Writes to `path`, which is created readable by its owner only. Safe to use from several threads.

    Of what each child process prints, the beginning and the end are kept. Lines that cannot be written are left out,
    so that a full disk does not end the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.on_lost: Callable[[OSError], object] = lambda error: None
        """Called once, when the first line cannot be written."""
        self._error: OSError | None = None
        self._told = False
        self._lost = 0
        self._torn = False
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._children: dict[str, _Ends] = {}

    def write(self, source: str, message: str, level: str = "INFO") -> None:
        """Add an event. `source` is a block, a process or `streamline`."""
        text = _lines(source, message, level)
        with self._lock:
            if level == "ERROR":
                self._write_ends(source)  # the last lines that a child printed
            self._write(text)
        self._tell()

    def child(self, source: str, line: str, level: str | None = None) -> None:
        """Add a line that a child process printed.

        Args:
            level: None: the level in the line itself.
        """
        text = _lines(source, line, level or level_of(line))
        with self._lock:
            ends = self._children.get(source)
            if ends is None:
                ends = self._children[source] = _Ends()
            if ends.takes(text):
                self._write(text)
        self._tell()

    def close(self) -> None:
        """Close the file; again is harmless, and later events are dropped."""
        with self._lock:
            for source in self._children:
                self._write_ends(source)
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _write(self, text: str) -> None:
        if self._fd < 0 or not text:
            return
        data = text.encode("utf-8", "replace")
        if self._lost:
            note = f"… (lines that could not be written: {self._lost:,})"
            data = b"\n" * self._torn + _lines("streamline", note, "WARNING").encode() + data
        try:
            while data:
                data = data[os.write(self._fd, data) :]
                self._torn = True
        except OSError as error:
            self._error = error
            self._lost += text.count("\n")
        else:
            self._lost, self._torn = 0, False

    def _tell(self) -> None:
        """Report the first error, outside the lock: whoever hears of it may write to this log."""
        if self._error is not None and not self._told:
            self._told = True
            self.on_lost(self._error)

    def _write_ends(self, source: str) -> None:
        ends = self._children.get(source)
        if ends is not None and ends.last:
            dropped, last = ends.take()
            note = f"… ({dropped:,} lines are left out: only the beginning and the end of its output are kept)"
            self._write((_lines(source, note, "WARNING") if dropped else "") + last)


class _Ends:
    """The output of one child process: written up to `HEAD_CHARACTERS`, then the last lines are kept."""

    __slots__ = ("dropped", "kept", "last", "written")

    def __init__(self) -> None:
        self.written = 0
        self.kept = 0
        self.dropped = 0
        self.last: deque[str] = deque()

    def takes(self, text: str) -> bool:
        """Keep a line; return whether it is to be written at once."""
        if self.written < HEAD_CHARACTERS:
            self.written += len(text)
            return True
        self.last.append(text)
        self.kept += len(text)
        while self.kept > TAIL_CHARACTERS and len(self.last) > 1:
            self.kept -= len(self.last.popleft())
            self.dropped += 1
        return False

    def take(self) -> tuple[int, str]:
        """Return the number of lines that were dropped, and those that were kept."""
        dropped, last = self.dropped, "".join(self.last)
        self.dropped = self.kept = 0
        self.last.clear()
        return dropped, last


def _lines(source: str, message: str, level: str) -> str:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    return "".join(f"{stamp} {level:7} {source} | {line}\n" for line in message.splitlines() or [""])
