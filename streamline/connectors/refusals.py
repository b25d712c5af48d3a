"""Messages that a sink refuses."""

from __future__ import annotations

from typing import Any

import msgspec

from streamline.flow.codecs.message_data import dump_data
from streamline.flow.items import BadRecord, MessageBatch, Origin


class Message(msgspec.Struct, gc=False):
    """A message of a batch that was sent to a sink, by its place."""

    source: str
    batch: MessageBatch
    number: int

    @property
    def data(self) -> Any:
        """Its data, without metadata that stands beside it."""
        data = self.batch.data[self.number]
        return data["data"] if has_metadata(data) else data

    @property
    def origin(self) -> Origin | None:
        """Where it was read, if it is known."""
        origins = self.batch.origins
        return origins[self.number] if origins is not None else None

    @property
    def key(self) -> str | None:
        """Its key as text: that of its metadata, or else the one with which it was read.

        Raises:
            ValueError: it is not UTF-8.
        """
        data = self.batch.data[self.number]
        if has_metadata(data):
            key = data["metadata"].get("key")
        else:
            origin = self.origin
            key = origin.key if origin is not None else None
        return key if key is None or isinstance(key, str) else bytes(key).decode()

    def refused(self, error: str, block: str) -> BadRecord:
        """Return it as a record that the sink of a block refuses."""
        data, form = dump_data(self.batch.data[self.number])
        origin, inferred = self.batch.made_of(self.number)
        return BadRecord(self.batch.stream, data, error, block, sink=block, origin=origin, form=form, inferred=inferred)


def has_metadata(data: Any) -> bool:
    """Return whether data has the form `{data, metadata}`."""
    return isinstance(data, dict) and data.keys() == {"data", "metadata"} and isinstance(data["metadata"], dict)
