"""Which streams a source reads and how, and the catalog that says so in every spelling that taps read.

Taps of different libraries look in different places: singer-python's `schema.selected` or metadata `selected`
(never `selected-by-default`), the SDK's metadata with defaults; replication methods in metadata
`replication-method`, at the entry's top level, or in `forced-replication-method`. So everything is written
explicitly, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from streamline.connectors.singer.catalog import (
    Breadcrumb,
    Catalog,
    CatalogStream,
    is_glob,
    matches,
    unknown_name,
    unknown_stream,
)
from streamline.connectors.singer.columns import is_items, property_marks
from streamline.connectors.singer.settings import DEFAULT, NO_SETTINGS, Resolved, StreamSettings, check_names, resolve
from streamline.errors import ConfigError
from streamline.flow.items import JSONObject

SDK = "singer-sdk"


class SelectedStream(msgspec.Struct, kw_only=True):
    """A stream that is read, and how.

    Args:
        id: its `tap_stream_id`, which keys its bookmark.
        names: every name that its messages may have.
        replication_method: FULL_TABLE, INCREMENTAL, LOG_BASED; None where only the tap knows.
        replication_key: the column that its bookmark is about; None for other methods, or where only the tap knows.
        bookmark_properties: that column, or all of several.
        key_properties: its key columns, as the SCHEMA should have them.
        own_key: the key is the user's (`unique_constraints`); a SCHEMA that says otherwise is to be changed.
        columns: top-level columns to read, None for all that the tap sends. A tap may send more all the same.
        schema_override: properties that the user types himself; a SCHEMA that says otherwise is to be changed.
        run_in_parallel: it asks for a tap process of its own.
        parent: id of the stream that drives it.
        settings: what was set for it, by name.
        marks: whether each property of the catalog is read, by breadcrumb.
    """

    id: str
    stream: str
    names: tuple[str, ...] = ()
    replication_method: str | None = None
    replication_key: str | None = None
    bookmark_properties: list[str] = []
    key_properties: list[str] = []
    own_key: bool = False
    columns: list[str] | None = None
    schema_override: JSONObject | None = None
    run_in_parallel: bool = False
    parent: str | None = None
    settings: Resolved = msgspec.field(default_factory=lambda: Resolved({}, {}))
    marks: dict[Breadcrumb, bool] = {}

    @property
    def deselected(self) -> frozenset[str]:
        """The catalog's top-level columns that are not read."""
        return frozenset(path[1] for path, read in self.marks.items() if len(path) == 2 and not read)

    @property
    def drops_columns(self) -> bool:
        """Whether the tap may send columns that are not read."""
        return self.settings.get("columns") is not None or not all(self.marks.values())

    @property
    def adapted(self) -> bool:
        """Whether it has settings that the tap may ignore, so that its messages are changed after it."""
        return self.own_key or bool(self.schema_override) or self.drops_columns


class TapTraits(msgspec.Struct, frozen=True):
    """What selection needs to know about a tap.

    Args:
        name: what errors call it.
        library: `singer-sdk`, `singer-python`, `pipelinewise-singer-python`, or None if not known.
        multiple_bookmarks: it lists the capability `multiple-bookmarks`.
        default_replication_method: what its config says for streams without a method of their own.
    """

    name: str = "the tap"
    library: str | None = None
    multiple_bookmarks: bool = False
    default_replication_method: str | None = None


