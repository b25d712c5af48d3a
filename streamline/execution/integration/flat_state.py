"""Which streams a state without `bookmarks` covers: it is one part, which moves for all streams of its tap.

A tap that ignores the selection moves it for streams that are not loaded, too. So the store keeps, beside each
destination that has the records before such a state, the streams whose records it has.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streamline.connectors.singer.catalog import CatalogStream
from streamline.connectors.singer.selection import SelectedStream
from streamline.execution.integration.plan import SourcePlan
from streamline.flow.codecs import jsontext


def stream_key(sink: str, stream: str) -> str:
    """Return the key of a stream's identity at a destination, among those of a state without `bookmarks`."""
    return f"{sink}\n{stream}"


def sink_and_stream(key: str) -> tuple[str, str]:
    """Return the destination and the stream of a `stream_key`; no stream for the key of a destination itself."""
    sink, _, stream = key.partition("\n")
    return sink, stream


class FlatStart(msgspec.Struct, frozen=True):
    """The part `*` that a tap process starts from.

    Args:
        known: the identities of the destinations that have the records before it, and of their streams.
    """

    text: bytes
    known: Mapping[str, str]

    def covers(self, source: SourcePlan, sink: str, stream: SelectedStream) -> bool:
        """Return whether a destination has all records of a selected stream before the state."""
        if stream_key(sink, stream.id) in self.known or stream.replication_method == "FULL_TABLE":
            return True
        if not any(each.startswith(stream_key(sink, "")) for each in self.known):
            return True  # it was saved before this was recorded, or for another destination
        entry = source.catalog.get(stream.id) if source.catalog is not None else None
        members = _members(self.text)
        by_stream = any(_own(members, each) for each in source.catalog or ())
        # A stream without a member of its own is read from its start.
        return entry is not None and by_stream and not _own(members, entry)

    def unmoved(self, source: SourcePlan, text: bytes) -> dict[str, str]:
        """Return the identities, by key, of streams that are not selected and did not move from here to `text`."""
        before, after = _members(self.text), _members(text)
        selected = {stream.id for stream in source.selected}
        unmoved = {
            stream.id
            for stream in source.catalog or ()
            if stream.id not in selected
            and (text == self.text or (_own(before, stream) and _own(before, stream) == _own(after, stream)))
        }
        return {key: identity for key, identity in self.known.items() if sink_and_stream(key)[1] in unmoved}


def _members(text: bytes) -> dict[str, bytes]:
    try:
        return jsontext.members(text)
    except jsontext.NotAnObjectError:
        return {}


def _own(members: Mapping[str, bytes], stream: CatalogStream) -> dict[str, bytes]:
    return {name: members[name] for name in (stream.id, *stream.names) if name in members}
