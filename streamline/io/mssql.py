"""SQL Server, through SQLAlchemy and pyodbc. Extra: `streamline[mssql]`. Not tested against the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamline.io.base import ExportWritePolicy, from_profile, some
from streamline.io.sqlalchemy import SQLAlchemy, address
from streamline.project.current import in_mage_project

__all__ = ["MSSQL", "ExportWritePolicy"]

_PROFILE = {
    name: f"MSSQL_{name.upper()}"
    for name in ("database", "host", "password", "user", "authentication", "schema", "port", "driver")
}


class MSSQL(SQLAlchemy):
    """A connection to SQL Server.

    Profile keys: `MSSQL_DATABASE`, `_HOST`, `_PORT`, `_USER`, `_PASSWORD`, `_AUTHENTICATION`, `_SCHEMA`, `_DRIVER`.

    Args:
        database: the database.
        host: the server.
        password: the user's password.
        user: who connects.
        authentication: how, in the ODBC driver's words, such as `ActiveDirectoryPassword`.
        schema: where tables without a schema are made.
        port: the server's port.
        verbose: accepted and not used.
        driver: the ODBC driver.
        kwargs: further settings of the ODBC driver. In projects of Mage `TrustServerCertificate` is `yes` by default.
    """

    def __init__(
        self,
        database: str,
        host: str,
        password: str,
        user: str,
        authentication: str | None = None,
        schema: str | None = None,
        port: int | str = 1433,
        verbose: bool = True,
        driver: str = "ODBC Driver 18 for SQL Server",
        **kwargs: str,
    ) -> None:
        where = {"username": user, "password": password, "host": host, "port": int(port), "database": database}
        options = some({"driver": driver, "Authentication": authentication})
        if in_mage_project():
            options["TrustServerCertificate"] = "yes"
        super().__init__(address("mssql+pyodbc", "mssql", where, options | kwargs), verbose, schema)

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> MSSQL:
        """Connect by a profile's keys."""
        return cls(**{**from_profile(config, _PROFILE), **kwargs})
