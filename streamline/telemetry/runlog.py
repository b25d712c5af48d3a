"""A run's log file: one line per event, `time level source message`, secrets masked by whoever writes."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

LOG_FILE = "run.log"
"""The log's name in the run's folder."""

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

_LEVEL = re.compile(
    r"\b(CRITICAL|FATAL|ERROR|WARN(?:ING)?|INFO|DEBUG|TRACE)\b|\"?level\"?\s*[:=]\s*\"?(\w+)", re.IGNORECASE
)
_NAMES = {"CRITICAL": "ERROR", "FATAL": "ERROR", "WARN": "WARNING", "TRACE": "DEBUG", "EXCEPTION": "ERROR"}


def level_of(line: str, default: str = "INFO") -> str:
    """The level that a line of some program's log bears in its first words, else `default`."""
    match = _LEVEL.search(line[:120])
    if match is None:
        return default
    name = (match[1] or match[2]).upper()
    name = _NAMES.get(name, name)
    return name if name in LEVELS else default


class RunLog:
    """Writes to `path`, which is created readable by its owner only. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()

    def write(self, source: str, message: str, level: str = "INFO") -> None:
        """Add an event. `source` is a block, a process or `streamline`."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        text = "".join(f"{stamp} {level:7} {source} | {line}\n" for line in message.splitlines() or [""])
        with self._lock:
            if self._fd >= 0:
                os.write(self._fd, text.encode("utf-8", "replace"))

    def child(self, source: str, line: str) -> None:
        """Add a line that a child process logged, with the level that it bears."""
        self.write(source, line, level_of(line))

    def close(self) -> None:
        """Close the file; again is harmless, and later events are dropped."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
