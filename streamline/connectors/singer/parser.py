"""Parses a tap's output into items, and decodes as little of it as possible.

A tap prints mostly RECORD lines of one stream, all of which begin with the same bytes up to the record itself:
`{"type":"RECORD","stream":"orders","record":`. That prefix is learned from the stream's first record. A JSON text
has no raw newline inside a value, so newline + prefix can occur only at the start of a line. So a chunk with as many
newlines as newline + prefix contains only records of that stream and is not decoded. The same is true for STATE
lines. Other chunks are parsed line by line, and only lines without a known prefix are decoded, without their record.
`record_lines` proves that what is not decoded has nothing behind its record that a target could read otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from streamline.connectors.singer.record_lines import (
    FlatRecords,
    count_byte,
    find_ambiguous,
    is_flat_record,
    why_ambiguous,
    without_duplicates,
)
from streamline.connectors.singer.segment import Segment
from streamline.connectors.singer.state import join_state, repeats_keys, split_state
from streamline.errors import StreamlineError
from streamline.flow.codecs.jsontext import is_deeper, split_object
from streamline.flow.items import (
    ActivateVersion,
    Buffer,
    FileBatch,
    Item,
    Schema,
)

MAX_RECORD_BYTES = 256 << 20
"""A longer line fails the tap, with its stream named; shorter ones pass, whatever the chunk size."""

MAX_DEPTH = 200
"""Levels of a SCHEMA or STATE: programs read what is nested more deeply differently, or not at all."""

_LONGEST_PREFIX = 256
_RECORD_KEY = b'"record":'
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STATE_PREFIXES = (b'{"type":"STATE",', b'{"type": "STATE",')
_STATE_LINES = (b'{"type":"STATE","value":%b}\n', b'{"type": "STATE", "value": %b}\n')
"""Lines without a member that a reader could read otherwise."""


# A union with None would make msgspec decode the member.
_ABSENT = msgspec.Raw()


class _Message(msgspec.Struct):
    type: str
    stream: str | None = None
    record: msgspec.Raw = _ABSENT
    value: msgspec.Raw = _ABSENT
    schema: msgspec.Raw = _ABSENT
    key_properties: list[str] | None = None
    bookmark_properties: Any = None
    version: Any = None
    encoding: dict[str, Any] | None = None
    manifest: list[str] | None = None
    filepath: str | None = None
    format: str | None = None
    compression: str | None = None
    batch_size: int | None = None


_NO_POSITION = (b"{}", b"null")
"""STATEs of taps that have no position yet, or none any more."""

_RAW_FIELDS = ("record", "value", "schema")
_decoder = msgspec.json.Decoder(_Message)


def _common_prefix(left: bytes, right: bytes) -> bytes:
    size = min(len(left), len(right), _LONGEST_PREFIX)
    # The highest bit in which two numbers differ is in the first byte in which their texts do.
    difference = int.from_bytes(left[:size], "big") ^ int.from_bytes(right[:size], "big")
    return left[: size - (difference.bit_length() + 7) // 8]


class TapOutputError(StreamlineError):
    """A tap's output is not valid. `items` are the valid ones before the error."""

    code = "tap.invalid_output"

    def __init__(self, message: str, *, where: str, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message, where=where, hint=hint, code=code)
        self.items: list[Item] = []


