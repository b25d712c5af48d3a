"""A page of memory that a worker and the runner share, readable also after the worker's death."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable
from enum import IntEnum

_SIZE = 4096
_READS = struct.Struct("<QQ")
_READS_AT = 16
_SPINS = 100
"""Attempts to meet no read; after that the worker sleeps between them."""

_PATIENCE_SECONDS = 1.0
"""How long a worker waits for the end of a read: a runner that was stopped in the middle of one may never end it."""


class Ending(IntEnum):
    """What a worker noted about its own end."""

    UNKNOWN = 0
    DISCONNECTED = 1
    """It could not reach the runner any more."""
    INTERNAL_ERROR = 2
    """It failed itself, and has printed why."""


class SharedPage:
    """The runner writes how much of the worker's output it has read; the worker writes how it ended.

    From the count the worker knows how much output there has been in all: a line for the log belongs after it.

    Args:
        fd: of a file; stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        if os.fstat(fd).st_size < _SIZE:
            os.ftruncate(fd, _SIZE)
        self._memory = mmap.mmap(fd, _SIZE)
        self._reads = 0
        self._total = 0

    def begin_read(self) -> None:
        """Mark the start of a read; what is being read is neither in the pipe nor counted."""
        self._reads += 1
        _READS.pack_into(self._memory, _READS_AT, self._reads, self._total)

    def end_read(self, count: int) -> None:
        """Mark the end of a read of `count` bytes."""
        self._reads += 1
        self._total += count
        _READS.pack_into(self._memory, _READS_AT, self._reads, self._total)

    def written(self, unread: Callable[[], int]) -> int:
        """Return how many bytes have been written in all. `unread` returns how many are in the pipe."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        attempts = 0
        while True:
            reads, total = _READS.unpack_from(self._memory, _READS_AT)
            count: int = total + unread()
            if reads % 2 == 0 and _READS.unpack_from(self._memory, _READS_AT) == (reads, total):
                return count
            attempts += 1
            if attempts > _SPINS:
                if time.monotonic() > deadline:
                    return count
                time.sleep(0.0005)

    @property
    def ending(self) -> Ending:
        """What the worker noted about its end."""
        return Ending(self._memory[0])

    @ending.setter
    def ending(self, value: Ending) -> None:
        self._memory[0] = value

    def close(self) -> None:
        """Unmap the memory."""
        self._memory.close()
