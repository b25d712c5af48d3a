"""What the engine asks of a state store, whatever database is behind it.

All methods block, and may be called from any thread, one call at a time. Every writing method is one transaction:
it has happened whole and durably when it returns, or not at all. Times are ISO 8601 in UTC, with milliseconds.

A *bookmark* is one stream's part of a source's position. It is replaced whole, never merged, and its JSON text is
kept exactly as the tap wrote it; what the engine knows about it stands beside it. The row of stream `*` holds what
stands outside the `bookmarks` of a Singer state, or the whole state if it has another shape.

A bookmark's *epoch* goes up whenever something else than the ordinary progress of runs moved it: set, edit, reset,
rollback, import, a full refresh, a bookmark override. Targets that keep positions in their own transactions win over
the store only in the same epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias

import msgspec

Cause: TypeAlias = Literal["run", "full-refresh", "override", "set", "edit", "reset", "rollback", "import"]
"""Why a bookmark changed. Every cause but `run` raises the epoch."""


class Bookmark(msgspec.Struct, kw_only=True):
    """One stream's saved position.

    Args:
        value: JSON text of the bookmark, as the tap wrote it.
        sinks: uuids of the destination blocks that proved it. Empty: an operator set it, who vouches for all.
        replication_method, replication_key: what the stream was read with; None: not known (set by an operator).
        gap: the log that the stream shares with others was confirmed past this position while the stream was left
            out of the run, so what lies between can no longer be read.
    """

    pipeline: str
    block: str
    stream: str
    value: str
    run_id: str
    saved_at: str
    epoch: int
    sinks: list[str] = []
    replication_method: str | None = None
    replication_key: str | None = None
    gap: bool = False


class BookmarkSave(msgspec.Struct, kw_only=True):
    """A stream's new position, to replace the old one whole.

    Args:
        cause: `full-refresh` or `override` raise the epoch, once as long as a run goes on naming them.
        gap: for imports; a position that a run has proven has none.
        destinations: the identity of each destination that proved it, by uuid.
    """

    stream: str
    value: str
    sinks: Sequence[str] = ()
    replication_method: str | None = None
    replication_key: str | None = None
    cause: Cause = "run"
    gap: bool = False
    destinations: Mapping[str, str] = {}


class HistoryEntry(msgspec.Struct, kw_only=True):
    """A value that a stream's bookmark had. `value` is None where the bookmark was taken away."""

    id: int
    pipeline: str
    block: str
    stream: str
    value: str | None
    run_id: str
    saved_at: str
    epoch: int
    cause: str
    sinks: list[str] = []
    replication_method: str | None = None
    replication_key: str | None = None


class BookmarkOverride(msgspec.Struct, frozen=True):
    """One value of a stored `__bookmark_values__`; it counts once. `value` is its JSON text, sorted keys."""

    stream: str
    column: str
    value: str


LetterForm: TypeAlias = Literal["json", "base64", "text", "value"]
"""How a dead letter holds a message's data: as JSON text (`flow/codecs/message_data.py`), as bytes in base64, as text
from which it cannot be restored, or not at all: it is, or is decoded from, the message's value."""


