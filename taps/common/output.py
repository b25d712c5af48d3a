"""Singer messages on standard output: records as ready bytes in blocks, the rest one by one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from kit.connector import log

from .catalog import Stream

JSONObject = dict[str, Any]


def write_message(message: JSONObject) -> None:
    """Write and flushes one message."""
    sys.stdout.buffer.write(json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
    sys.stdout.buffer.flush()


class State:
    """The tap's state: what it was given, with the bookmarks that it changes.

    Bookmarks of streams that are not read in this run, and keys beside `bookmarks`, stay as they are.
    """

    def __init__(self, value: Any) -> None:
        state = value if isinstance(value, dict) else {}
        bookmarks = state.get("bookmarks")
        self._value: JSONObject = {**state, "bookmarks": dict(bookmarks) if isinstance(bookmarks, dict) else {}}

    def bookmark(self, stream_id: str) -> JSONObject:
        """Return the stream's bookmark, or an empty object."""
        bookmark = self._value["bookmarks"].get(stream_id)
        return bookmark if isinstance(bookmark, dict) else {}

    def set(self, stream_id: str, bookmark: JSONObject) -> None:
        """Replace the stream's bookmark."""
        self._value["bookmarks"][stream_id] = bookmark

    def write(self) -> None:
        """Write a STATE message."""
        write_message({"type": "STATE", "value": self._value})


class StreamOutput:
    """Write the messages of one stream, and keep its schema in step with its records.

    Sources without strict types hold values that do not match the declared type. Such a value is never dropped or
    changed: the schema is widened and sent again before the record.
    """

    def __init__(self, stream: Stream, state: State, *, interval: int, version: int | None = None) -> None:
        from singer import metrics

        self._stream = stream
        self._state = state
        self._interval = interval
        self._since_state = 0
        self._stale = True
        self._counter = metrics.record_counter(stream.name)
        self._head = f'{{"type":"RECORD","stream":{json.dumps(stream.name)},"record":'.encode()
        self._tail = b"}\n" if version is None else f',"version":{version}}}\n'.encode()
        self._version = version
        self.properties: JSONObject = stream.schema["properties"]

    def widen(self, column: str, json_type: str, *, drop_format: bool = False) -> None:
        """Add a JSON type to a column's schema, or drop its string format."""
        schema = self.properties[column]
        types = schema.get("type", [])
        types = [types] if isinstance(types, str) else list(types)
        if json_type not in types and types:
            if json_type == "number" and "integer" in types:
                types.remove("integer")
            schema["type"] = [*types, json_type]
        elif not drop_format or not schema.keys() & {"format", "contentEncoding"}:
            return
        if drop_format:
            schema.pop("format", None)
            schema.pop("contentEncoding", None)
        self._stale = True
        if json_type != "null":
            self.warn(f"column {column!r} holds a {json_type} that does not fit its type; its schema is widened")

    def add_column(self, column: str, schema: JSONObject) -> None:
        """Add a column that discovery had not seen."""
        self.properties[column] = schema
        self._stale = True
        self.warn(f"column {column!r} is new; it is added to the schema")

    def warn(self, text: str) -> None:
        """Log a warning that names the stream."""
        log("WARNING", f"stream {self._stream.name!r}: {text}")

    def write_schema(self) -> None:
        """Write the SCHEMA message if it changed since it was last written."""
        if self._stale:
            self._stale = False
            message: JSONObject = {"type": "SCHEMA", "stream": self._stream.name, "schema": self._stream.schema}
            message["key_properties"] = self._stream.key_properties
            if self._stream.method == "INCREMENTAL":
                message["bookmark_properties"] = self._stream.replication_keys
            write_message(message)

    def write_records(self, records: Sequence[bytes]) -> bool:
        """Write records given as JSON text; return whether a STATE is due after them."""
        self.write_schema()
        if records:
            head, tail = self._head, self._tail
            sys.stdout.buffer.write(head + (tail + head).join(records) + tail)
            sys.stdout.buffer.flush()
            self._counter.increment(len(records))
            self._since_state += len(records)
        return self._since_state >= self._interval

    def write_state(self, bookmark: JSONObject | None = None) -> None:
        """Write a STATE, with this bookmark for the stream if one is given."""
        if bookmark is not None:
            self._state.set(self._stream.id, bookmark)
        self._since_state = 0
        self._state.write()

    def activate_version(self) -> None:
        """Write ACTIVATE_VERSION: only rows of this version remain."""
        write_message({"type": "ACTIVATE_VERSION", "stream": self._stream.name, "version": self._version})

    def close(self) -> None:
        """Log the stream's metric."""
        self._counter.__exit__(None, None, None)
