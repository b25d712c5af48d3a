"""A tap that plays a script: SCHEMAs, RECORDs and STATEs in the order that its config gives.

Config:
    streams: [{id, name, key, properties}, …].
    script: [["schema", id, properties] | ["record", id, number, record] | ["state"], …]; a record is left out if its
        number is not above its stream's bookmark.
    shape: of its STATEs: `bookmarks`, `flat`, or `own` (bookmarks of the stream that was sent last alone).
    dies: {after, once}: leave with 1 after so many messages, if the marker file is not there.
"""

from __future__ import annotations

from _singer import Tap, once, stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Send what is selected and new."""
    tap = Tap()
    config = tap.config
    names = {entry["id"]: entry["name"] for entry in config["streams"]}
    keys = {entry["id"]: entry["key"] for entry in config["streams"]}
    tap.offer(
        *(
            stream(entry["name"], entry["properties"], key=entry["key"], replication_key="n", tap_stream_id=entry["id"])
            for entry in config["streams"]
        )
    )
    flat = config["shape"] == "flat"
    saved: dict[str, Any] = dict(tap.saved if flat else tap.saved.get("bookmarks") or {})
    marks = {id: value if flat else value["n"] for id, value in saved.items() if id in names}
    start = dict(marks)
    sent = None
    for number, message in enumerate(config["script"]):
        if config.get("dies") and number == config["dies"]["after"] and once(config["dies"]["once"]):
            tap.die("lost the connection")
        if message[0] == "state":
            shown = marks if config["shape"] != "own" else {id: n for id, n in marks.items() if id == sent}
            tap.state(shown if flat else {"bookmarks": {id: {"n": n} for id, n in shown.items()}})
        elif not tap.selected(names[message[1]]):
            continue
        elif message[0] == "schema":
            schema = {"type": "object", "properties": message[2]}
            more = {"key_properties": keys[message[1]], "bookmark_properties": ["n"]}
            tap.message(type="SCHEMA", stream=names[message[1]], schema=schema, **more)
        elif message[2] > start.get(message[1], 0):
            sent = message[1]
            tap.record(names[sent], message[3])
            marks[sent] = message[2]


main()
