"""Translate the keys of configs that integration pipelines of Mage have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamline.connectors.registry import Role, connector_name

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