class DeadLetter(msgspec.Struct, kw_only=True):
    """A record that was refused on the way. The same record at the same stage of a block and stream is kept once,
    if it has the same `copy`; of a message, its place says whether it is the same.

    Args:
        record: the JSON text of the record; of a message, its data as `stage` got it, in the form that `form` says.
        stage: `validate`, `schema_change`, `decode`, `park`, or the uuid of the block that refused it.
        destination: uuid of the destination block for which it was refused, where it was for one only.
        output: it is what the block `stage` returned; else it is what was refused as it came to `stage`.
        run_id, error: of the last time it was refused.
        time: of that; given by the store.
        times: how often it was refused.
        copy: tells apart equal records of a stream without a key, and several outputs of one message; the state
            database does not give it back.
        id: given by the store; a letter that has one is replaced.
        topic, partition, offset: where a message was read; None: it is no message, or a new one that a block made.
        key, value, headers, message_time: of that message, as in `flow.items.Origin`.
        trace: the traceback of the user's code that refused it.
        inferred: the message is the one that the record was most likely made of; the state database does not give it
            back.
        written_since: an offset behind the message's, of a message with the same key that was delivered; given by the
            store.
    """

    pipeline: str
    block: str
    stream: str
    run_id: str
    record: str
    error: str
    stage: str
    destination: str | None = None
    output: bool = False
    time: str = ""
    times: int = 1
    copy: str = ""
    id: int = 0
    form: LetterForm = "json"
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    key: bytes | None = None
    value: bytes | None = None
    headers: list[tuple[str, bytes | None]] | None = None
    message_time: int | None = None
    trace: str | None = None
    inferred: bool = False
    written_since: int | None = None

    def message_identity(self) -> bytes:
        """Return what tells the letter's message, which was read from a topic, apart from all others.

        The place alone does not: a topic may be deleted and created again, and a file replaced by another of its name.
        """
        import hashlib

        digest = hashlib.sha256(repr((self.topic, self.partition, self.offset, self.message_time, self.key)).encode())
        digest.update(b"-" if self.value is None else b"+" + self.value)
        return digest.digest()


class StateChange(msgspec.Struct, frozen=True):
    """A new value in the keyed state of a transformer block; None deletes it.

    Args:
        block: uuid of the transformer.
        source: uuid of the source block whose messages changed it.
    """

    block: str
    source: str
    key: bytes
    value: bytes | None


class LetterKey(msgspec.Struct, kw_only=True):
    """A key of messages of which there are dead letters.

    Args:
        oldest, newest: offsets of the first and the last of them.
        written: offset of a later message of the key that was delivered; None: none is known.
    """

    block: str
    topic: str
    partition: int
    key: bytes
    oldest: int = 0
    newest: int = 0
    written: int | None = None


class RunInfo(msgspec.Struct, kw_only=True):
    """One run of a pipeline.

    Args:
        status: running, completed, failed, cancelled, killed (found dead by a later run) …
        seconds: how long it took; None while it runs, and for a killed run, whose end is unknown.
        summary: what the run has to say for itself (records per stream …); JSON values.
    """

    run_id: str
    pipeline: str
    status: str = "running"
    started: str = ""
    finished: str | None = None
    seconds: float | None = None
    pid: int | None = None
    host: str | None = None
    summary: dict[str, Any] = {}
    error: str | None = None
    code: str | None = None
    """Code of the first failure."""


class BlockRun(msgspec.Struct, kw_only=True):
    """What became of one block in a run. `results` are JSON values (for instance dbt's nodes)."""

    uuid: str
    status: str
    seconds: float | None = None
    attempts: int = 1
    results: list[Any] = []
    error: str | None = None
    code: str | None = None
    """Code of its failure."""


class PluginSecret(msgspec.Struct, kw_only=True):
    """A config value that a plugin replaced during a run (a rotated token).

    Args:
        value: its JSON text.
        replaces: whatever the caller needs to know the configured value by that it took the place of (a hash), so
            that a value changed in the configuration afterwards wins again.
    """

    name: str
    value: str
    replaces: str


class LeaseInfo(msgspec.Struct, kw_only=True):
    """Who holds a pipeline's lease, as far as is known."""

    pipeline: str
    run_id: str
    pid: int
    host: str
    since: str


