"""A bookmark moved by an operator: one column's value, put into the shape in which the tap keeps it.

Taps check their bookmarks, so nothing is invented: the saved bookmark's own shape is used, or, where there is none,
the shape that the tap's library is known to write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import msgspec

from streamline.connectors.singer.bookmark_values import is_alike, is_moment
from streamline.connectors.singer.catalog import CatalogStream, unknown_name
from streamline.connectors.singer.selection import SDK, TapTraits
from streamline.connectors.singer.state import rows_have_bookmarks
from streamline.errors import ConfigError
from streamline.flow.codecs import jsontext
from streamline.flow.items import REST

Shape: TypeAlias = Literal["replication_key", "column"]
"""`{"replication_key": c, "replication_key_value": v}` or `{c: v}`."""

_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
# What a tap derived from the value that is being replaced.
_DERIVED = ("replication_key_signpost", "starting_replication_value", "progress_markers")


class Override(msgspec.Struct, frozen=True):
    """A bookmark value for one stream. `value` is text (of `--bookmark`) or a JSON value (of `__bookmark_values__`)."""

    stream: str
    column: str
    value: Any


def parse_override(text: str) -> Override:
    """Read `STREAM.COLUMN=VALUE`; the last dot before the `=` separates stream and column.

    Raises:
        ConfigError: it has another form.
    """
    name, equals, value = text.partition("=")
    stream, dot, column = name.rpartition(".")
    if not (equals and dot and stream and column):
        raise ConfigError(f"--bookmark {text}: write STREAM.COLUMN=VALUE", code="bookmark.invalid_option")
    return Override(stream, column, value)


def parse_overrides(values: object) -> dict[str, list[Override]]:
    """Read the variable `__bookmark_values__`: `{block: {stream: {column: value}}}`.

    Raises:
        ConfigError: it has another form.
    """
    overrides: dict[str, list[Override]] = {}
    try:
        for block, streams in _items(values):
            overrides[block] = [
                Override(stream, column, value)
                for stream, columns in _items(streams)
                for column, value in _items(columns)
            ]
    except TypeError:
        raise ConfigError(
            "__bookmark_values__ must have the form `{block: {stream: {column: value}}}`",
            where="variables",
            code="bookmark.invalid_option",
        ) from None
    return overrides


def apply_override(
    override: Override, saved: bytes | None, stream: CatalogStream | None, tap: TapTraits, *, where: str | None = None
) -> bytes:
    """Return the stream's bookmark with the override's value in it, as JSON text.

    Args:
        override: column and value.
        saved: the stream's bookmark, None if it has none (or one for another method or column).
        stream: its entry in the catalog, None for a tap without catalog.
        tap: what is known about the tap.
        where: the block or option, for errors.

    Raises:
        ConfigError: the value is not of the column's type, the column does not exist, or the tap keeps its
            bookmarks in a way that is not known.
    """
    column = override.column
    members: dict[str, bytes] | None = None
    if saved is not None:
        try:
            members = jsontext.members(saved)
        except jsontext.NotAnObjectError:
            # The old flat state: the bookmark is the value.
            return _typed(override, stream, saved, where)
    if members:
        changed = _inside(members, override, stream, where)
        if changed is not None:
            return jsontext.join_members(changed)
    value = _typed(override, stream, None, where)
    shape = library_shape(tap, stream)
    if shape is None or (members and "replication_key" not in members and not _is_empty(members)):
        raise _unknown_shape(override, where)
    if shape == "column":
        return jsontext.join_members({column: value})
    return jsontext.join_members({"replication_key": jsontext.encode(column), "replication_key_value": value})


def override_rows(
    override: Override,
    rows: Mapping[str, bytes],
    stream: CatalogStream | None,
    tap: TapTraits,
    *,
    where: str | None = None,
) -> dict[str, bytes]:
    """Return the rows of a saved state that an override changes: the stream's own, or `*` of a flat state.

    Raises:
        ConfigError: as `apply_override`.
    """
    name = stream.id if stream is not None else override.stream
    if name not in rows and REST in rows and not rows_have_bookmarks(rows):
        try:
            flat = jsontext.members(rows[REST])
        except jsontext.NotAnObjectError:
            flat = {}
        if name in flat:
            flat[name] = apply_override(override, flat[name], stream, tap, where=where)
            return {REST: jsontext.join_members(flat)}
        raise _unknown_shape(override, where)
    return {name: apply_override(override, rows.get(name), stream, tap, where=where)}


def library_shape(tap: TapTraits, stream: CatalogStream | None) -> Shape | None:
    """Return how a tap keeps a bookmark that it has not written yet; None if its library is not known."""
    if tap.library == SDK:
        return "replication_key"
    if tap.multiple_bookmarks:
        # Taps that follow several columns, as the bundled ones, keep each under its name.
        return "column"
    if tap.library is None:
        return None
    # singer-python leaves it to the tap: those for databases write key and value, those for APIs `{column: value}`.
    return "replication_key" if stream is not None and stream.is_table else "column"


def _unknown_shape(override: Override, where: str | None) -> ConfigError:
    return ConfigError(
        f"the format in which this tap keeps the bookmark of stream {override.stream!r} is unknown",
        where=where,
        hint=f"write it as the tap does: `streamline state set PIPELINE {override.stream} '{{…}}'`",
        code="bookmark.unknown_shape",
    )


def _inside(
    members: Mapping[str, bytes], override: Override, stream: CatalogStream | None, where: str | None
) -> dict[str, bytes] | None:
    """Return the saved bookmark with the value in its place; None if it has no place for it."""
    column = override.column
    kept = {name: text for name, text in members.items() if name not in _DERIVED}
    partitions = _partitions(members, override, stream, where)
    if partitions is not None:
        kept["partitions"] = partitions
    if _is_text(members.get("replication_key"), column):
        kept["replication_key_value"] = _typed(override, stream, members.get("replication_key_value"), where)
        return kept
    if column in members and "replication_key" not in members:
        if members[column][:1] in b"{[":
            return None
        kept[column] = _typed(override, stream, members[column], where)
        return kept
    return kept if partitions is not None else None


def _partitions(
    members: Mapping[str, bytes], override: Override, stream: CatalogStream | None, where: str | None
) -> bytes | None:
    """Return the SDK's bookmarks by context, the value in each that is about the column; None if there is none."""
    partitions = jsontext.decode(members["partitions"]) if "partitions" in members else None
    if not isinstance(partitions, list):
        return None
    changed = False
    texts = []
    for partition in partitions:
        text = jsontext.encode(partition)
        if isinstance(partition, dict) and partition.get("replication_key") == override.column:
            inner = _inside(jsontext.members(text), override, stream, where)
            if inner is not None:
                text, changed = jsontext.join_members(inner), True
        texts.append(text)
    return b"[" + b",".join(texts) + b"]" if changed else None