def choose(
    catalog: Catalog,
    streams: StreamSettings = NO_SETTINGS,
    *,
    tap: TapTraits | None = None,
    stream_filter: Sequence[str] = (),
    set_aside: Callable[[Sequence[str], ConfigError], bool] = lambda names, error: False,
    where: str | None = None,
) -> list[SelectedStream]:
    """Return the streams to read, in the catalog's order, with their settings resolved and checked.

    Args:
        catalog: what the tap offers, all catalog layers laid over each other.
        streams: the block's `streams:`.
        tap: what is known about the tap.
        stream_filter: names or globs (`--stream`) that restrict the run; one LOG_BASED stream takes all of them,
            because they share one log.
        set_aside: is given the names of a stream and why it cannot be read; whether to do without it.
        where: the block, for errors.

    Raises:
        ConfigError: a name that no stream has, a setting that can't be honoured, or nothing to read.
    """
    tap = tap or TapTraits()
    existing, missing = _existing(streams, catalog, set_aside)
    if missing and streams.lists_streams and not existing.lists_streams:
        return []  # all that it lists were set aside
    streams = existing
    aside: list[tuple[str, ...]] = [(name,) for name in missing]
    chosen = []
    for stream in selected_streams(catalog, streams):
        resolved = resolve(streams, user_names(stream, catalog))
        try:
            if not stream.unsupported:
                chosen.append(_select(stream, resolved, tap, where))
            else:
                _refuse_unsupported(stream, user_names(stream, catalog), streams, resolved, where)
        except ConfigError as error:
            names = (stream.id, stream.stream, *stream.names)
            if not set_aside(names, error):
                raise
            aside.append(names)
    if not chosen and not aside:
        raise _nothing(catalog, streams, where)
    return _filtered(chosen, aside, catalog, stream_filter, where) if stream_filter else chosen


def _existing(
    streams: StreamSettings, catalog: Catalog, set_aside: Callable[[Sequence[str], ConfigError], bool]
) -> tuple[StreamSettings, list[str]]:
    """Return the settings of streams that the catalog has, and the names of those that were set aside.

    Raises:
        ConfigError: see `check_names`.
    """
    missing: list[str] = []
    entries = []
    for entry in streams.entries:
        try:
            check_names(StreamSettings((entry,)), catalog)
            entries.append(entry)
        except ConfigError as error:
            if not set_aside((entry.pattern,), error):
                raise
            missing.append(entry.pattern)
    return StreamSettings(tuple(entries)), missing


def selected_streams(catalog: Catalog, streams: StreamSettings = NO_SETTINGS) -> list[CatalogStream]:
    """Return the streams that `streams:`, or else the catalog, selects. Nothing is checked."""
    return [
        stream
        for stream in catalog
        if _is_chosen(stream, resolve(streams, user_names(stream, catalog)), listed=streams.lists_streams)
    ]


def refuse_without_catalog(streams: StreamSettings, *, tap: str, where: str | None = None) -> None:
    """Refuse stream settings for a tap that has no catalog: it could not be told of them.

    Raises:
        ConfigError: something is set.
    """
    for entry in streams.entries:
        raise ConfigError(
            f"{tap} has no discovery, so nothing can be set for stream {entry.pattern!r}",
            where=entry.where or where,
            hint="describe its streams in the block's catalog.json, or leave `streams` out",
            code="tap.no_discovery",
        )


def apply_settings(catalog: Catalog, streams: Iterable[SelectedStream], *, tap: TapTraits | None = None) -> Catalog:
    """Return the catalog to give to a tap process that reads `streams` (results of `choose` on the same catalog).

    Selection is written on the stream and on every property and nested property, true or false; replication
    method and key at the top level, in metadata, and as `forced-replication-method` for taps that read that one.
    """
    tap = tap or TapTraits()
    wanted = {stream.id: stream for stream in streams}
    entries = [_entry(stream, wanted.get(stream.id), tap) for stream in catalog]
    return Catalog({**catalog.data, "streams": entries}, where=catalog.where)


def user_names(stream: CatalogStream, catalog: Catalog) -> tuple[str, ...]:
    """Return the names that a user may give the stream: its id, and its stream name unless another has that id."""
    if catalog.get(stream.stream) not in (None, stream):
        return (stream.id,)
    return tuple(dict.fromkeys((stream.id, stream.stream)))


def _is_chosen(stream: CatalogStream, resolved: Resolved, *, listed: bool) -> bool:
    selected = resolved.get("selected")
    if selected == DEFAULT or (selected is None and not listed):
        return stream.selected_by_default
    return resolved.listed if selected is None else bool(selected)


