"""Applies a source's stream settings that its tap may ignore: keys, types, columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamline.connectors.singer.selection import SelectedStream
from streamline.connectors.singer.stages.destination import DestinationStage, StreamPlan
from streamline.flow.items import Item, Schema
from streamline.flow.protocols import ImmediateStage

_UNCHANGED = StreamPlan()


class SourceStage(ImmediateStage):
    """Applies keys and schema_override to SCHEMAs, and drops columns that the tap sends although not selected.

    Args:
        streams: the selected streams, by their names in messages.
    """

    def __init__(self, streams: Mapping[str, SelectedStream]) -> None:
        self._streams = streams
        self._plans: dict[str, StreamPlan] = {}
        self._inner = DestinationStage(lambda stream: self._plans.get(stream, _UNCHANGED))

    @staticmethod
    def needed(streams: Sequence[SelectedStream]) -> bool:
        """Whether any stream has settings that a tap may ignore."""
        return any(stream.own_key or stream.schema_override or stream.columns is not None for stream in streams)

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, Schema):
            selected = self._streams.get(item.stream)
            if selected is not None:
                item = self._apply(item, selected)
        return await self._inner.process(item)

    def _apply(self, item: Schema, selected: SelectedStream) -> Schema:
        schema, keys, raw = item.schema, item.key_properties, item.raw
        properties = schema.get("properties") or {}
        if selected.schema_override:
            properties = {**properties, **selected.schema_override.get("properties", {})}
            schema = {**schema, **selected.schema_override, "properties": properties}
            raw = None
        if selected.own_key and list(keys or ()) != selected.key_properties:
            keys, raw = selected.key_properties, None
        if item.stream not in self._plans:
            extra = selected.columns is not None and not set(properties) <= set(selected.columns)
            self._plans[item.stream] = (
                StreamPlan(only=frozenset([*(selected.columns or ()), *(keys or ())])) if extra else _UNCHANGED
            )
        return Schema(item.stream, schema, keys, item.bookmark_properties, raw)
