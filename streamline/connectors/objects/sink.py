"""A sink that writes messages into files of an object store or a folder. A complete file is the proof.

A file is closed at a position: when it is large enough, and, together with all others of its source, when the oldest of
these is old enough, so that a replay begins where files begin. A file is named by its first message: where that has an
offset and a time, a replay after a kill writes the same name again, and so replaces a file whose proof could not be
saved any more. One with messages of several partitions is replaced only by one that begins at the same offsets of all.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from streamline.connectors.kafka.serialization.json_text import encode_json
from streamline.connectors.objects.formats import LinesFile, MessageFile, ParquetFile
from streamline.connectors.objects.settings import ObjectSettings
from streamline.connectors.objects.stores import Store, StoreAway, StoreDenied, StoreUnusable, open_store
from streamline.connectors.refusals import Message, has_metadata
from streamline.connectors.stream_connector import StreamContext
from streamline.connectors.tables.values import Family
from streamline.connectors.thread_sink import StreamWriter, ThreadSink
from streamline.errors import StreamlineError
from streamline.flow.items import BadRecord, MessageBatch, Origin, Position

ROOM = 10_000
"""Messages that wait in memory."""

MAX_FILES = 200
"""Files that are open at a time; with one more, all are closed at the next position."""

PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before the next try during an outage; the last repeats."""

_SPOOLS: dict[str, threading.Lock] = {}
"""Held by the thread that uses a spool folder: that of an earlier attempt may not have ended yet, and must put no file
in place of one of the next attempt."""


class ObjectSink(ThreadSink):
    """Writes files."""

    def __init__(self, settings: ObjectSettings, context: StreamContext) -> None:
        super().__init__(context.block, room=ROOM, note=context.note)
        self._settings = settings
        self._context = context
        identity = f"{context.pipeline}/{context.block}/{context.checkout}/{context.slot}"
        self._tag = hashlib.sha256(identity.encode()).hexdigest()[:10]
        self._lock: threading.Lock | None = None
        self._store: Store | None = None
        self._answered = False

    def _open(self) -> StreamWriter:
        context = self._context
        lock = _SPOOLS.setdefault(f"{context.root}/{self._tag}", threading.Lock())
        while not lock.acquire(timeout=0.1):
            if self._inbox.abandoned:
                raise StoreUnusable("an earlier attempt has not ended", where=self._settings.address)
        self._lock = lock
        work = context.root / ".streamline" / "objects"
        store = self._store = open_store(self._settings, self._tag, work)
        try:
            aborted = self._tried(store.clean)
            if aborted:
                self._tell(f"uploads of a killed run were aborted: {aborted}", "INFO")
        except StoreDenied as error:
            # Who may write needs not be allowed to list: what is wrong is found when a file is put.
            self._tell(f"whether a killed run has left uploads could not be found out: {error.message}", "WARNING")
        return ObjectWriter(
            self.id,
            self._settings,
            store,
            self._tag,
            self._refuse,
            self._prove,
            lambda file, key: self._tried(lambda: store.put(file, key)),
            repeatable=not context.letters,
        )

    def _free(self) -> None:
        if self._lock is not None:
            if self._store is not None:
                shutil.rmtree(self._store.spool, ignore_errors=True)
            self._lock.release()

    def _tried(self, call: Callable[[], Any]) -> Any:
        """Ask the store, however long it is away; only at the start there is a limit.

        Raises:
            StoreUnusable: it cannot be used, or it is away and there is no time.
        """
        began, tries = time.monotonic(), 0
        while True:
            try:
                result = call()
            except StoreAway as error:
                late = not self._answered and time.monotonic() - began >= self._context.startup_timeout
                if tries == 0:
                    self._tell(f"{self._settings.address} takes no files now ({error}); it is tried again", "WARNING")
                if late or not self._pause(PAUSES[min(tries, len(PAUSES) - 1)]):
                    raise StoreUnusable(
                        f"the store does not answer: {error}", where=self._settings.address, hint="is it up?"
                    ) from None
                tries += 1
            else:
                self._answered = True
                if tries:
                    self._tell(f"{self._settings.address} takes files again", "INFO")
                return result


