"""Any database that SQLAlchemy has a dialect for. Extra: `streamline[sqlalchemy]`, and the dialect's own package."""

from __future__ import annotations

from streamline.io.sql import BaseSQL, ExportWritePolicy

__all__ = ["ExportWritePolicy", "SQLAlchemy"]


class SQLAlchemy(BaseSQL):
    """A connection by an SQLAlchemy URL. Profile key: `SQLALCHEMY_URL`.

    `export` with `overwrite_types` or `unique_conflict_method` speaks the SQL of PostgreSQL and SQLite; whether another
    database takes it is the database's affair.

    Args:
        url: `dialect+driver://user:password@host/database`.
        verbose: accepted and not used.
    """

    provider = "sqlalchemy"

    def __init__(self, url: str, verbose: bool = True) -> None:
        super().__init__(config={"SQLALCHEMY_URL": str(url)}, origin="SQLAlchemy(…)", verbose=verbose)
