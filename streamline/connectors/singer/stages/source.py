"""What a source's stream settings ask for and its tap may not do by itself: keys, types, columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamline.connectors.singer.selection import SelectedStream
from streamline.connectors.singer.stages.destination import DestinationStage, StreamPlan
from streamline.flow.items import Item, Schema

_AS_IT_IS = StreamPlan()


class SourceStage:
    """Makes SCHEMAs say what the user said, and drops columns that a tap sends although they were not selected.

    Args:
        streams: the selected streams by the name that they bear in messages.
    """

    def __init__(self, streams: Mapping[str, SelectedStream]) -> None:
        self._streams = streams
        self._plans: dict[str, StreamPlan] = {}
        self._inner = DestinationStage(lambda stream: self._plans.get(stream, _AS_IT_IS))

    @staticmethod
    def needed(streams: Sequence[SelectedStream]) -> bool:
        """Whether any stream's settings ask for something that a tap may not do."""
        return any(stream.own_key or stream.schema_override or stream.columns is not None for stream in streams)

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, Schema):
            selected = self._streams.get(item.stream)
            if selected is not None:
                item = self._as_said(item, selected)
        return await self._inner.process(item)

    async def finish(self) -> Sequence[Item]:
        """Nothing is held."""
        return []

    async def close(self) -> None:
        """Nothing to free."""

    def _as_said(self, item: Schema, selected: SelectedStream) -> Schema:
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
                StreamPlan(only=frozenset([*(selected.columns or ()), *(keys or ())])) if extra else _AS_IT_IS
            )
        return Schema(item.stream, schema, keys, item.bookmark_properties, raw)
