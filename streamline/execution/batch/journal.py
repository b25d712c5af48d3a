"""Records what a run has done so far, so that `--resume` can continue after it was killed.

One line of JSON per event, appended whole: a torn last line is ignored. The journal of a pipeline's
newest unfinished run is kept beside its outputs; a run that completed needs none.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from streamline.errors import DiskFull, StreamlineError, is_disk_full
from streamline.execution.batch.fanout import COMPLETED, CallFacts, CallKey
from streamline.execution.batch.run_variables import RunVariables, boot_id
from streamline.state.store import BookmarkOverride, BookmarkSave


class Begun(msgspec.Struct, tag="begun", kw_only=True):
    """The run began with these variables, which may hold secrets: the file is 0600.

    Args:
        full_refresh, accept_gap, bookmarks: options of the run.
    """

    run_id: str
    execution_date: datetime
    given: RunVariables
    full_refresh: bool = False
    accept_gap: bool = False
    bookmarks: list[str] = []


class Continued(msgspec.Struct, tag="continued", kw_only=True):
    """The run was resumed, with these variables."""

    given: RunVariables


class Called(CallFacts, tag="called", kw_only=True):
    """A call of a block completed; its output is stored."""

    block: str
    outputs: list[dict[str, Any]] = msgspec.field(default_factory=list)


class Ended(msgspec.Struct, tag="ended", kw_only=True):
    """A block completed: its calls completed or, those in `skipped` (number and key), were skipped.

    Args:
        tested: its tests ran as well.
        stamp: what changes when its file does.
    """

    block: str
    child: bool
    calls: int
    upstream: list[str] = []
    status: str = COMPLETED
    skipped: list[tuple[int, CallKey]] = []
    seconds: float | None = None
    attempts: int = 1
    results: list[Any] = []
    tested: bool = False
    stamp: str | None = None


class Positioned(msgspec.Struct, tag="positioned", kw_only=True):
    """A source has reached positions, which wait for the blocks downstream of it.

    Args:
        key: what they are kept under; of a block that runs once, its uuid.
        call: which of the block's calls has read it.
        into: the destination that has written the records before them as they were read; None: they were stored.
        dropped: streams whose saved bookmark is deleted.
        overrides: stored overrides that have had their effect.
        gaps: streams of the same log that are not read.
    """

    key: str
    block: str
    call: CallKey = ()
    into: str | None = None
    bookmarks: list[BookmarkSave] = []
    dropped: list[str] = []
    overrides: list[BookmarkOverride] = []
    gaps: list[str] = []


class Withdrawn(msgspec.Struct, tag="withdrawn", kw_only=True):
    """The positions under a key wait no longer: the source reads again from where the run began, or they are saved."""

    key: str


class Undone(msgspec.Struct, tag="undone", kw_only=True):
    """A block is run anew: what it was made from has changed, or its output is gone."""

    block: str


Event = Begun | Continued | Called | Ended | Positioned | Withdrawn | Undone


class Journal:
    """Appends events, from any thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        self._lock = threading.Lock()
        # After a torn line the next event would be lost with it.
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")

    def add(self, event: Event) -> None:
        """Append an event; it survives the death of this process.

        Raises:
            StreamlineError: it cannot be written; nothing of it is left then.
        """
        line = self._encoder.encode(event) + b"\n"
        with self._lock:
            self._write(line)

    def _write(self, line: bytes) -> None:
        before = os.fstat(self._fd).st_size
        failure: StreamlineError | None = None
        try:
            if os.write(self._fd, line) == len(line):
                return
        except OSError as error:
            if not is_disk_full(error):
                failure = StreamlineError(
                    f"cannot write the run's journal: {error.strerror or error}",
                    where=str(self.path),
                    code="run.journal_failed",
                )
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, before)
        raise failure or DiskFull(self.path)

    def close(self) -> None:
        """Close the file; again is harmless."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Past(msgspec.Struct, kw_only=True):
    """What a journal records.

    Args:
        given: what the newest part of the run was given, and all parts before it.
        calls: completed calls by block and number.
        ended: blocks that completed or were skipped.
        positions: what sources have reached, in order.
    """

    begun: Begun
    given: RunVariables
    calls: dict[str, dict[int, Called]] = {}
    ended: dict[str, Ended] = {}
    positions: list[Positioned] = []

    def follow(self, run_variables: RunVariables) -> None:
        """Begin a further part of the run with these variables."""
        if run_variables.boot != self.given.boot:
            # Children reach the disk for sure when all of them are done; a crash of the machine may have torn others.
            self.calls = {block: calls for block, calls in self.calls.items() if block in self.ended}
        self.given = run_variables


def read_journal(path: Path) -> Past | None:
    """Return the content of a journal; None if there is none, or its beginning is missing."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return None
    past: Past | None = None
    decoder = msgspec.json.Decoder(Event)
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError):
            event = decoder.decode(line)
            if isinstance(event, Begun):
                past = past or Past(begun=event, given=event.given)
            elif past is None:
                return None
            elif isinstance(event, Continued):
                past.follow(event.given)
            elif isinstance(event, Called):
                past.calls.setdefault(event.block, {})[event.number] = event
            elif isinstance(event, Ended):
                past.ended[event.block] = event
            elif isinstance(event, Positioned):
                past.positions.append(event)
            elif isinstance(event, Withdrawn):
                past.positions = [each for each in past.positions if each.key != event.key]
            else:
                past.ended.pop(event.block, None)
                past.calls.pop(event.block, None)
    if past is not None:
        past.follow(msgspec.structs.replace(past.given, boot=boot_id()))
    return past


def keep_only(folder: Path, names: Iterable[str]) -> None:
    """Delete the journals of a folder but these."""
    kept = set(names)
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)