class _Open(msgspec.Struct):
    """A file that is being written.

    Args:
        name: its key, without the end.
        firsts: the first offset of each partition whose messages it has.
        unknown: it has messages of which it is not known where they were read.
    """

    file: MessageFile
    path: Path
    name: str
    began: float
    nbytes: int = 0
    firsts: dict[tuple[str, int], int] = {}
    unknown: bool = False

    def add(self, origins: Sequence[Origin | None]) -> None:
        """Note what messages were added."""
        firsts = {(each.topic, each.partition): each.offset for each in reversed(origins) if each is not None}
        self.firsts = {**firsts, **self.firsts}
        self.unknown = self.unknown or None in origins

    def key(self, end: str) -> str:
        """Return its key in the store.

        A file replaces another that begins with the same messages. That must hold for each partition: of one, the
        position may have been saved, and its messages will not come again with those of another.
        """
        if self.unknown and self.firsts:
            return f"{self.name}-{self.path.name[:8]}{end}"
        if len(self.firsts) > 1:
            return f"{self.name}-{hashlib.sha256(repr(sorted(self.firsts.items())).encode()).hexdigest()[:8]}{end}"
        return f"{self.name}{end}"


class _Source(msgspec.Struct):
    """What is open of a source.

    Args:
        files: by their folders below the base.
        number: of its newest position.
        between: nothing came after that position.
        names: of files since all of them were closed.
    """

    files: dict[str, _Open] = {}
    number: int = 0
    between: bool = True
    names: set[str] = set()


