"""Gives all that the SQLite store keeps of a block to another name."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from streamline.state.sqlite_positions import read_stage, stored_stage
from streamline.state.store import DeadLetter

if TYPE_CHECKING:
    import sqlite3

# Tables whose column `block` is a block's uuid. `schemas` has also the keys of pairs: `DESTINATION < SOURCE`.
_TABLES = (
    *("bookmarks", "bookmark_history", "bookmark_destinations", "consumed_overrides"),
    *("plugin_secrets", "unmoved_stream_settings", "schemas", "dead_letters", "dead_letter_keys", "keyed_state"),
)
# A child of a dynamic block keeps its positions under `<block>:<key>`.
_OF_BLOCK = "pipeline = ? AND (block = ? OR instr(block, ? || ':') = 1)"
_PAIR = re.compile(r"(.*)( [<>] )(.*)", re.DOTALL)


def rename_block(db: sqlite3.Connection, pipeline: str, old: str, new: str) -> None:
    """Rename a block in all tables but those of past runs, with its children: their keys are `BLOCK:KEY`.

    What a block `new` has left is replaced.
    """
    for table in _TABLES:
        if table not in ("dead_letters", "dead_letter_keys"):
            db.execute(
                f"DELETE FROM {table} WHERE pipeline = ? AND (block = ? OR instr(block, ?) = 1)",
                (pipeline, new, f"{new}:"),
            )
        # A letter that `new` has left of the same record and stage is the same letter.
        db.execute(
            f"UPDATE OR REPLACE {table} SET block = ? || substr(block, ?)"
            " WHERE pipeline = ? AND (block = ? OR instr(block, ?) = 1)",
            (new, len(old) + 1, pipeline, old, f"{old}:"),
        )
    db.execute("UPDATE OR REPLACE keyed_state SET source = ? WHERE pipeline = ? AND source = ?", (new, pipeline, old))
    _rename_sinks(db, pipeline, old, new)
    _rename_stages(db, pipeline, old, new)
    for (key,) in db.execute("SELECT DISTINCT block FROM schemas WHERE pipeline = ?", (pipeline,)).fetchall():
        pair = _PAIR.fullmatch(key)
        names = (pair[1], pair[3]) if pair is not None else ()
        if pair is not None and old in names:
            left, right = (new if name == old else name for name in names)
            db.execute(
                "UPDATE OR REPLACE schemas SET block = ? WHERE pipeline = ? AND block = ?",
                (f"{left}{pair[2]}{right}", pipeline, key),
            )


def _rename_sinks(db: sqlite3.Connection, pipeline: str, old: str, new: str) -> None:
    """Rename a destination among those that have proven bookmarks."""
    for table, column in (
        ("bookmarks", "sinks"),
        ("bookmark_history", "sinks"),
        ("bookmark_history", "destinations"),
        ("bookmark_destinations", "destinations"),
    ):
        rows = db.execute(
            f"SELECT rowid, {column} FROM {table} WHERE pipeline = ? AND instr({column}, ?)",
            (pipeline, json.dumps(old)[1:-1]),
        ).fetchall()
        for row, text in rows:
            value = json.loads(text)
            if isinstance(value, dict):
                value = {_sink_key(key, old, new): identity for key, identity in value.items()}
            else:
                value = list(dict.fromkeys(_sink_key(sink, old, new) for sink in value))
            db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (json.dumps(value), row))


def _sink_key(key: str, old: str, new: str) -> str:
    """Return a key (`flat_state.stream_key`: a destination, or one and a stream) with the destination renamed."""
    sink, newline, stream = key.partition("\n")
    return f"{new}{newline}{stream}" if sink == old else key


def _rename_stages(db: sqlite3.Connection, pipeline: str, old: str, new: str) -> None:
    """Rename the transformer or destination that refused dead letters."""
    for (text,) in db.execute("SELECT DISTINCT stage FROM dead_letters WHERE pipeline = ?", (pipeline,)).fetchall():
        stage, destination, output = read_stage(text)
        renamed = stored_stage(
            DeadLetter(
                pipeline=pipeline,
                block="",
                stream="",
                run_id="",
                record="",
                error="",
                stage=new if stage == old else stage,
                destination=new if destination == old else destination,
                output=output,
            )
        )
        if renamed != text:
            db.execute(
                "UPDATE OR REPLACE dead_letters SET stage = ? WHERE pipeline = ? AND stage = ?",
                (renamed, pipeline, text),
            )
