"""Read a catalog: selected streams and columns, and their replication, in every spelling in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kit.connector import ConfigError, ConnectorError

JSONObject = dict[str, Any]


class Stream(NamedTuple):
    """One selected stream of a catalog."""

    id: str
    """`tap_stream_id`, under which its bookmark stands."""
    name: str
    """`stream`, as its messages say."""
    schema: JSONObject
    """The selected properties only."""
    key_properties: list[str]
    method: str
    """FULL_TABLE or INCREMENTAL."""
    replication_keys: list[str]
    root: Mapping[str, Any]
    """The metadata of the stream itself, breadcrumb `[]`."""
    deselected: frozenset[str]
    """The catalog's other properties."""

    @property
    def columns(self) -> list[str]:
        """Return the names of the selected properties, in catalog order."""
        return list(self.schema["properties"])


DISCOVERY_ERROR = "discovery-error"
"""Metadata of a stream that discovery could not read: why."""


def selected_streams(catalog: Any) -> tuple[list[Stream], list[ConnectorError]]:
    """Return the selected streams, and the errors of those that cannot be read.

    A stream or column that says nothing about selection is selected.

    Raises:
        ConfigError: it is not a catalog.
    """
    if not isinstance(catalog, dict) or not isinstance(catalog.get("streams"), list):
        raise ConfigError("the catalog has no list 'streams'", "create one with --discover")
    streams: list[Stream] = []
    errors: list[ConnectorError] = []
    for entry in catalog["streams"]:
        try:
            stream = _stream(entry)
        except ConnectorError as error:
            errors.append(error)
        else:
            streams += [stream] if stream is not None else []
    return streams, errors


def _stream(entry: Any) -> Stream | None:
    from singer import metadata

    if not isinstance(entry, dict) or not isinstance(entry.get("tap_stream_id") or entry.get("stream"), str):
        raise ConfigError("an entry of the catalog has neither 'tap_stream_id' nor 'stream'")
    stream_id: str = entry.get("tap_stream_id") or entry["stream"]
    schema = entry.get("schema")
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        raise ConfigError(f"stream {stream_id!r}: the catalog has no schema with properties")
    marks: dict[tuple[str, ...], JSONObject] = metadata.to_map(entry.get("metadata") or [])
    root = marks.get((), {})
    if DISCOVERY_ERROR in root and _is_selected({**root, "inclusion": "available"}, schema, entry):
        raise ConnectorError(str(root[DISCOVERY_ERROR]))
    if not _is_selected(root, schema, entry):
        return None
    keys = _names(entry.get("key_properties")) or _names(root.get("table-key-properties"))
    if root.get("is-view") or not keys:
        keys = _names(root.get("view-key-properties")) or keys
    replication_keys = (
        _names(entry.get("bookmark_properties"))
        or _names(entry.get("replication_key"))
        or _names(root.get("replication-key"))
    )
    method = entry.get("replication_method") or root.get("replication-method") or "FULL_TABLE"
    method = str(method).upper().replace("-", "_")
    if method not in ("FULL_TABLE", "INCREMENTAL"):
        raise ConfigError(
            f"stream {stream_id!r}: unsupported replication method {method}", "use FULL_TABLE or INCREMENTAL"
        )
    properties = schema["properties"]
    for name in (*keys, *(replication_keys if method == "INCREMENTAL" else ())):
        if name not in properties:
            raise ConfigError(f"stream {stream_id!r} has no column {name!r}", f"it has {', '.join(properties)}")
    automatic = {*keys, *(replication_keys if method == "INCREMENTAL" else ())}
    chosen = {
        name: dict(property_schema)
        for name, property_schema in properties.items()
        if name in automatic or _is_selected(marks.get(("properties", name), {}), property_schema, {})
    }
    for property_schema in chosen.values():
        property_schema.pop("selected", None)
    message_schema = {key: value for key, value in schema.items() if key != "selected"} | {"properties": chosen}
    if not chosen:
        raise ConfigError(
            f"stream {stream_id!r} is selected without any column", "select a column, or deselect the stream"
        )
    return Stream(
        id=stream_id,
        name=entry.get("stream") or stream_id,
        schema=message_schema,
        key_properties=keys,
        method=method,
        replication_keys=replication_keys,
        root=root,
        deselected=frozenset(properties) - set(chosen),
    )


def _is_selected(marks: Mapping[str, Any], schema: Any, entry: Mapping[str, Any]) -> bool:
    """Return the first of: metadata, the legacy key in entry or schema, the tap's default, True."""
    if marks.get("inclusion") == "unsupported":
        return False
    if marks.get("inclusion") == "automatic":
        return True
    legacy = schema.get("selected") if isinstance(schema, dict) else None
    for value in (marks.get("selected"), entry.get("selected"), legacy, marks.get("selected-by-default")):
        if value is not None:
            return value is True or value == "true"
    return True


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def catalog_entry(
    name: str,
    properties: Mapping[str, JSONObject],
    *,
    key_properties: list[str],
    root: Mapping[str, Any],
    columns: Mapping[str, Mapping[str, Any]],
) -> JSONObject:
    """Return the catalog entry of a discovered stream; `root` and `columns` are additional metadata."""
    marks: list[JSONObject] = [
        {
            "breadcrumb": [],
            "metadata": {
                "inclusion": "available",
                "selected-by-default": True,
                "table-key-properties": key_properties,
                **root,
            },
        }
    ]
    for column in properties:
        inclusion = "automatic" if column in key_properties else "available"
        metadata = {"inclusion": inclusion, "selected-by-default": True, **columns.get(column, {})}
        marks.append({"breadcrumb": ["properties", column], "metadata": metadata})
    return {
        "tap_stream_id": name,
        "stream": name,
        "key_properties": key_properties,
        "schema": {"type": "object", "properties": dict(properties)},
        "metadata": marks,
    }


def unreadable_entry(name: str, error: ConnectorError) -> JSONObject:
    """Return the catalog entry of a stream that discovery could not read: a run fails it, unless it is deselected."""
    root = {"inclusion": "unsupported", "selected-by-default": True, DISCOVERY_ERROR: str(error)}
    return {
        "tap_stream_id": name,
        "stream": name,
        "key_properties": [],
        "schema": {"type": "object", "properties": {}},
        "metadata": [{"breadcrumb": [], "metadata": root}],
    }
