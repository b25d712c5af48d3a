"""Stops a run whose destination is not the one that proved the bookmarks: it moved, or it is gone.

The identity of a destination is its plugin, what its config says about where it writes, and the stream's table. The
block's name alone is none: with another `path` the rest of a stream would be loaded into an empty table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

import anyio
import msgspec

from streamline.connectors.singer.missing_tables import MISSING_TABLES_CAPABILITY, missing_tables
from streamline.connectors.singer.stages.stream_plan import SOURCE_COLUMN
from streamline.connectors.singer.state import rows_have_bookmarks
from streamline.errors import ConfigError
from streamline.execution.integration.flat_state import FlatStart, sink_and_stream, stream_key
from streamline.execution.integration.plan import GroupPlan, Plan, SinkPlan, SourcePlan
from streamline.execution.integration.schema_book import destination_schemas
from streamline.execution.run import Run
from streamline.flow.items import REST
from streamline.flow.tasks import task_group

_WHERE = frozenset(
    (
        *("host", "hostname", "server", "address", "port", "socket", "url", "uri", "dsn", "endpoint", "account"),
        *("path", "filepath", "dir", "directory", "folder", "file", "filename", "location", "root", "container"),
        *("database", "dbname", "db", "schema", "dataset", "project", "bucket", "prefix", "catalog", "table"),
        *("keyspace", "index", "topic"),
    )
)
"""Last words of the settings that say where a target writes."""

_ELSEWHERE = frozenset(
    (
        *("ssl", "tls", "key", "cert", "ca", "credentials", "private", "token", "proxy"),
        *("temp", "tmp", "staging", "log", "batch", "state"),
    )
)
"""Words of settings that are about other places."""

_HINT = "read everything again with --full-refresh, or continue from here with --accept-gap"

_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")


def destinations_of(plan: Plan, source: SourcePlan, stream: str) -> dict[str, str]:
    """Return the identity of each destination that has the records before a bookmark, by uuid.

    Beside it (`stream_key`) those of the streams that the bookmark covers: all of a state without `bookmarks`; the
    stream itself, and its children, whose older records a tap does not read again without their parent's.

    Args:
        stream: the bookmark's key.
    """
    selected = source.find(stream)
    name = selected.stream if selected is not None else stream
    covered = [
        each
        for each in source.selected
        if stream == REST or each is selected or (selected and selected.id in source.parents_of(each.stream))
    ]
    identities = {}
    for uuid in plan.paths[source.id].all_sinks():
        sink = plan.sinks[uuid]
        column = SOURCE_COLUMN if sink.spec.source_column else None
        table = sink.plan_of(source.id, name) if stream != REST else None
        if table is not None or stream == REST:
            identities[uuid] = _identity(sink, (table.table or name) if table is not None else None, column)
        for each in covered:
            table = sink.plan_of(source.id, each.stream)
            if table is not None:
                identities[stream_key(uuid, each.id)] = _identity(sink, table.table or each.stream, column)
    return identities


def flat_start(context: Run, plan: Plan, group: GroupPlan) -> FlatStart | None:
    """Return the part of a state without `bookmarks` that a group starts from, if it does."""
    if REST not in group.rows or rows_have_bookmarks(group.rows):
        return None
    return FlatStart(group.rows[REST], context.store.destinations(plan.pipeline, group.source).get(REST, {}))


async def check_destinations(context: Run, plan: Plan) -> None:
    """Check that the destinations are those that proved the bookmarks which the run starts from.

    Raises:
        ConfigError: one has moved, or what it wrote is gone.
    """
    if context.options.accept_gap:
        return
    await anyio.to_thread.run_sync(_check_places, context, plan)
    loaded = await anyio.to_thread.run_sync(_loaded_tables, context, plan)
    async with task_group() as tasks:
        for uuid, tables in loaded.items():
            tasks.start_soon(_check_tables, context, plan.sinks[uuid], tables)


async def _check_tables(context: Run, sink: SinkPlan, tables: Mapping[str, tuple[str, str]]) -> None:
    """Ask a target whether the tables still exist. `tables` are those of the source and stream that it is given."""
    missing = await missing_tables(sink.plugin, sink.config, tables, run_dir=context.run_dir, masker=context.masker)
    for table in missing:
        source, stream = tables[table]
        raise ConfigError(
            f"destination {sink.id!r} has no table {table!r} any more, so the records before the bookmark of stream "
            f"{stream!r} are gone",
            where=source,
            hint=_HINT,
            code="bookmark.destination_empty",
        )


def _loaded_tables(context: Run, plan: Plan) -> dict[str, dict[str, tuple[str, str]]]:
    """Return the tables that targets can be asked for, by destination, each with its source and bookmark.

    A table is made with its stream's first SCHEMA, so only that of a stream whose SCHEMA was sent must exist.
    """
    loaded: dict[str, dict[str, tuple[str, str]]] = {}
    sent = cache(partial(destination_schemas, context.store, plan.pipeline))
    for _, source, bookmark in _started(plan):
        for key in destinations_of(plan, source, bookmark):
            uuid, stream = sink_and_stream(key)
            selected = source.find(stream or bookmark)
            name = selected.stream if selected is not None else bookmark
            sink = plan.sinks[uuid]
            table = sink.plan_of(source.id, name)
            if table is None or MISSING_TABLES_CAPABILITY not in sink.capabilities.names:
                continue
            if name in sent(source.id, uuid):
                loaded.setdefault(uuid, {}).setdefault(table.table or name, (source.id, stream or bookmark))
    return loaded


def _check_places(context: Run, plan: Plan) -> None:
    for group, source, bookmark in _started(plan):
        known = context.store.destinations(plan.pipeline, source.id).get(bookmark)
        if known is None:
            continue
        flat = flat_start(context, plan, group) if bookmark == REST else None
        for key, identity in destinations_of(plan, source, bookmark).items():
            uuid, stream = sink_and_stream(key)
            if flat is not None and stream:
                _check_stream(source, flat, uuid, stream)
            elif stream and _lacks(known, source, group, bookmark, uuid, stream):
                raise ConfigError(
                    f"destination {uuid!r} lacks records of stream {stream!r}, which is read by the bookmark of its "
                    f"parent {bookmark!r}",
                    where=source.id,
                    hint=_HINT,
                    code="bookmark.stream_new",
                )
            if bookmark != REST or flat is not None or not stream:
                check_place(context, plan.sinks[uuid], known.get(key), identity, stream or bookmark, where=source.id)


def _lacks(
    known: Mapping[str, str], source: SourcePlan, group: GroupPlan, bookmark: str, sink: str, stream: str
) -> bool:
    """Return whether a destination is known to lack records of a child from before the bookmark of its parent."""
    parent, child = source.find(bookmark), source.find(stream)
    if parent is None or child is None or any(key in group.rows for key in source.keys_of(child.stream)):
        return False
    # Without the parent's own key it was saved before children were recorded.
    return stream_key(sink, parent.id) in known and stream_key(sink, child.id) not in known


def _check_stream(source: SourcePlan, flat: FlatStart, sink: str, stream: str) -> None:
    selected = source.find(stream)
    if selected is not None and not flat.covers(source, sink, selected):
        raise ConfigError(
            f"destination {sink!r} has none of the records of stream {stream!r} before the saved state, which is one "
            "for all streams",
            where=source.id,
            hint=_HINT,
            code="bookmark.stream_new",
        )


def check_place(context: Run, sink: SinkPlan, known: str | None, identity: str, stream: str, *, where: str) -> None:
    """Check that a destination is the one that was known when a stream's bookmark was saved, and that it is there.

    Raises:
        ConfigError: it has moved, or is gone.
    """
    if known is None:
        return  # whether it is a new one is known from the bookmark
    if known != identity:
        raise ConfigError(
            f"destination {sink.id!r} has moved: its plugin, place or table is not the one that has the records before "
            f"the bookmark of stream {stream!r}",
            where=where,
            hint=_HINT,
            code="bookmark.destination_moved",
        )
    place = sink.config.get(sink.plugin.place) if sink.plugin.place else None
    if isinstance(place, str) and not context.project.path(os.path.expanduser(place)).exists():  # noqa: PTH111
        raise ConfigError(
            f"destination {sink.id!r} is empty: {place} does not exist, so the records before the bookmark of stream "
            f"{stream!r} are gone",
            where=where,
            hint=_HINT,
            code="bookmark.destination_empty",
        )


def keep_destinations(context: Run, plan: Plan) -> None:
    """Record the destinations that are not known yet for bookmarks, and with `--accept-gap` those that are new."""
    for _, source, stream in _started(plan):
        known = context.store.destinations(plan.pipeline, source.id).get(stream)
        # The bookmark has not moved yet: what it covers for a stream that this run leaves out stays true.
        left_out = {key: identity for key, identity in (known or {}).items() if sink_and_stream(key)[1]}
        identities = {**left_out, **destinations_of(plan, source, stream)}
        if known != identities:
            context.store.save_destinations(plan.pipeline, source.id, stream, identities)


def _started(plan: Plan) -> Iterator[tuple[GroupPlan, SourcePlan, str]]:
    """Return the bookmarks that each group starts from. An operator's override vouches for all destinations."""
    for group in plan.groups():
        source = plan.sources[group.source]
        for stream in group.rows:
            if source.cause_of.get(stream, "run") == "run":
                yield group, source, stream


def place_of(sink: SinkPlan) -> str:
    """Return the identity of a destination, whatever the table."""
    return _identity(sink, None, None)


def _identity(sink: SinkPlan, table: str | None, column: str | None) -> str:
    """Return the hash of what tells one destination from another: nothing of the config is stored."""
    # With one more column in their key, the rows that are there would stay beside those that replace them.
    parts = [sink.plugin.name, sorted(_places(sink.config)), table, *([column] if column is not None else [])]
    return blake2b(msgspec.json.encode(parts), digest_size=12).hexdigest()


def _places(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        words = [word.lower() for word in _WORD.findall(name)]
        while words and words[-1] in ("name", "id"):
            words.pop()
        if words and words[-1] in _WHERE and _ELSEWHERE.isdisjoint(words) and isinstance(value, str | int):
            yield name, _normal(str(value))


def _normal(value: str) -> str:
    """Return a location without the parts that do not identify it: a password in a URL, a path's spelling."""
    if "://" in value:
        try:
            url = urlsplit(value)
        except ValueError:
            return value
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
    return os.path.normpath(value) if "/" in value else value
