"""Reads single messages of a tap: whole, but for the texts of records, states and schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from streamline.connectors.singer.record_lines import record_ends_line, why_ambiguous, without_duplicates
from streamline.connectors.singer.state import join_state, split_state
from streamline.errors import StreamlineError
from streamline.flow.codecs.jsontext import is_deeper, split_object
from streamline.flow.items import ActivateVersion, FileBatch, Item, Schema

MAX_DEPTH = 200
"""Levels of a SCHEMA or STATE: programs read what is nested more deeply differently, or not at all."""

_STATE_LINES = (b'{"type":"STATE","value":%b}\n', b'{"type": "STATE", "value": %b}\n')
"""Lines without a member that a reader could read otherwise."""
_NO_POSITION = (b"{}", b"null")
"""STATEs of taps that have no position yet, or none any more."""
_RAW_FIELDS = ("record", "value", "schema")
# A union with None would make msgspec decode the member.
_ABSENT = msgspec.Raw()


class Message(msgspec.Struct):
    """The members of a message; `record`, `value` and `schema` are the texts that the tap wrote."""

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


_decoder = msgspec.json.Decoder(Message)


class TapOutputError(StreamlineError):
    """A tap's output is not valid. `items` are the valid ones before the error."""

    code = "tap.invalid_output"

    def __init__(self, message: str, *, where: str, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message, where=where, hint=hint, code=code)
        self.items: list[Item] = []


class MessageReader:
    """Decodes messages, and proves that every reader reads the same in them.

    All methods raise TapOutputError for a line that is not a valid message.

    Args:
        tap: the tap's name, for errors.
        log: called with warnings.
        mask: masks secrets in text that errors quote.
    """

    def __init__(self, tap: str, *, log: Callable[[str], None], mask: Callable[[str], str]) -> None:
        self._tap = tap
        self._log = log
        self._mask = mask
        self._streams: set[str] = set()
        """Streams whose SCHEMA was read."""
        self._too_deep: set[str] = set()

    def read(self, line: bytes) -> Message:
        """Return the members of a line that begins with a brace."""
        try:
            message = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            message = self._read_leniently(line)
        if any(line == usual % message.value for usual in _STATE_LINES):
            return message
        if message.type == "RECORD" and record_ends_line(line, message.record):
            return message
        largest = max(message.record, message.value, message.schema, key=len)
        if reason := why_ambiguous(line, largest):
            raise self.invalid(line, reason, code="tap.message_ambiguous")
        return message

    def _read_leniently(self, line: bytes) -> Message:
        """Read with the standard library what msgspec rejects: `NaN`, lone surrogates, invalid UTF-8 in a record."""
        try:
            members = split_object(line)
            plain = {
                key: json.loads(bytes(text).decode("utf-8", "surrogateescape"))
                for key, text in members.items()
                if key in Message.__struct_fields__ and key not in _RAW_FIELDS
            }
        except (ValueError, RecursionError) as error:
            raise self.invalid(line, f"a line that is not valid JSON ({error})") from None
        if not isinstance(plain.get("type"), str):
            raise self.invalid(line, "a JSON object without a message type")
        try:
            message = msgspec.convert(plain, Message)
        except msgspec.ValidationError as error:
            raise self.invalid(line, f"a {plain['type']} with invalid members ({error})") from None
        # Their bytes are kept unchanged, including long numbers.
        return msgspec.structs.replace(message, **{key: members[key] for key in _RAW_FIELDS if key in members})

    def position(self, line: bytes, message: Message) -> bytes | None:
        """Return the value of a STATE, without bookmarks that are nested too deeply; None if it is no position."""
        value = bytes(message.value)
        if not value:
            raise self.invalid(line, "a STATE without a value")
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

    def stream_of_record(self, line: bytes, message: Message) -> str:
        """Return the stream of a RECORD."""
        stream = self._stream(line, message)
        # Not a copy: a record may have a hundred megabytes.
        if bytes(memoryview(message.record)[:1]) != b"{":
            raise self.invalid(line, f"a RECORD of stream {stream!r} without a record")
        if stream not in self._streams:
            raise TapOutputError(
                f"a RECORD of stream {stream!r} came before its SCHEMA",
                where=self._tap,
                hint="this is a bug of the tap: report it to its authors; everything before that record is kept",
                code="stream.schema_missing",
            )
        return stream

    def item(self, line: bytes, message: Message) -> Item:
        """Return the item of a message that is no RECORD and no STATE."""
        kind = message.type
        if kind == "SCHEMA":
            return self._schema(line, self._stream(line, message), message)
        if kind == "ACTIVATE_VERSION":
            stream = self._stream(line, message)
            if not isinstance(message.version, int):
                raise self.invalid(line, "an ACTIVATE_VERSION without a version number")
            return ActivateVersion(stream, message.version, line)
        if kind == "BATCH":
            return self._batch(line, self._stream(line, message), message)
        raise self.invalid(line, f"a message of unknown type {kind!r}")

    def _stream(self, line: bytes, message: Message) -> str:
        if message.stream is None:
            raise self.invalid(line, f"a {message.type} without a stream")
        return message.stream

    def _schema(self, line: bytes, stream: str, message: Message) -> Schema:
        text = bytes(message.schema)
        try:
            # One that is nested too deeply has no columns here, so that its stream alone is stopped (SchemaCheckStage).
            schema = {} if is_deeper(text, MAX_DEPTH) else json.loads(text, object_pairs_hook=without_duplicates)
        except json.JSONDecodeError:
            schema = None
        except ValueError as error:
            what = f"a SCHEMA of stream {stream!r} with {error}"
            raise self.invalid(line, what, code="tap.message_ambiguous") from None
        if not isinstance(schema, dict):
            raise self.invalid(line, f"a SCHEMA of stream {stream!r} without a schema")
        bookmarks = message.bookmark_properties
        if isinstance(bookmarks, str):
            bookmarks = [bookmarks]
        self._streams.add(stream)
        return Schema(stream, schema, message.key_properties, bookmarks, line)

    def _batch(self, line: bytes, stream: str, message: Message) -> FileBatch:
        if message.manifest is not None:
            encoding = message.encoding or {}
            return FileBatch(
                stream,
                "sdk",
                message.manifest,
                str(encoding.get("format") or "jsonl"),
                encoding.get("compression"),
                message.version,
                line,
            )
        if message.filepath is not None:
            return FileBatch(
                stream,
                "pipelinewise",
                [message.filepath],
                message.format or "jsonl",
                message.compression,
                message.version,
                line,
                message.batch_size,
            )
        raise self.invalid(line, f"a BATCH of stream {stream!r} that names no file")

    def invalid(self, line: bytes, what: str, *, code: str | None = None) -> TapOutputError:
        """Return the error for a line, of which it quotes the beginning."""
        # Masked before it is cut: a part of a secret would not be recognized.
        text = self._mask(line[:4096].partition(b"\n")[0].decode("utf-8", "replace")).strip()
        return TapOutputError(
            f"it printed {what}: {text[:200]}" + (" …" if len(text) > 200 else ""),
            where=self._tap,
            hint="a line of a tap's standard output that begins with '{' must be a Singer message",
            code=code,
        )
