"""SQLite: a file, or memory."""

from __future__ import annotations

import os

from streamline.io.sql import BaseSQL, ExportWritePolicy

__all__ = ["ExportWritePolicy", "SQLite"]


class SQLite(BaseSQL):
    """A connection to an SQLite database. Profile key: `SQLITE_DATABASE`.

    Args:
        database: a path (made where there is none; relative to the working directory), or `:memory:`.
        verbose: accepted and not used.
    """

    provider = "sqlite"

    def __init__(self, database: str | os.PathLike[str], verbose: bool = True) -> None:
        settings = {"SQLITE_DATABASE": os.fspath(database)}
        super().__init__(config=settings, origin="SQLite(…)", verbose=verbose)
