"""Translate the keys of configs that integration pipelines of Mage have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamline.connectors.registry import Role, connector_name
from streamline.connectors.singer.settings import StreamSettings, parse_streams

CATALOG_FILE = "data_integration_catalog.json"
"""The catalog of an integration pipeline of Mage, in the pipeline's folder."""

# What the usual taps and targets call a setting, and what Mage calls it.
_USER = {"user": "username", "dbname": "database"}
_KEYS: Mapping[str, Mapping[str, str]] = {
    "tap-postgres": {**_USER, "filter_schemas": "schema"},
    "tap-mysql": {"user": "username", "filter_dbs": "database"},
    "target-postgres": {**_USER, "default_target_schema": "schema"},
    "target-mysql": {"user": "username"},
}
# The bundled connectors refuse keys that they do not know.
_RENAMED: Mapping[str, Mapping[str, str]] = {
    "target-duckdb": {"database": "path"},
    "tap-sqlite": {"database": "path"},
}


def with_plugin_keys(config: Mapping[str, Any], name: str, role: Role) -> dict[str, Any]:
    """Return a config that has the settings of Mage also under the keys of the system's usual plugin."""
    connector = connector_name(name, role)
    renamed = _RENAMED.get(connector, {})
    config = {renamed.get(key, key): value for key, value in config.items()}
    theirs = _KEYS.get(connector, {})
    return {key: config[of] for key, of in theirs.items() if config.get(of) not in (None, "")} | config


def without_line_ends(value: Any) -> Any:
    """Return a config without the whitespace around block scalars, in which Mage's files have templates (`host: |`)."""
    if isinstance(value, dict):
        return {key: without_line_ends(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_line_ends(item) for item in value]
    return value.strip() if isinstance(value, str) and value.endswith("\n") else value


def destination_settings(catalog: Path, shown: str) -> StreamSettings:
    """Return what Mage's catalog of a pipeline says about the destination's tables.

    Raises:
        ConfigError: the file is no catalog, or a setting is wrong.
    """
    from streamline.connectors.singer.discovery import read_catalog_file  # not needed outside of Mage's projects

    streams: dict[str, dict[str, Any]] = {"*": {}}
    for stream in read_catalog_file(catalog, shown=shown) or ():
        settings = {"destination_table": stream.entry.get("destination_table")}
        if stream.entry.get("unique_constraints"):  # Mage has a method also where nothing can be in conflict
            settings["unique_conflict_method"] = stream.entry.get("unique_conflict_method")
        if kept := {name: value for name, value in settings.items() if value}:
            streams[stream.id] = kept
    return parse_streams(streams, "destination", where=lambda path: shown) if len(streams) > 1 else StreamSettings()
