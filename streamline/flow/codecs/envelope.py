"""Changes RECORD envelopes; the bytes of the records inside stay as the tap wrote them.

Where all lines of a batch begin with one known prefix (`{"type":"RECORD","stream":"orders","record":`), a new
envelope is one search-and-replace of newline + prefix per slice: a JSON text has no raw newline in a value, so
newline + prefix can occur only at the start of a line. Otherwise each envelope is split into its members, changed and
joined again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from streamline.flow.codecs.jsontext import encode, join_object, split_object
from streamline.flow.items import Buffer, FileBatch, RawBatch

Version: TypeAlias = int | UnsetType | None
"""A table version; None: none; `UNSET`: as it is."""


class _Envelope(msgspec.Struct, gc=False):
    record: msgspec.Raw


_envelopes = msgspec.json.Decoder(_Envelope)


def rewrite(batch: RawBatch, *, stream: str | None = None, version: Version = UNSET) -> RawBatch:
    """Return the same records in changed envelopes; all other keys of an envelope are kept.

    Args:
        batch: lines of one stream.
        stream: the new stream name; None keeps it.
        version: the new table version; None removes it; by default each line keeps its own.

    Raises:
        ValueError: a line is not a JSON object.
    """
    if stream is None and version is UNSET:
        return batch
    old = batch.prefix
    if old is not None:
        new = _change_prefix(old, stream, version)
        if new is not None and (version is UNSET or not _version_after_record(batch, old)):
            slices = [new + bytes(part[len(old) :]).replace(b"\n" + old, b"\n" + new) for part in batch.slices]
            return _batch(stream or batch.stream, slices, batch.count, new)
    slices = [
        _join_lines(join_object(_change(split_object(line), stream, version)) for line in _lines(part))
        for part in batch.slices
    ]
    return _batch(stream or batch.stream, slices, batch.count, None)


def rewrite_files(item: FileBatch, *, stream: str | None = None, version: Version = UNSET) -> FileBatch:
    """Return a BATCH message with another stream name or table version; all other keys are kept.

    Args:
        item: the message.
        stream: the new stream name; None keeps it.
        version: the new table version; None removes it; by default it is kept.

    Raises:
        ValueError: its dialect has no versions; such a batch must be expanded first.
    """
    if version is not UNSET and version is not None and item.dialect != "sdk":
        raise ValueError(f"a BATCH of the {item.dialect} dialect cannot have a version")
    return FileBatch(
        stream or item.stream,
        item.dialect,
        item.files,
        item.format,
        item.compression,
        item.version if version is UNSET else version,
        join_object(_change(split_object(item.raw), stream, version)) + b"\n",
        item.count,
    )


def records(batch: RawBatch) -> Iterator[bytes]:
    """Iterate over the JSON text of each record, in order.

    Raises:
        ValueError: a line is not a JSON object with a `record`.
    """
    for part in batch.slices:
        try:
            envelopes = _envelopes.decode_lines(part)
        except (msgspec.DecodeError, RecursionError):
            yield from (bytes(_record(split_object(line))) for line in _lines(part))
        else:
            for envelope in envelopes:
                yield bytes(envelope.record)


def map_records(batch: RawBatch, change: Callable[[bytes], bytes | None]) -> RawBatch:
    """Return the batch with each record's text changed; None removes the record. Envelopes are kept, and where
    `change` returns the same object, so is the line.

    Args:
        batch: lines of one stream.
        change: called with the JSON text of each record, in order.

    Raises:
        ValueError: a line is not a JSON object with a `record`.
    """
    slices: list[Buffer] = []
    count = 0
    for part in batch.slices:
        out: list[bytes] = []
        for line, text in zip(_lines(part), records(RawBatch(batch.stream, [part], 0, 0)), strict=True):
            changed = change(text)
            if changed is None:
                continue
            count += 1
            out.append(line if changed is text else _put_record(line, batch.prefix, text, changed))
        if out:
            slices.append(_join_lines(out))
    return _batch(batch.stream, slices, count, batch.prefix)


def version_of(batch: RawBatch) -> int | None:
    """Return the table version of the batch's last record."""
    if not batch.slices:
        return None
    line = batch.slices[-1] if batch.count == 1 else _last_line(batch.slices[-1])
    text = split_object(line).get("version")
    return None if text is None or bytes(text) == b"null" else int(bytes(text))


