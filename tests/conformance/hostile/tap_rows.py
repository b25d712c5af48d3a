"""A well-behaved tap of configured rows: FULL_TABLE and INCREMENTAL, pages, a STATE after each page.

It behaves as plain singer-python taps do: `>=` from the bookmark, ordered by the replication key, one stream
after the other, and no row whose replication key is NULL once there is a bookmark.

Config:
    streams: {name: {properties, key, replication_key, tap_stream_id, metadata, rows}}; `rows` a list, or a number of
        rows that are made up (`id` 1…n and the other columns by their types).
    rows_file: JSON file `{name: [row, …]}` read at each start, so that a test can change rows between runs.
    page: rows per STATE (10). pause: seconds between pages (0).
    wait_for: a file; after the first page of the last stream it waits until that is there.
    fail: {stream, after: rows, code: 1, once: marker file}: leave after so many rows of a stream.
    discovery_fails_once: marker file; the first `--discover` fails. discovery_waits_for: a file that it waits for.
    fail_at_start: {stream, once}: fail before the stream's first row.
    own_state: false; true writes STATEs that hold only the stream being sent (as sharded or careless taps do).
"""

from __future__ import annotations

import time

from _singer import Tap, once, read_json, stream, wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def made_up(count: int, properties: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows 1…count with a value for each column."""
    values: dict[str, Any] = {
        "integer": lambda n: n,
        "string": lambda n: f"text {n}",
        "number": lambda n: n / 4,
        "boolean": bool,
    }
    return [
        {column: values.get(kind, str)(n) if isinstance(kind, str) else n for column, kind in properties.items()}
        for n in range(1, count + 1)
    ]


def main() -> None:
    """Send the selected streams."""
    tap = Tap()
    config = tap.config
    declared: dict[str, dict[str, Any]] = config["streams"]
    shape = ("key", "replication_key", "tap_stream_id", "metadata")
    tap.offer(
        *(
            stream(name, spec["properties"], **{k: v for k, v in spec.items() if k in shape})
            for name, spec in declared.items()
        )
    )
    from_file = read_json(config.get("rows_file")) or {}
    page: int = config.get("page", 10)
    fail: dict[str, Any] = config.get("fail") or {}
    start_fail: dict[str, Any] = config.get("fail_at_start") or {}
    state: dict[str, Any] = {"bookmarks": dict(tap.saved.get("bookmarks") or {})}
    names = [name for name in declared if tap.selected(name)]
    for name in names:
        spec = declared[name]
        stream_id = spec.get("tap_stream_id", name)
        rows = from_file.get(name, spec.get("rows", []))
        if isinstance(rows, int):
            rows = made_up(rows, spec["properties"])
        incremental = tap.setting(name, "replication-method") == "INCREMENTAL"
        replication_key = tap.setting(name, "replication-key") if incremental else None
        if replication_key:
            since = tap.bookmark(stream_id).get("replication_key_value")
            if since is not None:
                rows = [r for r in rows if r[replication_key] is not None and r[replication_key] >= since]
            rows = sorted(rows, key=lambda r: (r[replication_key] is not None, r[replication_key]))
        if start_fail.get("stream") == name and once(start_fail.get("once")):
            tap.die(f"cannot open {name}")
        tap.schema(name, **({"bookmark_properties": [replication_key]} if replication_key else {}))
        if not rows:
            tap.state(state)
        columns = tap.streams[name]["metadata"]
        off = {m["breadcrumb"][1] for m in columns if m["breadcrumb"] and m["metadata"].get("selected") is False}
        for begin in range(0, len(rows), page):
            for number, row in enumerate(rows[begin : begin + page], begin):
                if fail.get("stream") == name and number == fail["after"] and once(fail.get("once")):
                    tap.die(f"lost the connection while reading {name}", fail.get("code", 1))
                tap.record(name, {column: value for column, value in row.items() if column not in off})
                if replication_key and row[replication_key] is not None:
                    state["bookmarks"][stream_id] = {
                        "replication_key": replication_key,
                        "replication_key_value": row[replication_key],
                    }
            mine = {"bookmarks": {stream_id: state["bookmarks"].get(stream_id)}}
            tap.state(mine if config.get("own_state") and stream_id in state["bookmarks"] else state)
            if config.get("wait_for") and begin == 0 and name == names[-1]:
                wait_for(config["wait_for"])
            time.sleep(config.get("pause", 0))


main()
