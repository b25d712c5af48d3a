"""Any database that SQLAlchemy has a dialect for. Extra: `streamline[sqlalchemy]`, and the dialect's own package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamline.io.sql import BaseSQL, ExportWritePolicy
from streamline.project.extras import need

__all__ = ["ExportWritePolicy", "SQLAlchemy"]


class SQLAlchemy(BaseSQL):
    """A connection by an SQLAlchemy URL. Profile key: `SQLALCHEMY_URL`.

    `export` with `overwrite_types` or `unique_conflict_method` speaks the SQL of PostgreSQL and SQLite; whether another
    database takes it is the database's affair.

    Args:
        url: `dialect+driver://user:password@host/database`.
        verbose: accepted and not used.
        schema: where tables without a schema are made.
    """

    provider = "sqlalchemy"

    schema: str | None = None

    def __init__(self, url: str, verbose: bool = True, schema: str | None = None) -> None:
        super().__init__(config={"SQLALCHEMY_URL": str(url)}, origin=f"{type(self).__name__}(…)", verbose=verbose)
        self.schema = schema

    def open(self) -> None:
        super().open()
        if self.schema:
            self.database.default_schema = self.schema


def address(driver: str, extra: str, parts: Mapping[str, Any], query: Mapping[str, str]) -> str:
    """Return the URL of a database, its password included.

    Raises:
        ConfigError: SQLAlchemy is not installed.
    """
    url = need("sqlalchemy", extra, driver).URL.create(driver, **parts, query=query)
    return str(url.render_as_string(hide_password=False))
