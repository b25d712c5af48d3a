"""The target that `target_keyed.py` is, and that most hostile targets change one thing of.

It is imported, so that it is compiled once.
"""

from __future__ import annotations

import os
import sqlite3
import sys

from _singer import arguments, once, read_json, spy, wait_for
from _text import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PYTHON_TYPES: dict[str, Any] = {
    "null": type(None),
    "integer": int,
    "number": (int, float),
    "string": str,
    "boolean": bool,
    "object": dict,
    "array": list,
}


class KeyedTarget:
    """Reads messages to the end of its input. Subclasses change when and what it says about its state."""

    def __init__(self, role: str = "target") -> None:
        given = arguments(role)
        self.config: dict[str, Any] = read_json(given["config"])
        spy("target", given, self.config, {})
        self.limit: int = self.config.get("flush", 1000)
        self.rows: dict[str, list[tuple[str, str, int | None, str]]] = {}
        self.keys: dict[str, list[str]] = {}
        self.schemas: dict[str, dict[str, Any]] = {}
        self.seen = 0
        self.unkeyed = 0
        self.state: str | None = None
        self.echoed: str | None = None
        self.log = open(self.config["log"], "ab", buffering=0) if self.config.get("log") else None  # noqa: SIM115
        self.db = sqlite3.connect(self.config["path"], timeout=30, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS rows "
            "(stream TEXT, key TEXT, version INTEGER, line TEXT, PRIMARY KEY (stream, key)) WITHOUT ROWID"
        )
        (self.unkeyed,) = self.db.execute(
            "SELECT coalesce(max(CAST(substr(key, 2) AS INTEGER)), 0) FROM rows WHERE key LIKE '#%'"
        ).fetchone()

    # What goes wrong elsewhere, goes wrong in one of these.

    def on_state(self, text: str) -> None:
        """A STATE has come; `text` is the JSON of its value."""
        self.state = text
        if not any(self.rows.values()):
            self.say(text)

    def on_flushed(self, streams: list[str]) -> None:
        """The pending rows of `streams` have become durable."""
        if self.state is not None and self.state != self.echoed and not any(self.rows.values()):
            self.say(self.state)

    def on_end(self) -> None:
        """Everything is durable and the input has ended."""
        if self.state is not None and self.state != self.echoed:
            self.say(self.state)

    def say(self, text: str) -> None:
        """Print a state."""
        self.echoed = text
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    # The target proper.

    def run(self) -> None:
        """Read to the end."""
        for line in sys.stdin.buffer:
            if self.log:
                self.log.write(line)
            self.take(line.decode("utf-8", "surrogatepass"))
        self.flush()
        self.on_end()
        if self.config.get("fail_at_end"):
            print("disk quota exceeded while cleaning up", file=sys.stderr)
            sys.exit(self.config["fail_at_end"])

    def take(self, line: str) -> None:
        """Handle one message."""
        message = loads(line)
        kind = message["type"]
        if kind == "RECORD":
            self.take_record(message["stream"], message["record"], message.get("version"), line.rstrip("\n"))
        elif kind == "SCHEMA":
            self.keys[message["stream"]] = message.get("key_properties") or []
            self.schemas[message["stream"]] = message["schema"]["properties"]
        elif kind == "STATE":
            self.on_state(dumps(message["value"]))
        elif kind == "ACTIVATE_VERSION":
            self.flush()
            self.db.execute(
                "DELETE FROM rows WHERE stream = ? AND (version IS NULL OR version < ?)",
                (message["stream"], message["version"]),
            )
        elif kind == "BATCH":
            for url in message["manifest"]:
                with open(url.removeprefix("file://"), encoding="utf-8") as file:
                    for text in file:
                        fields = {"type": "RECORD", "stream": message["stream"], "record": loads(text)}
                        self.take_record(message["stream"], fields["record"], None, dumps(fields))
        else:
            raise ValueError(f"unknown message type {kind}")

    def take_record(self, stream: str, record: dict[str, Any], version: int | None, line: str) -> None:
        """Keep a record until the next flush."""
        if stream not in self.keys:
            raise ValueError(f"a record of {stream} before its schema")
        if self.config.get("validate"):
            self.check(stream, record)
        keys = self.keys[stream]
        self.unkeyed += not keys
        key = dumps([record[column] for column in keys]) if keys else f"#{self.unkeyed}"
        self.rows.setdefault(stream, []).append((stream, key, version, line))
        self.seen += 1
        die_after = self.config.get("die_after")
        if die_after is not None and self.seen > die_after and once(self.config.get("die_once")):
            self.die()
        if self.seen == self.config.get("wait_at"):
            wait_for(self.config["wait_for"])
        if self.full(stream):
            self.flush()

    def full(self, stream: str) -> bool:
        """Whether it is time to write."""
        return sum(map(len, self.rows.values())) >= self.limit

    def check(self, stream: str, record: dict[str, Any]) -> None:
        """Die of a value that does not fit the schema."""
        for column, value in record.items():
            types = self.schemas[stream].get(column, {}).get("type", [])
            types = [types] if isinstance(types, str) else types
            allowed = tuple(PYTHON_TYPES[kind] for kind in types)
            if types and not isinstance(value, allowed):
                raise TypeError(f"{value!r} is not of type {types} in {stream}.{column}")

    def flush(self, *streams: str) -> None:
        """Make pending rows durable, all or those of some streams."""
        names = [name for name in streams or self.rows if self.rows.get(name)]
        if not names:
            return
        self.db.execute("BEGIN IMMEDIATE")
        for name in names:
            self.db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", self.rows[name])
        self.db.execute("COMMIT")
        for name in names:
            self.rows[name] = []
        self.on_flushed(names)

    def die(self) -> None:
        """Leave at once, pending rows lost."""
        code = self.config.get("die_code", 1)
        print("lost the connection to the warehouse", file=sys.stderr, flush=True)
        if code < 0:
            os.kill(os.getpid(), -code)
        os._exit(code)
