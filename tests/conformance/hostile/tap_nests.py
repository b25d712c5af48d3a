"""Sends three streams, the middle one of which has a record, a SCHEMA or a bookmark that is nested too deeply.

Who: taps of document databases and of APIs with comment threads; page tokens that hold their predecessor.

Wanted: no JSON parser reads such a message, so its stream alone suffers.

Config:
    where: `record`, `schema` or `state`. depth: levels (1500).
"""

from __future__ import annotations

from _singer import Tap, stream
from _text import dumps


def main() -> None:
    """Send rows 1, 2, 3 of each stream that are above its bookmark."""
    tap = Tap()
    where, depth = tap.config["where"], tap.config.get("depth", 1500)
    tap.offer(*(stream(name, {"id": "integer", "v": {}}, replication_key="id") for name in ("a", "deep", "z")))
    marks = {name: dumps(mark) for name, mark in (tap.saved.get("bookmarks") or {}).items()}
    for name in tap.streams:
        deep = name == "deep"
        if deep and where == "schema":
            nested = '{"properties": {"x": ' * depth + "{}" + "}}" * depth
            columns = f'{{"id": {{"type": "integer"}}, "v": {nested}}}'
            tap.raw(
                f'{{"type": "SCHEMA", "stream": "{name}", "key_properties": ["id"], '
                f'"schema": {{"properties": {columns}}}}}\n'
            )
        else:
            tap.schema(name)
        for number in range(tap.bookmark(name).get("replication_key_value", 0) + 1, 4):
            value = "[" * depth + "]" * depth if deep and where == "record" and number == 2 else "null"
            tap.raw(f'{{"type": "RECORD", "stream": "{name}", "record": {{"id": {number}, "v": {value}}}}}\n')
        more = ', "token": ' + "[" * depth + "]" * depth if deep and where == "state" else ""
        marks[name] = f'{{"replication_key_value": 3{more}}}'
        bookmarks = ", ".join(f'"{name}": {mark}' for name, mark in marks.items())
        tap.raw(f'{{"type": "STATE", "value": {{"bookmarks": {{{bookmarks}}}}}}}\n')


main()
