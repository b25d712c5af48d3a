"""Oracle Database, through SQLAlchemy and oracledb. Extra: `streamline[oracledb]`. Not tested against the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamline.io.base import ExportWritePolicy, from_profile
from streamline.io.sqlalchemy import SQLAlchemy, address

__all__ = ["ExportWritePolicy", "OracleDB"]

_PROFILE = {name: f"ORACLEDB_{name.upper()}" for name in ("user", "password", "host", "port", "service")}


class OracleDB(SQLAlchemy):
    """A connection to Oracle Database. Profile keys: `ORACLEDB_USER`, `_PASSWORD`, `_HOST`, `_PORT`, `_SERVICE`.

    Args:
        user: who connects.
        password: the user's password.
        host: the server.
        port: the server's port.
        service: the name of the service.
        verbose: accepted and not used.
    """

    def __init__(
        self,
        user: str,
        password: str,
        host: str,
        port: int | str = 1521,
        service: str | None = None,
        verbose: bool = True,
    ) -> None:
        where = {"username": user, "password": password, "host": host, "port": int(port)}
        query = {"service_name": service} if service else {}
        super().__init__(address("oracle+oracledb", "oracledb", where, query), verbose)

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> OracleDB:
        """Connect by a profile's keys."""
        return cls(**{**from_profile(config, _PROFILE), **kwargs})
