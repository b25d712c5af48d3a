"""A block's new name reaches every table."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from streamline.state import open_store
from streamline.state.sqlite_rename import _TABLES


def test_every_table_that_names_blocks_is_renamed(tmp_path: Path) -> None:
    open_store("sqlite:///state.db", tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        with_block = {
            name for name in tables if any(row[1] == "block" for row in db.execute(f"PRAGMA table_info({name})"))
        }
    db.close()
    assert set(_TABLES) == with_block
