"""DuckDB: a file, memory, or MotherDuck."""

from __future__ import annotations

from typing import Any

from streamline.errors import ConfigError
from streamline.io.base import some
from streamline.io.sql import BaseSQL, ExportWritePolicy

__all__ = ["DuckDB", "ExportWritePolicy"]


class DuckDB(BaseSQL):
    """A connection to a DuckDB database.

    Profile keys: `DUCKDB_DATABASE`, `DUCKDB_SCHEMA`, `MOTHERDUCK_TOKEN`. DuckDB lets one process write to a file at a
    time; another one waits a while for it.

    Args:
        database: a path (made where there is none; relative to the working directory), `:memory:`, or `md:NAME`.
        motherduck_token: for MotherDuck.
        schema: where tables without a schema are made, itself made where there is none.
        verbose: accepted and not used.

    Raises:
        ConfigError: an unknown setting.
    """

    provider = "duckdb"

    def __init__(
        self,
        database: str,
        motherduck_token: str | None = None,
        schema: str | None = None,
        verbose: bool = True,
        **kwargs: Any,
    ) -> None:
        if kwargs:
            raise ConfigError(f"unknown setting '{next(iter(kwargs))}' for DuckDB", code="database.unknown_setting")
        settings = {
            "DUCKDB_DATABASE": database,
            "MOTHERDUCK_TOKEN": motherduck_token,
            "DUCKDB_SCHEMA": schema,
        }
        super().__init__(config=some(settings), origin="DuckDB(…)", verbose=verbose)
