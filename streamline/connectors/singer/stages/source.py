"""Applies a source's stream settings that its tap may ignore: streams, keys, types, columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from streamline.connectors.singer.columns import unread_names, unread_paths
from streamline.connectors.singer.selection import SelectedStream
from streamline.connectors.singer.stages.pruning import (
    Unread,
    may_hold,
    needles,
    prune_batch,
    prune_schema,
    unread_tree,
)
from streamline.flow.items import ArrowBatch, Item, Position, RawBatch, RowBatch, Schema
from streamline.flow.protocols import ImmediateStage


class SourceStage(ImmediateStage):
    """Applies keys and schema_override to SCHEMAs, and drops streams and columns that the tap sends unselected.

    What is dropped is decided at every SCHEMA, for a tap may learn of columns on the way.

    Args:
        streams: the selected streams, by their names in messages.
        unselected: names of the catalog's other streams.
        warn: called once for each of those that the tap sends.
    """

    def __init__(
        self,
        streams: Mapping[str, SelectedStream],
        unselected: Collection[str] = (),
        *,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._streams = streams
        self._unselected = frozenset(unselected).difference(streams)
        self._warn = warn
        self._told: set[str] = set()
        self._unread: dict[str, Unread] = {}
        self._needles: dict[str, list[bytes]] = {}
        """What stands in records that hold an unread property; nothing where the SCHEMA has one."""

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        if isinstance(item, Position):
            return [item]
        if item.stream in self._unselected:
            self._tell(item.stream)
            return []
        if isinstance(item, Schema):
            selected = self._streams.get(item.stream)
            return [self._apply(item, selected) if selected is not None else item]
        if isinstance(item, RawBatch | RowBatch | ArrowBatch) and (unread := self._unread.get(item.stream)):
            return [prune_batch(item, unread) if may_hold(item, self._needles[item.stream]) else item]
        return [item]

    def _tell(self, stream: str) -> None:
        if stream not in self._told:
            self._told.add(stream)
            self._warn(f"the tap sends stream {stream!r}, which its catalog does not select; it is not loaded")

    def _apply(self, item: Schema, selected: SelectedStream) -> Schema:
        schema, keys, bookmarks, raw = item.schema, item.key_properties, item.bookmark_properties, item.raw
        properties = schema.get("properties") or {}
        if selected.schema_override:
            properties = {**properties, **selected.schema_override.get("properties", {})}
            schema = {**schema, **selected.schema_override, "properties": properties}
            raw = None
        if selected.own_key and list(keys or ()) != selected.key_properties:
            keys, raw = selected.key_properties, None
        unread: Unread = {}
        if selected.drops_columns:
            kept = {*(keys or ()), *selected.bookmark_properties}
            columns = selected.settings.get("columns")
            paths = list(unread_paths(properties, selected.marks, columns, kept))
            unread = unread_tree(paths)
            # A tap may leave them out of its SCHEMA alone.
            others = [path for path in unread_names(selected.marks, columns) if path not in paths]
            self._unread[item.stream] = unread_tree([*paths, *others])
            self._needles[item.stream] = [] if unread else needles(others)
        if unread:
            schema, raw = prune_schema(schema, unread), None
            if bookmarks is not None:
                bookmarks = [name for name in bookmarks if name in schema["properties"]]
        return Schema(item.stream, schema, keys, bookmarks, raw)