class Lease(Protocol):
    """The right to run a pipeline and to write its positions. Use as a context manager, or `release` it."""

    pipeline: str
    run_id: str

    def release(self) -> None:
        """Give it back; again is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """The state store. Methods raise StreamlineError when the database cannot be used (full, locked, gone)."""

    def close(self) -> None:
        """Close the database; again is harmless."""

    # --- leases and runs

    def acquire_lease(self, pipeline: str, run_id: str) -> Lease:
        """Become the only one who runs `pipeline` or changes its positions.

        Raises:
            LeaseHeld: somebody else is; the message names the run, its process and since when.
        """

    def lease_holder(self, pipeline: str) -> LeaseInfo | None:
        """Return the lease's current holder, or None."""

    def begin_run(self, run: RunInfo) -> None:
        """Record a run that begins. `started`, `pid` and `host` are filled in where they are empty."""

    def continue_run(self, run_id: str) -> None:
        """Record that a run which had ended goes on, in this process."""

    def finish_run(
        self,
        run_id: str,
        status: str,
        summary: Mapping[str, Any],
        error: str | None = None,
        code: str | None = None,
    ) -> None:
        """Record how a run ended."""

    def drop_run(self, run_id: str) -> None:
        """Forget a run that did not happen: an option was wrong."""
        ...

    def runs(self, pipeline: str | None = None, limit: int = 50) -> list[RunInfo]:
        """Return runs, the newest first."""

    def run(self, run_id: str) -> RunInfo | None:
        """Return one run, or None."""

    def unfinished_runs(self, pipeline: str) -> list[RunInfo]:
        """Return runs that never ended. The holder of the lease knows that they were killed, except its own."""

    def save_block_run(self, run_id: str, block: BlockRun) -> None:
        """Record what became of a block; replaces what the run said about it before."""

    def block_runs(self, run_id: str) -> list[BlockRun]:
        """Return a run's blocks, in the order in which they were first recorded."""

    # --- positions

    def bookmarks(self, pipeline: str, block: str) -> dict[str, Bookmark]:
        """Return a source block's bookmarks by stream."""

    def bookmark_blocks(self, pipeline: str) -> list[str]:
        """Return the blocks of a pipeline that have bookmarks or have had some."""

    def epochs(self, pipeline: str, block: str) -> dict[str, int]:
        """Return epochs by stream, also of streams whose bookmark was reset."""

    def save(
        self,
        pipeline: str,
        block: str,
        run_id: str,
        bookmarks: Sequence[BookmarkSave],
        dead_letters: Sequence[DeadLetter] = (),
        consumed_overrides: Sequence[BookmarkOverride] = (),
        dropped: Sequence[str] = (),
        state: Sequence[StateChange] = (),
    ) -> None:
        """Save proven positions and, in the same transaction, the dead letters before them, the overrides that have
        had their effect, and what changed of keyed state; delete the bookmarks that are `dropped`. Streams that are
        not named keep theirs.
        """

    def keyed_value(self, pipeline: str, block: str, source: str, key: bytes) -> bytes | None:
        """Return a value of a transformer's keyed state; None: the key has none."""

    def keyed_values(
        self, pipeline: str, block: str, source: str, first: bytes = b"", last: bytes | None = None, limit: int = -1
    ) -> list[tuple[bytes, bytes]]:
        """Return a transformer's keyed state that the messages of a source have made, sorted by key.

        Args:
            first, last: keys from the one to before the other.
        """

    def set_bookmark(
        self, pipeline: str, block: str, stream: str, value: str, *, run_id: str, cause: Cause = "set"
    ) -> None:
        """Set an operator's value for a stream. Keeps its sinks, replication settings and gap mark."""

    def reset(self, pipeline: str, block: str, streams: Sequence[str] | None = None, *, run_id: str) -> list[str]:
        """Forget positions (of all streams without `streams`, and with them the keyed state that the source's messages
        have made), so that the next run reads everything again.

        Returns:
            the streams that had one.
        """

    def history(
        self, pipeline: str, block: str | None = None, stream: str | None = None, limit: int = 50
    ) -> list[HistoryEntry]:
        """Return values that bookmarks had, the newest first.

        Kept are a stream's last values and, of older ones, the last of each run.
        """

    def rollback(
        self,
        pipeline: str,
        block: str,
        stream: str | None = None,
        *,
        to: int | None = None,
        before_run: str | None = None,
        run_id: str,
    ) -> list[str]:
        """Put bookmarks back to what they were; this is itself a change that can be rolled back.

        Args:
            stream: only this one; None: all of the block.
            to: the id of a history entry: as it was right after that change.
            before_run: a run id: as it was before that run (or operator's change) first moved it.
                With neither: before the run that moved one of them last.

        Returns:
            the streams whose bookmark changed.

        Raises:
            ConfigError: there is no such entry or run in the history.
        """

    def import_state(
        self, pipeline: str, block: str, bookmarks: Sequence[BookmarkSave], *, run_id: str, replace: bool = False
    ) -> list[str]:
        """Take over bookmarks from elsewhere. With `replace`, streams that are not named lose theirs.

        Returns:
            the streams whose bookmark changed.
        """

    def mark_gap(self, pipeline: str, block: str, streams: Sequence[str], *, at_start: bool = False) -> None:
        """Mark bookmarks that can no longer be continued from. Streams without a bookmark need no mark.

        Args:
            at_start: because of where a tap starts, which may release its log there; else because of a position that
                is saved next.
        """

    def consumed_overrides(self, pipeline: str, block: str) -> set[BookmarkOverride]:
        """Return stored overrides that have had their effect."""

    def destinations(self, pipeline: str, block: str) -> dict[str, dict[str, str]]:
        """Return the identities of the destinations that have the records before each bookmark: {stream: {sink: …}}."""
        ...

    def save_destinations(self, pipeline: str, block: str, stream: str, destinations: Mapping[str, str]) -> None:
        """Replace what is known about the destinations of a stream."""
        ...

    # --- schemas; stream settings of earlier versions

    def stored_stream_settings(self, pipeline: str) -> dict[str, dict[str, dict[str, Any]]]:
        """Return the stream settings that earlier versions kept here: {block: {stream or glob: {key: value}}}."""

    def drop_stored_stream_settings(self, pipeline: str, block: str) -> None:
        """Delete them; they are in the block's file now."""

    def last_schemas(self, pipeline: str, block: str) -> dict[str, dict[str, Any]]:
        """Return the schema that each stream was last loaded with."""

    def save_schema(self, pipeline: str, block: str, stream: str, schema: Mapping[str, Any]) -> None:
        """Remember a stream's schema."""

    # --- dead letters

    def dead_letters(
        self,
        pipeline: str,
        *,
        block: str | None = None,
        stream: str | None = None,
        ids: Sequence[int] | None = None,
        limit: int | None = None,
    ) -> list[DeadLetter]:
        """Return dead letters, the oldest first; with `limit` the newest of them."""

    def discard_dead_letters(self, pipeline: str, ids: Sequence[int] | None = None) -> int:
        """Delete some, or all of a pipeline; returns how many there were."""

    def letter_keys(self, pipeline: str) -> list[LetterKey]:
        """Return the keys of the messages that dead letters are of."""
        ...

    def note_key_written(self, pipeline: str, key: LetterKey) -> None:
        """Remember that a message of a key was delivered: its offset is `key.written`."""
        ...

    # --- blocks

    def renamed_block(self, pipeline: str, old: str, new: str) -> AbstractContextManager[None]:
        """Give what is kept of a block (positions and their history, proofs, dead letters, schemas) to the name `new`.

        Everything, or nothing if the `with` block raises. Records of past runs keep the name that it had. What a
        removed block `new` has left is replaced, except its dead letters.
        """
        ...

    # --- caches and plugins' secrets

    def cache_get(self, kind: str, key: str) -> str | None:
        """Return what was put there, or None. Kinds: `discovery`, `capabilities` …"""

    def cache_put(self, kind: str, key: str, value: str) -> None:
        """Keep something that can be found out again; losing it is harmless."""

    def cache_drop(self, kind: str, key: str) -> None:
        """Forget it; nothing happens where nothing was put."""
        ...

    def plugin_secrets(self, pipeline: str, block: str) -> dict[str, PluginSecret]:
        """Return values that a block's plugin wrote back into its config, by config key."""

    def plugin_secret_put(self, pipeline: str, block: str, secret: PluginSecret) -> None:
        """Keep, or replace, one of them."""


def current_run(store: Store, run: RunInfo) -> RunInfo:
    """Return a run with its status now: `killed` if it is recorded as running but does not hold the lease."""
    if run.status != "running":
        return run
    holder = store.lease_holder(run.pipeline)
    if holder is not None and holder.run_id == run.run_id:
        return run
    # It may have ended before the lease was checked.
    now = store.run(run.run_id) or run
    if now.status == "running":
        now.status = "killed"
    return now
