"""Prints configured messages under a configured catalog, whatever they are.

Who: taps with stream maps, with children that share their parent's bookmark, with several ids of one stream name.

Wanted: a bookmark is saved after the proof of all records that it covers, whatever their names.

Config:
    catalog: list of {id, stream, parent, method}. messages: list of messages, `S`, `R` and `ST` for short:
        ["S", stream, columns…] ("S0": without a key), ["R", stream, id], ["ST", value]; with {"of": id} as the last
        element, it is printed by the process that reads that id alone. code: exit code (0).
"""

from __future__ import annotations

import sys

from _singer import Tap, stream


def main() -> None:
    """Print them."""
    tap = Tap()
    entries = []
    for each in tap.config["catalog"]:
        parent = {"parent-tap-stream-id": each["parent"]} if each.get("parent") else {}
        entry = stream(each.get("stream", each["id"]), {"id": "integer"}, tap_stream_id=each["id"], metadata=parent)
        entry["replication_method"] = each.get("method", "INCREMENTAL")
        entry["replication_key"] = "id"
        entries.append(entry)
    tap.offer(*entries)
    ids = {entry["tap_stream_id"] for entry in entries}
    if tap.catalog:
        ids = {
            entry["tap_stream_id"]
            for entry in tap.catalog["streams"]
            if next(m["metadata"].get("selected") for m in entry["metadata"] if not m["breadcrumb"])
        }
    for kind, *rest in tap.config["messages"]:
        if rest and isinstance(rest[-1], dict) and "of" in rest[-1] and rest.pop()["of"] not in ids:
            continue
        if kind in ("S", "S0"):
            columns = {column: {"type": ["null", "integer"]} for column in rest[1:] or ["id"]}
            schema = {"type": "object", "properties": columns}
            tap.message(type="SCHEMA", stream=rest[0], schema=schema, key_properties=["id"] if kind == "S" else [])
        elif kind == "R":
            tap.record(rest[0], rest[1] if isinstance(rest[1], dict) else {"id": rest[1]})
        else:
            tap.state(rest[0])
    sys.stdout.flush()
    sys.exit(tap.config.get("code", 0))


main()
