"""`database(provider, config)` opens a connection by the keys of an io_config.yaml profile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.databases.registry import find_provider
from streamline.extensions import load_object

if TYPE_CHECKING:
    from streamline.databases.database import Database


def database(
    provider: str,
    config: Mapping[str, Any],
    *,
    origin: str = "io_config.yaml",
    root: Path | None = None,
    name: str | None = None,
    schema: str | None = None,
) -> Database:
    """Open a connection.

    Args:
        provider: a name or alias in `registry.PROVIDERS`, or an SQLAlchemy URL.
        config: a profile's keys: `POSTGRES_HOST`, `DUCKDB_DATABASE`, ….
        origin: names the profile in errors.
        root: where relative paths start; by default the current folder.
        name: another database (for DuckDB and SQLite: file) than the profile's.
        schema: another schema than the profile's.

    Raises:
        ConfigError: unknown provider, a key is missing or wrong, the driver is not installed.
        DatabaseError: the connection is refused.
    """
    entry = find_provider(provider)
    assert entry.dialect is not None
    if "://" in provider:
        config = {"SQLALCHEMY_URL": provider}
    opened: Database = load_object(entry.dialect)(
        config, origin=origin, root=root or Path.cwd(), name=name, schema=schema
    )
    return opened