class ObjectWriter:
    """Implements `StreamWriter`.

    Args:
        tag: ends the names of files.
        refuse: called with a source's id and a message of it that cannot be written.
        prove: called with numbers of positions, by source.
        put: puts a file under a key of the store.
        repeatable: files may be named by their first messages.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        id: str,
        settings: ObjectSettings,
        store: Store,
        tag: str,
        refuse: Callable[[str, BadRecord], None],
        prove: Callable[[dict[str, int]], None],
        put: Callable[[Path, str], None],
        *,
        repeatable: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._id = id
        self._settings = settings
        self._store = store
        self._tag = tag
        self._refuse = refuse
        self._prove = prove
        self._put = put
        self._repeatable = repeatable
        self._by_message = "{partition}" in settings.path or "{date}" in settings.path
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._families: dict[str, dict[str, Family]] = {}

    def take(self, source: str, batch: MessageBatch) -> None:
        """See `StreamWriter.take`."""
        own = self._sources.setdefault(source, _Source())
        own.between = False
        parts: dict[str, tuple[list[bytes], list[Any], list[Origin | None]]] = {}
        origins: Sequence[Origin | None] = batch.origins or [None] * batch.count
        place: object = None
        for number, (value, origin) in enumerate(zip(batch.data, origins, strict=True)):
            data = value["data"] if has_metadata(value) else value
            try:
                line = self._line(data)
            except ValueError as error:
                self._refuse(source, Message(source, batch, number).refused(str(error), self._id))
                continue
            at = self._place(origin)
            if at != place or not parts:
                place = at
                lines, rows, read = parts.setdefault(self._folder(batch.stream, origin), ([], [], []))
            lines.append(line)
            rows.append(data)
            read.append(origin)
        for folder, (lines, rows, read) in parts.items():
            file = own.files.get(folder)
            if file is None:
                file = own.files[folder] = self._begin(source, own, folder, batch.stream, read[0])
            with _written(file.path):
                file.file.add(lines, rows)
            file.add(read)
            file.nbytes += sum(map(len, lines))
            if file.nbytes >= 2 * self._settings.max_file_bytes:  # positions are far between
                self._complete([own.files.pop(folder)])

    def reach(self, source: str, position: Position) -> None:
        """See `StreamWriter.reach`."""
        own = self._sources.setdefault(source, _Source())
        own.number, own.between = position.number, True
        if position.awaited or len(own.files) > MAX_FILES or self._left(own) <= 0:
            self._close(source, own)
            return
        full = [key for key, file in own.files.items() if file.nbytes >= self._settings.max_file_bytes]
        if full:
            self._complete([own.files.pop(key) for key in full])
        if not own.files:
            self._close(source, own)

    def patience(self) -> float | None:
        """See `StreamWriter.patience`."""
        waiting = [self._left(own) for own in self._sources.values() if own.files and own.between]
        return max(0.0, min(waiting)) if waiting else None

    def rest(self, *, hurry: bool) -> None:
        """See `StreamWriter.rest`."""
        for source, own in self._sources.items():
            if own.files and (hurry or (own.between and self._left(own) <= 0)):
                self._close(source, own)

    # -- files

    def _left(self, own: _Source) -> float:
        """Return the seconds until the source's files are closed."""
        if not own.files:
            return self._settings.max_file_seconds
        return min(file.began for file in own.files.values()) + self._settings.max_file_seconds - self._clock()

    def _close(self, source: str, own: _Source) -> None:
        """Complete all files of a source; then everything before its newest position is durable."""
        files, own.files = list(own.files.values()), {}
        self._complete(files)
        own.names.clear()
        if own.number:
            self._prove({source: own.number})

    def _complete(self, files: Sequence[_Open]) -> None:
        for file in files:
            with _written(file.path):
                file.file.close()
            self._put(file.path, file.key(f"-{self._tag}.{self._settings.extension}"))

    def _begin(self, source: str, own: _Source, folder: str, stream: str, origin: Origin | None) -> _Open:
        name = self._name(source, origin)
        unique, copies = name, 1
        while f"{folder}/{unique}" in own.names:
            copies += 1
            unique = f"{name}-{copies}"
        own.names.add(f"{folder}/{unique}")
        path = self._store.spool / uuid.uuid4().hex
        file: MessageFile
        with _written(path):
            if self._settings.format == "parquet":
                file = ParquetFile(path, self._settings.compression, self._families.setdefault(stream, {}))
            else:
                file = LinesFile(path, self._settings.compression)
        return _Open(file, path, "/".join(filter(None, (folder, unique))), self._clock())

    def _name(self, source: str, origin: Origin | None) -> str:
        if origin is None or origin.offset < 0 or origin.time is None or not self._repeatable:
            moment = dt.datetime.now(dt.UTC)
            return f"{source}-{_stamp(moment)}-{uuid.uuid4().hex[:8]}"
        moment = _moment(origin)
        return f"{source}-{_safe(origin.topic)}-{_stamp(moment)}-{origin.partition}-{origin.offset}"

    def _place(self, origin: Origin | None) -> object:
        """Return what decides, beside the stream, in which folder a message is: of two messages with equal ones it is
        the same."""
        if not self._by_message:
            return ()
        return (origin.partition, origin.time and origin.time // 1000) if origin is not None else None

    def _folder(self, stream: str, origin: Origin | None) -> str:
        path = self._settings.path
        partition = origin.partition if origin is not None else -1
        values: Mapping[str, str] = {
            "stream": _safe(stream),
            "partition": str(max(0, partition)),
            "date": _moment(origin).strftime(self._settings.date_format).strip("/"),
        }
        return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], path)

    def _line(self, data: Any) -> bytes:
        """Return the JSON text of a message, with the end of its line.

        Raises:
            ValueError: it has none, or is no row.
        """
        if self._settings.format == "parquet":
            if not isinstance(data, dict) or not data:
                raise ValueError("it is no object with fields, and so no row of a Parquet file")
            if not all(isinstance(name, str) for name in data):
                raise ValueError("it has a field whose name is no text")
        return encode_json(data) + b"\n"


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Say what it means if a file of the spool folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise StreamlineError(
            f"cannot write: {error.strerror or error}",
            where=str(path.parent),
            hint="is the disk full?",
            code="objects.spool_failed",
        ) from None


def _moment(origin: Origin | None) -> dt.datetime:
    """Return the time of a message; now, if it has none."""
    if origin is None or origin.time is None:
        return dt.datetime.now(dt.UTC)
    try:
        return dt.datetime.fromtimestamp(origin.time / 1000, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return dt.datetime.fromtimestamp(0, dt.UTC)


def _stamp(moment: dt.datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%S") + f"{moment.microsecond // 1000:03d}Z"


def _safe(name: str) -> str:
    """Return a name as a part of a path."""
    return re.sub(r"[^\w.=+-]", "_", name).strip(".") or "_"
