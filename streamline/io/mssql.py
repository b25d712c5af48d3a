"""SQL Server, through SQLAlchemy and pyodbc. Extra: `streamline[mssql]`. Not tested against the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamline.io.base import ExportWritePolicy, from_profile
from streamline.io.sqlalchemy import SQLAlchemy, address

__all__ = ["MSSQL", "ExportWritePolicy"]

_PROFILE = {
    name: f"MSSQL_{name.upper()}" for name in ("database", "host", "password", "user", "schema", "port", "driver")
}


class MSSQL(SQLAlchemy):
    """A connection to SQL Server.

    Profile keys: `MSSQL_DATABASE`, `_HOST`, `_PORT`, `_USER`, `_PASSWORD`, `_SCHEMA`, `_DRIVER`.

    Args:
        database: the database.
        host: the server.
        password: the user's password.
        user: who connects.
        schema: where tables without a schema are made.
        port: the server's port.
        verbose: accepted and not used.
        driver: the ODBC driver.
        kwargs: further settings of the ODBC driver, such as `TrustServerCertificate="yes"`.
    """

    def __init__(
        self,
        database: str,
        host: str,
        password: str,
        user: str,
        schema: str | None = None,
        port: int | str = 1433,
        verbose: bool = True,
        driver: str = "ODBC Driver 18 for SQL Server",
        **kwargs: str,
    ) -> None:
        where = {"username": user, "password": password, "host": host, "port": int(port), "database": database}
        super().__init__(address("mssql+pyodbc", "mssql", where, {"driver": driver, **kwargs}), verbose, schema)

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> MSSQL:
        """Connect by a profile's keys."""
        return cls(**{**from_profile(config, _PROFILE), **kwargs})