def _nothing(catalog: Catalog, streams: StreamSettings, where: str | None) -> ConfigError:
    names = ", ".join(stream.id for stream in catalog.streams[:8])
    if not len(catalog):
        return ConfigError(
            "the tap's catalog has no stream",
            where=where,
            hint="check the tap's config and its permissions",
            code="catalog.empty",
        )
    if streams.lists_streams:
        return ConfigError(
            "no stream matches `streams`",
            where=where,
            hint=f"the catalog has {len(catalog)}, such as {names}",
            code="stream.none_selected",
        )
    return ConfigError(
        f"the catalog selects none of its {len(catalog)} streams by default",
        where=where,
        hint=f'name those to read under `streams:`, such as {names}; `"*"` means all',
        code="stream.none_selected",
    )


def _refuse_unsupported(
    stream: CatalogStream, names: Sequence[str], streams: StreamSettings, resolved: Resolved, where: str | None
) -> None:
    """Refuse a stream that the tap can't read, if it should be read.

    Raises:
        ConfigError: it should.
    """
    place = resolved.where(*resolved.values) or where
    if stream.discovery_error is not None:
        raise ConfigError(
            f"stream {stream.id!r} can't be read: {stream.discovery_error}",
            where=place,
            hint="repair it at the source, or leave the stream out with `selected: false`",
            code="stream.not_readable",
        )
    # A glob, or the tap's default, does not insist on such a stream.
    if any(entry.pattern in names for entry in streams.entries):
        raise ConfigError(
            f"stream {stream.id!r} can't be read: "
            f"{stream.root.get('unsupported-description') or 'the tap marks it as unsupported'}",
            where=place,
            code="stream.unsupported",
        )


def _filtered(
    chosen: list[SelectedStream],
    aside: Sequence[Sequence[str]],
    catalog: Catalog,
    stream_filter: Sequence[str],
    where: str | None,
) -> list[SelectedStream]:
    kept: set[str] = set()
    for name in stream_filter:
        ids = [stream.id for stream in chosen if name in _filter_names(stream, catalog)]
        if not ids and is_glob(name):
            ids = [stream.id for stream in chosen if matches(name, _filter_names(stream, catalog))]
        if not ids and not any(matches(name, names) for names in aside):
            if is_glob(name) or catalog.find(name) is not None:
                raise ConfigError(
                    f"--stream {name}: no selected stream has this name",
                    where=where,
                    hint=f"selected are {', '.join(stream.id for stream in chosen[:12])}",
                    code="stream.not_selected",
                )
            raise unknown_stream(name, catalog.streams, where=where)
        kept.update(ids)
    if any(stream.id in kept and stream.replication_method == "LOG_BASED" for stream in chosen):
        kept.update(stream.id for stream in chosen if stream.replication_method == "LOG_BASED")
    return [stream for stream in chosen if stream.id in kept]


def _filter_names(selected: SelectedStream, catalog: Catalog) -> tuple[str, ...]:
    stream = catalog.get(selected.id)
    return user_names(stream, catalog) if stream is not None else (selected.id,)


def _select(stream: CatalogStream, resolved: Resolved, tap: TapTraits, where: str | None) -> SelectedStream:
    override = resolved.get("schema")
    properties = {**stream.properties, **(override or {}).get("properties", {})}
    method, keys = _replication(stream, resolved, tap, properties, where)
    # A catalog.json of Mage has them in its entries.
    own = resolved.get("unique_constraints", stream.entry.get("unique_constraints") or None)
    key_properties = [str(key) for key in own] if own is not None else stream.key_properties
    if own is not None:
        _require_columns(stream, properties, key_properties, "unique_constraints", resolved, where)
    kept = [*key_properties, *keys] if method in ("INCREMENTAL", None) else list(key_properties)
    marks = property_marks(stream, properties, resolved, kept, where)
    restricted = "columns" in resolved.values or not all(
        selected for breadcrumb, selected in marks.items() if len(breadcrumb) == 2
    )
    return SelectedStream(
        id=stream.id,
        stream=stream.stream,
        names=stream.names,
        replication_method=method,
        replication_key=keys[0] if keys and method is not None else None,
        bookmark_properties=keys if method is not None else [],
        key_properties=key_properties,
        own_key=own is not None,
        columns=[path[1] for path, selected in marks.items() if len(path) == 2 and selected] if restricted else None,
        schema_override=override,
        run_in_parallel=bool(resolved.get("run_in_parallel", stream.entry.get("run_in_parallel"))),
        parent=stream.parent,
        settings=resolved,
        marks=marks,
    )


