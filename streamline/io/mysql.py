"""MySQL and MariaDB. Extra: `streamline[mysql]`."""

from __future__ import annotations

from typing import Any

from streamline.errors import ConfigError
from streamline.io.base import some
from streamline.io.sql import BaseSQL, ExportWritePolicy

__all__ = ["ExportWritePolicy", "MySQL"]


class MySQL(BaseSQL):
    """A connection to a MySQL or MariaDB database. Its schemas are its databases.

    Profile keys: `MYSQL_DATABASE`, `MYSQL_HOST`, `MYSQL_PASSWORD`, `MYSQL_PORT`, `MYSQL_USER`.

    Args:
        database: the database.
        host: the server.
        password: the user's password.
        user: who connects.
        port: the server's port; 3306 by default.
        allow_local_infile: accepted and not used.
        verbose: accepted and not used.

    Raises:
        ConfigError: an unknown setting.
    """

    provider = "mysql"

    def __init__(
        self,
        database: str,
        host: str,
        password: str,
        user: str,
        port: int | str | None = 3306,
        allow_local_infile: bool = False,
        verbose: bool = True,
        **kwargs: Any,
    ) -> None:
        if kwargs:
            raise ConfigError(f"unknown setting '{next(iter(kwargs))}' for MySQL", code="database.unknown_setting")
        settings = {
            "MYSQL_DATABASE": database,
            "MYSQL_HOST": host,
            "MYSQL_PASSWORD": password,
            "MYSQL_PORT": port or 3306,
            "MYSQL_USER": user,
        }
        super().__init__(config=some(settings), origin="MySQL(…)", verbose=verbose)
