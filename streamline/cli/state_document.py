"""The document that `streamline state export` writes and `state import` reads; Singer states are read as well.

    {"streamline_state": 1, "pipeline": "shop", "blocks": {"load_shop": {"orders": {"value": …, "sinks": […], …}}}}

A bookmark's `value` is the JSON that the tap wrote, not text that holds it, and passes through byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streamline.connectors.singer.state import split_state
from streamline.errors import ConfigError
from streamline.flow.codecs import jsontext
from streamline.state.store import Bookmark, BookmarkSave

VERSION = 1
_HINT = "It must be what `streamline state export` wrote, or a Singer state."


class _Proof(msgspec.Struct, kw_only=True):
    """What is kept beside a bookmark's value."""

    sinks: list[str] = []
    replication_method: str | None = None
    replication_key: str | None = None
    gap: bool = False


def dump(pipeline: str, bookmarks: Sequence[Bookmark]) -> str:
    """Return the document of some bookmarks, a line for each."""
    blocks: dict[str, list[bytes]] = {}
    for bookmark in bookmarks:
        proof = _Proof(
            sinks=bookmark.sinks,
            replication_method=bookmark.replication_method,
            replication_key=bookmark.replication_key,
            gap=bookmark.gap,
        )
        members = {"value": bookmark.value.encode(), **jsontext.members(msgspec.json.encode(proof))}
        line = jsontext.encode(bookmark.stream) + b": " + jsontext.join_members(members)
        blocks.setdefault(bookmark.block, []).append(line)
    parts = [
        jsontext.encode(block) + b": {\n    " + b",\n    ".join(lines) + b"\n  }" for block, lines in blocks.items()
    ]
    head = b'{"streamline_state": %d, "pipeline": %b, "blocks": {' % (VERSION, jsontext.encode(pipeline))
    return (head + (b"\n  " if parts else b"") + b",\n  ".join(parts) + b"\n}}").decode()


def load(text: str, *, where: str) -> dict[str | None, list[BookmarkSave]]:
    """Return the bookmarks of a document, by block; those of a Singer state have no block's name.

    Raises:
        ConfigError: it is neither, or has a newer format.
    """
    try:
        members = jsontext.members(text.encode())
        if "streamline_state" not in members:
            return {None: _from_singer(text.encode(), members)}
        version = jsontext.decode(members["streamline_state"])
        if version != VERSION:
            raise ConfigError(
                f"the document has format {version}, this program reads format {VERSION}",
                where=where,
                hint="export it again with this version of Streamline, or upgrade Streamline",
                code="state.document_invalid",
            )
        return {
            block: [_from_document(stream, entry) for stream, entry in jsontext.members(streams).items()]
            for block, streams in jsontext.members(members["blocks"]).items()
        }
    except KeyError as error:
        raise ConfigError(
            f"the document has no {error}", where=where, hint=_HINT, code="state.document_invalid"
        ) from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"invalid document: {error}", where=where, hint=_HINT, code="state.document_invalid"
        ) from error


def _from_document(stream: str, entry: bytes) -> BookmarkSave:
    members = jsontext.members(entry)
    value = members.pop("value").decode()
    proof = msgspec.json.decode(jsontext.join_members(members), type=_Proof)
    return BookmarkSave(
        stream=stream,
        value=value,
        sinks=proof.sinks,
        replication_method=proof.replication_method,
        replication_key=proof.replication_key,
        gap=proof.gap,
    )


def _from_singer(text: bytes, members: dict[str, bytes]) -> list[BookmarkSave]:
    """Return the rows of a Singer state, which may be wrapped in a STATE message or by Meltano's `state get`."""
    if jsontext.decode(members.get("type", b"null")) == "STATE" and "value" in members:
        text = members["value"]
    elif "singer_state" in members:
        text = members["singer_state"]
    return [BookmarkSave(stream=stream, value=value.decode()) for stream, value in split_state(text).items()]
