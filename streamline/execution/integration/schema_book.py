"""Keeps the SCHEMAs that streams with dead letters have before each transformer and destination.

A dead letter is a record as it was where it was refused: after some transformers it is no longer as the source wrote
it. To be sent again from there, it needs the SCHEMA that it had there. A *place* is the point right before a
transformer or destination block, named by the block's uuid. The store keeps its SCHEMAs under `SOURCE > PLACE`, and
under `DESTINATION < SOURCE` those that a source's streams had in a destination's last run, for `schema_change`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from streamline.flow.items import Item, JSONObject, Schema
from streamline.flow.protocols import ImmediateStage, Stage
from streamline.flow.router import Route
from streamline.state.store import Store


class SchemaBook:
    """Records the newest SCHEMA of each stream at each place, and saves those that are needed.

    A SCHEMA is needed if the stream has a dead letter, of this run or (as a SCHEMA in the store shows) of an earlier
    one. A run without dead letters writes nothing.
    """

    def __init__(self, store: Store, pipeline: str) -> None:
        self._store = store
        self._pipeline = pipeline
        self._newest: dict[tuple[str, str], dict[str, Schema]] = {}
        self._needed: set[tuple[str, str, str]] = set()

    def watch(self, source: str, route: Route) -> None:
        """Insert a recorder before each transformer and each destination of a route."""
        stages: list[Stage] = [self._recorder(source, sink.id) for sink in route.sinks]
        for stage in route.stages:
            block = getattr(stage, "block", None)
            if isinstance(block, str):
                stages.append(self._recorder(source, block))
            stages.append(stage)
        route.stages = stages
        for branch in route.branches:
            self.watch(source, branch)

    def need(self, source: str, place: str, stream: str) -> None:
        """Note that a record of `stream` was refused at this place, or after it and before the next."""
        self._needed.add((source, place, stream))

    def save(self) -> None:
        """Write the needed SCHEMAs that the store does not have yet. Blocks."""
        needed = self._needed.copy()
        for (source, place), newest in list(self._newest.items()):
            key = _key(source, place)
            kept = self._store.last_schemas(self._pipeline, key)
            for stream, schema in list(newest.items()):
                value = _as_stored(schema)
                if ((source, place, stream) in needed or stream in kept) and kept.get(stream) != value:
                    self._store.save_schema(self._pipeline, key, stream, value)

    def _recorder(self, source: str, place: str) -> Stage:
        return _Recorder(self._newest.setdefault((source, place), {}))


def saved_schemas(store: Store, pipeline: str, source: str, place: str) -> dict[str, Schema]:
    """Return the SCHEMAs at a place, by stream, of streams that had a dead letter."""
    saved = store.last_schemas(pipeline, _key(source, place))
    return {
        stream: Schema(stream, value["schema"], value.get("key_properties"), value.get("bookmark_properties"))
        for stream, value in saved.items()
    }


def destination_schemas(store: Store, pipeline: str, source: str, sink: str) -> dict[str, JSONObject]:
    """Return the schemas that a source's streams were last loaded with into a destination, by stream."""
    # Earlier versions kept them for all sources together.
    shared = store.last_schemas(pipeline, sink)
    return {**shared, **store.last_schemas(pipeline, _destination_key(source, sink))}


def loaded_streams(store: Store, pipeline: str, source: str, sinks: Iterable[str]) -> frozenset[str]:
    """Return the names of a source's streams that earlier runs have loaded, with a bookmark or without."""
    schemas = (name for sink in sinks for name in destination_schemas(store, pipeline, source, sink))
    return frozenset((*store.bookmarks(pipeline, source), *schemas))


def save_destination_schema(
    store: Store, pipeline: str, source: str, sink: str, stream: str, schema: JSONObject
) -> None:
    """Save the schema that a source's stream was loaded with into a destination."""
    store.save_schema(pipeline, _destination_key(source, sink), stream, schema)


def _destination_key(source: str, sink: str) -> str:
    return f"{sink} < {source}"


def _key(source: str, place: str) -> str:
    return f"{source} > {place}"


def _as_stored(schema: Schema) -> dict[str, Any]:
    keys, bookmarks = schema.key_properties, schema.bookmark_properties
    return {
        "schema": schema.schema,
        "key_properties": list(keys) if keys is not None else None,
        "bookmark_properties": list(bookmarks) if bookmarks is not None else None,
    }


class _Recorder(ImmediateStage):
    """A stage that passes everything and records SCHEMAs."""

    def __init__(self, newest: dict[str, Schema]) -> None:
        self._newest = newest

    async def process(self, item: Item) -> Sequence[Item]:
        if isinstance(item, Schema):
            self._newest[item.stream] = item
        return (item,)
