"""PostgreSQL: `with Postgres.with_config(ConfigFileLoader(path, profile)) as loader: loader.load(query)`."""

from __future__ import annotations

from typing import Any

from streamline.errors import ConfigError
from streamline.io.base import some
from streamline.io.sql import BaseSQL, ExportWritePolicy

__all__ = ["ExportWritePolicy", "Postgres"]


class Postgres(BaseSQL):
    """A connection to a PostgreSQL database.

    Profile keys: `POSTGRES_DBNAME` (or `POSTGRES_DB`), `POSTGRES_USER`, `POSTGRES_PASSWORD`, `POSTGRES_HOST`,
    `POSTGRES_PORT`, `POSTGRES_SCHEMA`, `POSTGRES_CONNECT_TIMEOUT`.

    Args:
        dbname: the database.
        user: who connects.
        password: the user's password.
        host: the server.
        port: its port; 5432 by default.
        schema: where tables without a schema are made.
        connection_method: `direct`.
        connect_timeout: seconds.
        verbose: accepted and not used.
        kwargs: `ssh_…` settings are accepted as long as no tunnel is asked for.

    Raises:
        ConfigError: a tunnel or an unknown setting is asked for.
    """

    provider = "postgres"

    def __init__(
        self,
        dbname: str,
        user: str,
        password: str,
        host: str,
        port: str | int | None = None,
        schema: str | None = None,
        connection_method: str | None = "direct",
        connect_timeout: int | None = None,
        verbose: bool = True,
        **kwargs: Any,
    ) -> None:
        unknown = [name for name in kwargs if not name.startswith("ssh_")]
        if unknown:
            raise ConfigError(
                f"unknown setting '{unknown[0]}' for Postgres",
                hint="libpq's own variables (PGSSLMODE, PGOPTIONS, …) in the environment apply to the connection",
                code="database.unknown_setting",
            )
        settings = {
            "POSTGRES_DBNAME": dbname,
            "POSTGRES_USER": user,
            "POSTGRES_PASSWORD": password,
            "POSTGRES_HOST": host,
            "POSTGRES_PORT": port,
            "POSTGRES_SCHEMA": schema,
            "POSTGRES_CONNECTION_METHOD": connection_method,
            "POSTGRES_CONNECT_TIMEOUT": connect_timeout,
        }
        super().__init__(config=some(settings), origin="Postgres(…)", verbose=verbose)
