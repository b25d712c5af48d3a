"""The SQLite database: opened for reading, and its names quoted."""

from __future__ import annotations

import codecs
import os
import sqlite3
import urllib.parse
from functools import partial

from kit.connector import Config, ConfigError, ConnectorError


class BrokenTexts:
    """Counts the bytes of text that are not valid UTF-8, which SQLite allows; they are read as U+FFFD."""

    def __init__(self) -> None:
        self.count = 0
        codecs.register_error("count-and-replace", self._handle)

    def _handle(self, error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        self.count += 1
        return "\ufffd", error.end


def connect(config: Config) -> tuple[sqlite3.Connection, BrokenTexts]:
    """Open `config['path']` for reading only.

    Raises:
        ConfigError: the file does not exist.
        ConnectorError: it is not a database, or cannot be opened.
    """
    path = os.path.abspath(config["path"])  # noqa: PTH100
    if not os.path.isfile(path):  # noqa: PTH113
        raise ConfigError(f"database file {path} not found", "correct the setting 'path'")
    uri = f"file:{urllib.parse.quote(path)}?mode=ro"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=config["busy_timeout"], isolation_level=None)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        hint = (
            "a database in WAL mode needs write access to its folder, or an existing -shm file"
            if "open" in str(error)
            else ""
        )
        raise ConnectorError(f"{config['path']}: {error}", hint) from error
    broken = BrokenTexts()
    connection.text_factory = partial(str, encoding="utf-8", errors="count-and-replace")
    return connection, broken