def _replication(
    stream: CatalogStream, resolved: Resolved, tap: TapTraits, properties: Mapping[str, Any], where: str | None
) -> tuple[str | None, list[str]]:
    """Return the stream's method and its bookmark columns (also those that the catalog alone names)."""
    asked: str | None = resolved.get("replication_method")
    asked_keys: list[str] | None = resolved.get("bookmark_properties")
    place = resolved.where("replication_method", "bookmark_properties") or where
    # Singer SDK taps keep their place in a log under a column of their making, and want to be told its name:
    # `_sdc_lsn` for meltanolabs-tap-postgres, which else never finds its own bookmark again.
    log_column = asked == "LOG_BASED" and tap.library == SDK
    if asked_keys is not None:
        if asked is not None and asked != "INCREMENTAL":
            method_entry, keys_entry = (
                resolved.origins[name] for name in ("replication_method", "bookmark_properties")
            )
            if method_entry is not keys_entry:
                # Set in different places: a method for this stream beats columns that were named for many.
                asked_keys = None
            elif not log_column:
                raise ConfigError(
                    f"stream {stream.id!r}: {asked} has no bookmark_properties",
                    where=place,
                    hint="remove them, or set replication_method: INCREMENTAL",
                    code="replication.no_bookmark",
                )
        elif asked is None:
            asked = "INCREMENTAL"
    method = asked or stream.replication_method
    forced = stream.forced_replication_method
    if asked and forced and asked != forced and tap.library != SDK:
        raise ConfigError(
            f"stream {stream.id!r} can't be read {asked}: {tap.name} supports only {forced}",
            where=place,
            hint=f"set replication_method: {forced}, or leave it out",
            code="replication.method_refused",
        )
    if method is None and not tap.default_replication_method and stream.is_table and tap.library != SDK:
        # These taps refuse a table without a method.
        method = "FULL_TABLE"
    method = method or tap.default_replication_method
    keys = list(asked_keys or stream.replication_keys)
    if method is None and keys and tap.library == SDK:
        method = "INCREMENTAL"
    if asked_keys and not log_column:
        _require_columns(stream, properties, asked_keys, "bookmark_properties", resolved, where)
        valid = stream.valid_replication_keys
        wrong = [key for key in asked_keys if valid and key not in valid]
        if wrong and tap.library != SDK:
            raise unknown_name("replication key", wrong[0], valid, where=resolved.where("bookmark_properties") or where)
        if len(asked_keys) > 1 and not tap.multiple_bookmarks:
            raise ConfigError(
                f"stream {stream.id!r}: {tap.name} does not support several bookmark properties",
                where=resolved.where("bookmark_properties") or where,
                hint="its --about does not list `multiple-bookmarks`. Name one column.",
                code="replication.several_bookmarks",
            )
    if asked == "INCREMENTAL" and not keys and stream.replication_method != "INCREMENTAL":
        raise ConfigError(
            f"stream {stream.id!r}: INCREMENTAL needs a bookmark column",
            where=place,
            hint="set bookmark_properties"
            + (f", one of {', '.join(stream.valid_replication_keys)}." if stream.valid_replication_keys else "."),
            code="replication.no_key",
        )
    if method not in ("INCREMENTAL", None):
        keys = asked_keys[:1] if asked_keys and log_column else []
    return method, keys