def _is_text(text: bytes | None, value: str) -> bool:
    return text is not None and jsontext.decode(text) == value


def _is_empty(members: Mapping[str, bytes]) -> bool:
    return set(members) <= {*_DERIVED, "version", "last_replication_method"}


def _typed(override: Override, stream: CatalogStream | None, existing: bytes | None, where: str | None) -> bytes:
    """Return the value's JSON text in the column's type: the schema's, else that of the value that it replaces."""
    column, value = override.column, override.value
    schema = stream.properties.get(column) if stream is not None else None
    if schema is None and existing is None and stream is not None and stream.properties:
        raise unknown_name("column", column, stream.properties, of=stream.id, where=where)
    if value is None or isinstance(value, dict | list):
        raise ConfigError(
            f"the bookmark of {override.stream}.{column} must be a single value",
            where=where,
            hint=f"to forget it: `streamline state reset PIPELINE {override.stream}`",
            code="bookmark.invalid_value",
        )
    kinds = _types(schema) or _type_of(existing)
    text = value if isinstance(value, str) else jsontext.encode(value).decode()
    before = jsontext.decode(existing) if existing is not None else None
    if (_formats(schema) & {"date-time", "date"} and not is_moment(text)) or (
        isinstance(before, str) and not is_alike(before, text)
    ):
        raise ConfigError(
            f"{text!r} is not a valid bookmark of {override.stream}.{column}, which is a date or a time",
            where=where,
            hint="write it as 2024-01-31 or 2024-01-31T12:00:00Z"
            + (f"; it is now {before}" if before is not None else ""),
            code="bookmark.invalid_value",
        )
    if isinstance(value, Decimal):
        text = str(value)
    # A column of several types keeps the one that its bookmark has.
    narrowed = kinds & _type_of(existing)
    for kind in ("string", "integer", "number", "boolean"):
        if kind in (narrowed or kinds) and (converted := _convert(kind, text)) is not None:
            return converted
    if kinds & {"string", "integer", "number", "boolean"}:
        expected = " or ".join(sorted(kinds - {"null"}))
        raise ConfigError(
            f"{text!r} is not a valid bookmark of {override.stream}.{column}, which is of type {expected}",
            where=where,
            code="bookmark.invalid_value",
        )
    return jsontext.encode(value)


def _convert(kind: str, text: str) -> bytes | None:
    if kind == "string":
        return jsontext.encode(text)
    if kind == "boolean":
        return text.lower().encode() if text.lower() in ("true", "false") else None
    pattern = _INTEGER if kind == "integer" else _NUMBER
    return text.encode() if pattern.fullmatch(text) else None


def _types(schema: object) -> set[str]:
    if not isinstance(schema, dict):
        return set()
    kinds = schema.get("type")
    types = {kinds} if isinstance(kinds, str) else set(kinds) if isinstance(kinds, list) else set()
    for word in ("anyOf", "oneOf"):
        for branch in schema.get(word) or ():
            types |= _types(branch)
    return types - {"null"}


def _formats(schema: object) -> set[str]:
    if not isinstance(schema, dict):
        return set()
    branches = [branch for word in ("anyOf", "oneOf") for branch in schema.get(word) or ()]
    return {str(schema.get("format"))}.union(*map(_formats, branches))


def _type_of(text: bytes | None) -> set[str]:
    if text is None:
        return set()
    value = jsontext.decode(text)
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int):
        return {"integer", "number"}
    if isinstance(value, float):
        return {"number"}
    return {"string"} if isinstance(value, str) else set()


def _items(value: object) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError
    return list(value.items())
