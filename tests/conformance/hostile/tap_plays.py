"""A tap that plays a script: SCHEMAs, RECORDs, tables and STATEs in the order that its config gives.

Config:
    streams: [{id, name, sends, key, properties, mark, parent, versions}, …]. `sends`: its name in messages; `mark`: the
        key of its bookmark, null for none; `parent`: id of the stream whose bookmark it shares, which its catalog names
        if `names_parents`; `versions`: null, `early` or `late`, when its ACTIVATE_VERSION is sent.
    script: [["schema", id, properties] | ["record", id, number, record] | ["table", id, rows] | ["state", form], …]; a
        record is left out if its number is not above its stream's bookmark. `rows`: [[record, reads], …], a record of a
        table that is gone after so many reads of the table. `form` of a STATE: `null`, `empty`, `syncing` (it names the
        stream that is being sent, as many taps do) or `plain`.
    shape: of its STATEs: `bookmarks`, `flat`, or `own` (the bookmark of the stream that was sent last alone).
    sends_all: it sends what is not selected, too.
    dies: {after, once}: leave with 1 after so many messages, if the marker file is not there.
    reads: prefix of marker files, one for each read of a table.
"""

from __future__ import annotations

from _singer import Tap, once, stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Plays:
    """One life of the tap."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.config = tap.config
        self.streams: dict[str, Any] = {entry["id"]: entry for entry in self.config["streams"]}
        tap.offer(*map(self._entry, self.streams.values()))
        entries = tap.catalog["streams"] if tap.catalog else []
        self.selected = {
            entry["tap_stream_id"] for entry in entries if entry["metadata"][0]["metadata"].get("selected")
        }
        self.flat = self.config["shape"] == "flat"
        saved = tap.saved if self.flat else tap.saved.get("bookmarks") or {}
        keys = {entry["mark"] for entry in self.streams.values()}
        self.marks = {key: value if self.flat else value["n"] for key, value in saved.items() if key in keys}
        self.start = dict(self.marks)
        self.last: str | None = None
        self.sent: str | None = None
        syncing = tap.saved.get("currently_syncing")
        if tap.catalog and syncing is not None and syncing not in self.selected:
            tap.die(f"the state says that {syncing} was interrupted, which is not selected")

    def run(self) -> None:
        """Send what is selected and new."""
        for number, message in enumerate(self.config["script"]):
            dies = self.config.get("dies")
            if dies and number == dies["after"] and once(dies["once"]):
                self.tap.die("lost the connection")
            kind, *rest = message
            if kind == "state":
                self.state(*rest)
            elif rest[0] in self.selected or self.config.get("sends_all"):
                getattr(self, kind)(*rest)

    def state(self, form: str = "plain") -> None:
        """Send a STATE."""
        if form in ("null", "empty"):
            self.tap.state(None if form == "null" else {})
            return
        own = self.config["shape"] == "own"
        shown = {key: n for key, n in self.marks.items() if not own or key == self.last}
        syncing = {"currently_syncing": self.sent} if form == "syncing" and self.sent in self.selected else {}
        marks = shown if self.flat else {"bookmarks": {key: {"n": n} for key, n in shown.items()}}
        self.tap.state({**marks, **syncing})

    def schema(self, id: str, properties: dict[str, Any]) -> None:
        """Send a SCHEMA."""
        entry = self.streams[id]
        more = {"key_properties": entry["key"], **({"bookmark_properties": ["n"]} if entry["mark"] else {})}
        schema = {"type": "object", "properties": properties}
        self.tap.message(type="SCHEMA", stream=entry["sends"], schema=schema, **more)

    def record(self, id: str, number: int, record: dict[str, Any]) -> None:
        """Send a RECORD, if it is new."""
        entry = self.streams[id]
        mark = entry["mark"] or self.streams[entry["parent"]]["mark"]
        if number > self.start.get(mark, 0):
            self.tap.record(entry["sends"], record)
            self.sent = id
            if entry["mark"]:
                self.marks[mark] = number
                self.last = mark

    def table(self, id: str, rows: list[tuple[dict[str, Any], int]]) -> None:
        """Send all rows that a table has now."""
        entry, read = self.streams[id], 1
        while not once(f"{self.config['reads']}{id}.{read}"):
            read += 1
        version = {"version": read} if entry["versions"] else {}
        activate = {"type": "ACTIVATE_VERSION", "stream": entry["sends"], **version}
        if entry["versions"] == "early":
            self.tap.message(**activate)
        for record, reads in rows:
            if read <= reads:
                self.tap.record(entry["sends"], record, **version)
        if entry["versions"] == "late":
            self.tap.message(**activate)

    def _entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        named = entry.get("parent") and self.config.get("names_parents")
        return stream(
            entry["name"],
            entry["properties"],
            key=entry["key"],
            replication_key="n" if entry["mark"] else None,
            tap_stream_id=entry["id"],
            metadata={"parent-tap-stream-id": entry["parent"]} if named else None,
        )


Plays(Tap()).run()
