"""The lines of a Singer stream, written. (They are read in chunks, by the tap's process.)"""

from __future__ import annotations

from typing import Any

from streamline.flow.codecs import jsontext
from streamline.flow.items import ActivateVersion, Schema


def schema_line(schema: Schema) -> bytes:
    """Return a SCHEMA message and its newline: as the source wrote it where nothing has changed it.

    `key_properties` is always written: old targets refuse a SCHEMA without it.
    """
    if schema.raw is not None:
        return _terminated(schema.raw)
    message: dict[str, Any] = {
        "type": "SCHEMA",
        "stream": schema.stream,
        "schema": schema.schema,
        "key_properties": list(schema.key_properties or ()),
    }
    if schema.bookmark_properties is not None:
        message["bookmark_properties"] = list(schema.bookmark_properties)
    return jsontext.encode(message) + b"\n"


def state_line(value: bytes) -> bytes:
    """Return a STATE message and its newline around the JSON text of its value."""
    return b'{"type":"STATE","value":' + value + b"}\n"


def activate_version_line(item: ActivateVersion) -> bytes:
    """Return an ACTIVATE_VERSION message and its newline: as the source wrote it where nothing has changed it."""
    if item.raw is not None:
        return _terminated(item.raw)
    keep_old = b',"keep_old":true' if item.keep_old else b""
    stream = jsontext.encode(item.stream)
    return b'{"type":"ACTIVATE_VERSION","stream":%b,"version":%d%b}\n' % (stream, item.version, keep_old)


def _terminated(line: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + b"\n"