class TapParser:
    """Parses chunks of a tap's output into items.

    Records between two STATEs are grouped by stream (`Segment`). Of several STATEs in one chunk only the last is
    returned, in its place, unless it lacks a bookmark of the one before. Empty ones (`{}`, `null`) are no positions.

    Args:
        source: the source id of the positions.
        tap: the tap's name, for errors.
        log: called with each line that is not a message (some taps print other text to their standard output).
        mask: masks secrets in text that errors quote.
        max_record_bytes: the maximum length of a line.
    """

    def __init__(
        self,
        source: str,
        *,
        tap: str,
        log: Callable[[str], None],
        mask: Callable[[str], str] = str,
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        self._tap = tap
        self._log = log
        self._mask = mask
        self._max = max_record_bytes
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._known: set[str] = set()
        self._streams: dict[bytes, tuple[str, bytes]] = {}
        """By prefix: the stream, and the beginning of most of its lines, up to the record's brace."""
        self._prefix = b""
        self._opening = b""
        self._needle = b""
        self._stream = ""
        self._state_prefix = _STATE_PREFIXES[0]
        self._last_state = b""
        self._segment = Segment(source)
        self._too_deep: set[str] = set()

    def feed(self, chunk: bytes) -> list[Item]:
        """Return the items that `chunk` completes.

        Raises:
            TapOutputError: a line that begins with `{` is not a message, or a line is too long.
        """
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            self._keep(chunk)
            return []
        start = 0
        try:
            if self._rest:
                start = chunk.find(b"\n") + 1
                self._rest.append(chunk[:start])
                line = b"".join(self._rest)
                self._rest.clear()
                self._rest_bytes = 0
                self._region(line, 0, len(line))
            if start < cut:
                self._region(chunk, start, cut)
        except TapOutputError as error:
            error.items = self._segment.take()
            raise
        if cut < len(chunk):
            self._keep(chunk[cut:])
        return self._segment.take()

    def finish(self) -> list[Item]:
        """Return the remaining items at the end of the tap's output.

        Raises:
            TapOutputError: it ended in the middle of a message.
        """
        line = b"".join(self._rest)
        self._rest.clear()
        if not line.strip():
            return []
        # Some taps leave out the last newline.
        try:
            json.loads(line)
        except RecursionError:
            pass
        except ValueError:
            if line.lstrip()[:1] == b"{":
                raise TapOutputError(
                    f"its output ended in the middle of a line, after {len(line):,} bytes of it",
                    where=self._tap,
                    hint="it crashed or was killed while writing; everything before that line is kept",
                    code="tap.output_truncated",
                ) from None
        self._region(line + b"\n", 0, len(line) + 1)
        return self._segment.take()

    def _keep(self, part: bytes) -> None:
        self._rest.append(part)
        self._rest_bytes += len(part)
        if self._rest_bytes > self._max:
            head = b"".join(self._rest)[:4096]
            stream = self._stream_of_head(head)
            self._rest.clear()
            error = TapOutputError(
                f"a line is longer than {self._max:,} bytes" + (f" in stream {stream!r}" if stream else ""),
                where=self._tap,
                hint="leave out the column (streams: … columns), or raise max_record_bytes in the source block",
                code="tap.line_too_long",
            )
            error.items = self._segment.take()
            raise error

    def _stream_of_head(self, head: bytes) -> str | None:
        key = head.find(_RECORD_KEY)
        known = self._streams.get(head[: key + len(_RECORD_KEY)]) if key >= 0 else None
        return known[0] if known is not None else None

    def _add_records(self, part: Buffer, count: int) -> None:
        """Add lines of the current stream that begin with its prefix and were not decoded.

        Raises:
            TapOutputError: readers may read one of them differently. The lines before it are added.
        """
        ambiguous = find_ambiguous(part, count, self._prefix, self._opening)
        if ambiguous is not None:
            at, reason = ambiguous
            if good := bytes(part[:at]):
                self._add_lines(good, good.count(b"\n"))
            raise self._invalid(bytes(part[at:]), reason, code="tap.message_ambiguous")
        self._add_lines(part, count)

    def _add_lines(self, part: Buffer, count: int) -> None:
        """Add lines of the current stream of which it is proven that all readers read the same."""
        self._segment.add(self._stream, part, count, self._prefix)

    # -- whole lines: chunk[start:end] begins at the start of a line and ends after a newline

    def _region(self, chunk: bytes, start: int, end: int) -> None:
        while self._prefix and chunk.startswith(self._state_prefix, start) and start < end:
            stop = chunk.find(b"\n", start, end) + 1
            self._message(chunk[start:stop])
            start = stop
        if self._prefix and start < end and chunk.startswith(self._prefix, start):
            flat = FlatRecords(chunk, start, end, self._opening)
            if count := flat.count():
                self._add_lines(memoryview(chunk)[start:end], count)
                return
            runs, states = self._split_states(chunk, start, end)
            flat_records = flat.count_between(runs, states) if states else 0
            records = flat_records or 1 + chunk.count(self._needle, start, end)
            add = self._add_lines if flat_records else self._add_records
            lines = 0 if flat_records else count_byte(chunk, b"\n", start, end) - b"".join(states).count(b"\n")
            if flat_records or records == lines:
                if not states:
                    add(memoryview(chunk)[start:end], records)
                    return
                if self._add_records_and_state(runs, states, records, add):
                    return
        self._line_by_line(chunk, start, end)

    def _split_states(self, chunk: bytes, start: int, end: int) -> tuple[list[bytes], list[bytes]]:
        """Split a region, the first line of which is no STATE: the lines before, between and after STATEs, and these.

        STATEs that follow one another are one text. Without STATEs, the region is not copied.
        """
        prefix = self._state_prefix
        needle = b"\n" + prefix
        find, startswith = chunk.find, chunk.startswith
        runs: list[bytes] = []
        states: list[bytes] = []
        position = start
        newline = find(needle, start, end)
        while newline >= 0:
            state_at = newline + 1
            runs.append(chunk[position:state_at])
            position = find(b"\n", state_at, end) + 1
            while position < end and startswith(prefix, position):
                position = find(b"\n", position, end) + 1
            states.append(chunk[state_at:position])
            newline = find(needle, position, end)
        if states and position < end:
            runs.append(chunk[position:end])
        return runs, states

    def _add_records_and_state(
        self, runs: list[bytes], states: list[bytes], records: int, add: Callable[[Buffer, int], None]
    ) -> bool:
        """Add records of the current stream and the STATEs between them.

        Only the last STATE is decoded; the others are left out.

        Args:
            runs: the lines of records before, between and after STATEs.
            states: one or several STATE lines each.
            records: the number of records.
            add: adds a number of records.

        Returns:
            False if an earlier STATE may count: the last one has no position, or may lack a bookmark that one before
            it has. Then nothing is added.
        """
        last = states[-1]
        state = last[last.rfind(b"\n", 0, -1) + 1 :]
        value = self._position(state, self._envelope(state))
        several = len(states) > 1 or len(state) < len(last)
        if value is None or (several and not repeats_keys(self._state_prefix)):
            return False
        after = runs.pop() if len(runs) > len(states) else b""
        after_count = 1 + after.count(self._needle) if after else 0
        add(runs[0] if len(runs) == 1 else b"".join(runs), records - after_count)
        self._learn_state_prefix(state)
        self._segment.set_state(value)
        if after:
            add(after, after_count)
        return True

    def _line_by_line(self, chunk: bytes, start: int, end: int) -> None:
        view = memoryview(chunk)
        position = start
        run_start, run_count = start, 0
        prefix = self._prefix

        def close_run(at: int) -> None:
            if run_count:
                flat = FlatRecords(chunk, run_start, at, self._opening).count() == run_count
                (self._add_lines if flat else self._add_records)(view[run_start:at], run_count)

        while position < end:
            stop = chunk.find(b"\n", position, end) + 1
            if prefix and chunk.startswith(prefix, position):
                run_count += 1
                position = stop
                continue
            close_run(position)
            self._line(chunk, view, position, stop)
            prefix = self._prefix
            run_start, run_count = stop, 0
            position = stop
        close_run(end)

    def _line(self, chunk: bytes, view: memoryview, start: int, stop: int) -> None:
        if chunk.startswith(_BYTE_ORDER_MARK, start):
            start += len(_BYTE_ORDER_MARK)
        key = chunk.find(_RECORD_KEY, start, min(stop, start + 512))
        if key >= 0:
            prefix = chunk[start : key + len(_RECORD_KEY)]
            if prefix in self._streams:
                self._use(prefix)
                flat = is_flat_record(chunk, start, stop, self._opening)
                (self._add_lines if flat else self._add_records)(view[start:stop], 1)
                return
        line = chunk[start:stop]
        if line.lstrip()[:1] != b"{":
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._log(text)
            return
        self._message(line)

    def _use(self, prefix: bytes) -> None:
        self._prefix, self._needle = prefix, b"\n" + prefix
        self._stream, self._opening = self._streams[prefix]

    # -- single messages

    def _message(self, line: bytes) -> None:
        envelope = self._envelope(line)
        kind, stream = envelope.type, envelope.stream
        if kind == "STATE":
            value = self._position(line, envelope)
            self._learn_state_prefix(line)
            if value is not None:
                self._segment.set_state(value)
            return
        if stream is None:
            known = ("RECORD", "SCHEMA", "ACTIVATE_VERSION", "BATCH")
            if kind in known:
                raise self._invalid(line, f"a {kind} without a stream")
            raise self._invalid(line, f"a message of unknown type {kind!r}")
        if kind == "RECORD":
            self._record(line, stream, envelope)
            return
        close_with = self._segment.close_with
        if kind == "SCHEMA":
            close_with(self._schema(line, stream, envelope))
        elif kind == "ACTIVATE_VERSION":
            if not isinstance(envelope.version, int):
                raise self._invalid(line, "an ACTIVATE_VERSION without a version number")
            close_with(ActivateVersion(stream, envelope.version, line))
        elif kind == "BATCH":
            close_with(self._batch(line, stream, envelope))
        else:
            raise self._invalid(line, f"a message of unknown type {kind!r}")

    def _record(self, line: bytes, stream: str, envelope: _Message) -> None:
        if bytes(envelope.record)[:1] != b"{":
            raise self._invalid(line, f"a RECORD of stream {stream!r} without a record")
        if stream not in self._known:
            raise TapOutputError(
                f"a RECORD of stream {stream!r} came before its SCHEMA",
                where=self._tap,
                hint="this is a bug of the tap: report it to its authors; everything before that record is kept",
                code="stream.schema_missing",
            )
        self._learn_prefix(line, stream)
        prefix = self._prefix if self._prefix and line.startswith(self._prefix) else None
        self._segment.add(stream, line, 1, prefix)

    def _schema(self, line: bytes, stream: str, envelope: _Message) -> Schema:
        text = bytes(envelope.schema)
        try:
            # One that is nested too deeply has no columns here, so that its stream alone is stopped (SchemaCheckStage).
            schema = {} if is_deeper(text, MAX_DEPTH) else json.loads(text, object_pairs_hook=without_duplicates)
        except json.JSONDecodeError:
            schema = None
        except ValueError as error:
            what = f"a SCHEMA of stream {stream!r} with {error}"
            raise self._invalid(line, what, code="tap.message_ambiguous") from None
        if not isinstance(schema, dict):
            raise self._invalid(line, f"a SCHEMA of stream {stream!r} without a schema")
        bookmarks = envelope.bookmark_properties
        if isinstance(bookmarks, str):
            bookmarks = [bookmarks]
        self._known.add(stream)
        return Schema(stream, schema, envelope.key_properties, bookmarks, line)

    def _batch(self, line: bytes, stream: str, envelope: _Message) -> FileBatch:
        if envelope.manifest is not None:
            encoding = envelope.encoding or {}
            return FileBatch(
                stream,
                "sdk",
                envelope.manifest,
                str(encoding.get("format") or "jsonl"),
                encoding.get("compression"),
                envelope.version,
                line,
            )
        if envelope.filepath is not None:
            return FileBatch(
                stream,
                "pipelinewise",
                [envelope.filepath],
                envelope.format or "jsonl",
                envelope.compression,
                envelope.version,
                line,
                envelope.batch_size,
            )
        raise self._invalid(line, f"a BATCH of stream {stream!r} that names no file")

    def _envelope(self, line: bytes) -> _Message:
        try:
            envelope = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            envelope = self._lenient(line)
        if any(line == usual % envelope.value for usual in _STATE_LINES):
            return envelope
        largest = max(envelope.record, envelope.value, envelope.schema, key=len)
        if reason := why_ambiguous(line, largest):
            raise self._invalid(line, reason, code="tap.message_ambiguous")
        return envelope

    def _lenient(self, line: bytes) -> _Message:
        """Read with the standard library what msgspec rejects: `NaN`, lone surrogates, invalid UTF-8 in a record."""
        try:
            members = split_object(line)
            plain = {
                key: json.loads(bytes(text).decode("utf-8", "surrogateescape"))
                for key, text in members.items()
                if key in _Message.__struct_fields__ and key not in _RAW_FIELDS
            }
        except (ValueError, RecursionError) as error:
            raise self._invalid(line, f"a line that is not valid JSON ({error})") from None
        if not isinstance(plain.get("type"), str):
            raise self._invalid(line, "a JSON object without a message type")
        try:
            envelope = msgspec.convert(plain, _Message)
        except msgspec.ValidationError as error:
            raise self._invalid(line, f"a {plain['type']} with invalid members ({error})") from None
        # Their bytes are kept unchanged, including long numbers.
        return msgspec.structs.replace(envelope, **{key: members[key] for key in _RAW_FIELDS if key in members})

    def _learn_prefix(self, line: bytes, stream: str) -> None:
        key = line.find(_RECORD_KEY)
        if not 0 <= key < 512:
            return
        prefix = line[: key + len(_RECORD_KEY)]
        try:
            head = json.loads(prefix + b"null}")
        except ValueError:
            return
        # Only a prefix that all records of the stream share is useful.
        if head == {"type": "RECORD", "stream": stream, "record": None}:
            opening = line[: line.find(b"{", len(prefix)) + 1]
            self._streams[prefix] = (stream, opening)
            self._use(prefix)

    def _learn_state_prefix(self, line: bytes) -> None:
        """Learn the common prefix of STATE lines, up to a colon: the longer it is, the faster the search."""
        for prefix in _STATE_PREFIXES:
            if line.startswith(prefix):
                common = _common_prefix(self._last_state, line)
                self._last_state = line
                self._state_prefix = max(prefix, common[: common.rfind(b":") + 1], key=len)

    def _position(self, line: bytes, envelope: _Message) -> bytes | None:
        """Return the value of a STATE, without bookmarks that are nested too deeply; None if it is no position."""
        value = bytes(envelope.value)
        if not value or envelope.type != "STATE":
            raise self._invalid(line, "a STATE without a value")
        if is_deeper(value, MAX_DEPTH):
            parts = split_state(value)
            deep = {key for key, text in parts.items() if is_deeper(text, MAX_DEPTH)}
            for key in sorted(deep - self._too_deep):
                self._log(
                    f"WARNING the bookmark of {key!r} is nested more than {MAX_DEPTH} levels deep: it is not saved"
                )
            self._too_deep |= deep
            value = join_state({key: text for key, text in parts.items() if key not in deep})
            return value if len(deep) < len(parts) else None
        return None if value in _NO_POSITION else value

    def _invalid(self, line: bytes, what: str, *, code: str | None = None) -> TapOutputError:
        # Masked before it is cut: a part of a secret would not be recognized.
        text = self._mask(line[:4096].partition(b"\n")[0].decode("utf-8", "replace")).strip()
        return TapOutputError(
            f"it printed {what}: {text[:200]}" + (" …" if len(text) > 200 else ""),
            where=self._tap,
            hint="a line of a tap's standard output that begins with '{' must be a Singer message",
            code=code,
        )