def wrap(
    stream: str, texts: Iterable[bytes], *, version: int | None = None, time_extracted: str | None = None
) -> RawBatch:
    """Return RECORD lines for records.

    Args:
        stream: the name in the messages.
        texts: JSON text of each record, without raw newlines.
        version: table version of all of them.
        time_extracted: when the tap read them, RFC 3339.
    """
    prefix = record_prefix(stream, version=version, time_extracted=time_extracted)
    lines = [prefix + text + b"}\n" for text in texts]
    return _batch(stream, [b"".join(lines)] if lines else [], len(lines), prefix)


def record_prefix(stream: str, *, version: int | None = None, time_extracted: str | None = None) -> bytes:
    """Return the beginning of a RECORD line, up to the record; the line ends with `}` and a newline."""
    members: dict[str, str | int] = {"type": "RECORD", "stream": stream}
    if version is not None:
        members["version"] = version
    if time_extracted is not None:
        members["time_extracted"] = time_extracted
    return encode(members)[:-1] + b',"record":'


def _batch(stream: str, slices: list[Buffer] | list[bytes], count: int, prefix: bytes | None) -> RawBatch:
    return RawBatch(stream, list(slices), count, sum(map(len, slices)), prefix)


def _change(members: dict[str, msgspec.Raw], stream: str | None, version: Version) -> dict[str, msgspec.Raw]:
    """Return the members of an envelope, with a new version before the record."""
    if stream is not None:
        members["stream"] = msgspec.Raw(encode(stream))
    if version is None:
        members.pop("version", None)
    elif version is not UNSET:
        number = msgspec.Raw(b"%d" % version)
        if "version" not in members and "record" in members:
            # Before the record, where it is part of the prefix.
            changed: dict[str, msgspec.Raw] = {}
            for key, text in members.items():
                if key == "record":
                    changed["version"] = number
                changed[key] = text
            return changed
        members["version"] = number
    return members


def _change_prefix(old: bytes, stream: str | None, version: Version) -> bytes | None:
    """Return the new prefix for an old one; None if the old one does not contain what changes."""
    members = split_object(old + b"0}")
    if stream is not None and "stream" not in members:
        return None
    return join_object(_change(members, stream, version)).removesuffix(b"0}")


def _version_after_record(batch: RawBatch, prefix: bytes) -> bool:
    """Return whether a line may have a version outside the prefix (a column of that name counts, too)."""
    return any(
        bytes(part).count(b'"version"') > (bytes(part).count(prefix) if b'"version"' in prefix else 0)
        for part in batch.slices
    )


def _lines(part: Buffer) -> list[bytes]:
    # Not splitlines(): a JSON text may contain a carriage return between its tokens.
    return [line for line in bytes(part).split(b"\n") if line.strip()]


def _last_line(part: Buffer) -> bytes:
    # A slice may be a megabyte; only its end is copied.
    size = 4096
    while True:
        tail = bytes(part[-size:]).rstrip()
        start = tail.rfind(b"\n") + 1
        if start or size >= len(part):
            return tail[start:]
        size *= 16


def _join_lines(lines: Iterable[bytes]) -> bytes:
    return b"".join([line + b"\n" for line in lines])


def _record(members: dict[str, msgspec.Raw]) -> msgspec.Raw:
    try:
        return members["record"]
    except KeyError:
        raise ValueError("a RECORD message without a record") from None


def _put_record(line: bytes, prefix: bytes | None, text: bytes, changed: bytes) -> bytes:
    """Return the line with its record's text replaced."""
    if prefix is not None and line.startswith(text, len(prefix)):
        return prefix + changed + line[len(prefix) + len(text) :]
    if line.count(text) == 1:  # so it is the record
        return line.replace(text, changed)
    members = split_object(line)
    members["record"] = msgspec.Raw(changed)
    return join_object(members)