def _require_columns(
    stream: CatalogStream,
    properties: Mapping[str, Any],
    columns: Sequence[str],
    setting: str,
    resolved: Resolved,
    where: str | None,
) -> None:
    if not properties:
        return  # some taps (document databases) know no columns before they read
    for column in columns:
        if column not in properties:
            raise unknown_name("column", column, properties, of=stream.id, where=resolved.where(setting) or where)
        if stream.metadata.get(("properties", column), {}).get("inclusion") == "unsupported":
            raise ConfigError(
                f"stream {stream.id!r}: the tap can't read column {column!r}",
                where=resolved.where(setting) or where,
                code="column.unsupported",
            )


def _entry(stream: CatalogStream, selected: SelectedStream | None, tap: TapTraits) -> JSONObject:
    entry = dict(stream.entry)
    entry["tap_stream_id"] = stream.id
    entry["stream"] = stream.stream
    root = {**stream.root, "selected": selected is not None}
    schema = {**stream.schema, "selected": selected is not None}
    if selected is None:
        entry["schema"] = schema
        rest = {path: values for path, values in stream.metadata.items() if path}
        entry["metadata"] = _metadata_list({(): root, **rest})
        return entry
    if selected.schema_override:
        schema = {**schema, **selected.schema_override}
        schema["properties"] = {**stream.properties, **selected.schema_override["properties"]}
    entry["schema"] = _legacy_marks(schema, selected.marks)
    _write_replication(entry, root, selected, tap)
    _write_key(entry, root, stream, selected)
    metadata: dict[Breadcrumb, JSONObject] = {(): root}
    if not stream.metadata:
        root.setdefault("inclusion", "available")
    for path, mark in selected.marks.items():
        values = dict(stream.metadata.get(path, {}))
        if "inclusion" not in values and not is_items(path):
            key = len(path) == 2 and path[1] in selected.key_properties
            values["inclusion"] = "automatic" if key else "available"
        metadata[path] = {**values, "selected": mark}
    for path, values in stream.metadata.items():
        metadata.setdefault(path, values)
    entry["metadata"] = _metadata_list(metadata)
    return entry


def _legacy_marks(schema: JSONObject, marks: Mapping[Breadcrumb, bool]) -> JSONObject:
    """Return marks inside the schema's properties, for the oldest taps: only where the tap wrote such marks itself."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not any(
        isinstance(property_schema, dict)
        and ("inclusion" in property_schema or isinstance(property_schema.get("selected"), bool))
        for property_schema in properties.values()
    ):
        return schema
    marked = {
        column: {**property_schema, "selected": marks.get(("properties", column), True)}
        if isinstance(property_schema, dict)
        else property_schema
        for column, property_schema in properties.items()
    }
    return {**schema, "properties": marked}


def _write_replication(entry: JSONObject, root: JSONObject, selected: SelectedStream, tap: TapTraits) -> None:
    method = selected.replication_method
    if method is not None:
        entry["replication_method"] = method
        root["replication-method"] = method
        if tap.library == SDK:
            root["forced-replication-method"] = method
    if selected.bookmark_properties:
        entry["replication_key"] = selected.bookmark_properties[0]
        root["replication-key"] = selected.bookmark_properties[0]
        if tap.multiple_bookmarks:
            entry["bookmark_properties"] = list(selected.bookmark_properties)
        elif "bookmark_properties" in entry:
            entry["bookmark_properties"] = selected.bookmark_properties[:1]


def _write_key(entry: JSONObject, root: JSONObject, stream: CatalogStream, selected: SelectedStream) -> None:
    if not selected.key_properties and not selected.own_key:
        return
    entry["key_properties"] = list(selected.key_properties)
    root["view-key-properties" if stream.is_view else "table-key-properties"] = list(selected.key_properties)


def _metadata_list(metadata: Mapping[Breadcrumb, JSONObject]) -> list[JSONObject]:
    return [{"breadcrumb": list(path), "metadata": values} for path, values in metadata.items()]
