"""Sends 10 rows, then a SCHEMA that differs (`change`), then 10 rows of the new shape:

- `add`: a column `note`; `retype`: `text` becomes an integer; `drop`: `text` goes; `key`: the key becomes (id, text);
- `none`: the same SCHEMA once more.

With `when` it changes only once that file exists.
With `from_start` the new shape is sent from the first row on: the table was altered between two runs.

Who: taps that learn columns on the way (Salesforce, MongoDB, CSV folders), ALTER TABLE during a log-based
run.

Wanted: `evolve` forwards the SCHEMA in its place; `freeze` keeps the old shape; `pause` stops the stream
before it.
"""

from __future__ import annotations

from pathlib import Path

from _singer import Tap, stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Send two shapes of one stream."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    change = tap.config["change"] if Path(tap.config.get("when", ".")).exists() else "none"
    columns: dict[str, Any] = {"id": {"type": ["integer"]}, "text": {"type": ["null", "string"]}}
    key = ["id"]
    tap.schema("numbers") if not tap.config.get("from_start") else None
    start = tap.bookmark("numbers").get("replication_key_value", 0)
    for n in range(start + 1, start + 21):
        if n == (start + 1 if tap.config.get("from_start") else start + 11):
            if change == "add":
                columns["note"] = {"type": ["null", "string"]}
            elif change == "retype":
                columns["text"] = {"type": ["null", "integer"]}
            elif change == "drop":
                del columns["text"]
            elif change == "key":
                key = ["id", "text"]
            tap.message(
                type="SCHEMA",
                stream="numbers",
                schema={"type": "object", "properties": columns},
                key_properties=key,
            )
            changed = True
        else:
            changed = n > start + 10 or bool(tap.config.get("from_start"))
        record: dict[str, Any] = {"id": n, "text": f"text {n}"}
        if changed and change == "add":
            record["note"] = f"note {n}"
        elif changed and change == "retype":
            record["text"] = n
        elif changed and change == "drop":
            del record["text"]
        tap.record("numbers", record)
        if n % 5 == 0:
            tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": n}}})


main()
