"""Oracle Database, through SQLAlchemy and oracledb. Extra: `streamline[oracledb]`. Not tested against the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamline.io.base import ExportWritePolicy, from_profile
from streamline.io.sqlalchemy import SQLAlchemy, address
from streamline.project.extras import need

__all__ = ["ExportWritePolicy", "OracleDB"]

_PROFILE = {name: f"ORACLEDB_{name.upper()}" for name in ("user", "password", "host", "port", "mode")}
_PROFILE["service_name"] = "ORACLEDB_SERVICE"


class OracleDB(SQLAlchemy):
    """A connection to Oracle Database.

    Profile keys: `ORACLEDB_USER`, `_PASSWORD`, `_HOST`, `_PORT`, `_SERVICE`, `_MODE`.

    Args:
        user: who connects.
        password: the user's password.
        host: the server.
        port: the server's port.
        service_name: the name of the service.
        verbose: accepted and not used.
        mode: `thick` uses Oracle's client libraries.
    """

    def __init__(
        self,
        user: str,
        password: str,
        host: str,
        port: int | str = 1521,
        service_name: str | None = None,
        verbose: bool = False,
        mode: str = "thin",
    ) -> None:
        where = {"username": user, "password": password, "host": host, "port": int(port)}
        query = {"service_name": service_name} if service_name else {}
        super().__init__(address("oracle+oracledb", "oracledb", where, query), verbose)
        self.mode = mode

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> OracleDB:
        """Connect by a profile's keys."""
        return cls(**{**from_profile(config, _PROFILE), **kwargs})

    def open(self) -> None:
        """Connect; in thick mode, load Oracle's client libraries first."""
        if self.mode.lower() == "thick":
            need("oracledb", "oracledb", "OracleDB").init_oracle_client()
        super().open()

    def export(  # type: ignore[override]  # Mage's has no schema here
        self, df: Any, table_name: str | None = None, if_exists: str = ExportWritePolicy.REPLACE, **kwargs: Any
    ) -> None:
        """Write a DataFrame into a table. The other arguments are those of `BaseSQL.export`."""
        super().export(df, kwargs.pop("schema_name", None), table_name, if_exists, **kwargs)
