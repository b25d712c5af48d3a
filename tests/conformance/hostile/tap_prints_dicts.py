"""After 20 good rows and their STATE it prints what begins with `{` and is no message: a Python dict (`what:
dict`), JSON without a type (`untyped`), or a message of a type that nobody knows (`unknown`); then 10 more
rows.

Who: `print(row)` in a tap; taps that log JSON to stdout; taps with messages of their own (`METRIC`, `LOG`).

Wanted: a dict or untyped JSON may be a record gone wrong: the tap has failed, its line is shown, and what
came before is proven and saved. A message of an unknown type never reaches a target, which it would kill.
"""

from __future__ import annotations

from _singer import Tap, stream

DEBRIS = {
    "dict": "{'id': 21, 'text': None}\n",
    "untyped": '{"id": 21, "text": null}\n',
    "unknown": '{"type": "METRIC", "metric": {"rows": 20}}\n',
}


def main() -> None:
    """Send 30 rows with debris after the 20th."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    tap.schema("numbers")
    for n in range(tap.bookmark("numbers").get("replication_key_value", 0) + 1, 31):
        tap.record("numbers", {"id": n, "text": f"text {n}"})
        if n % 10 == 0:
            tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": n}}})
        if n == 20:
            tap.raw(DEBRIS[tap.config["what"]])


main()
