"""Keeps a state of the oldest shape: `{"numbers": 20}`, no `bookmarks`; refuses anything else.

Who: taps on `singer.utils.update_state` (fixerio, exchangeratesapi, old Stitch taps).

Wanted: such a state is kept and given back as a whole, with nothing added.
"""

from __future__ import annotations

from _singer import Tap, stream


def main() -> None:
    """Send 20 rows after those that the state knows."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}))
    if set(tap.saved) - {"numbers"} and tap.saved != {"bookmarks": {}}:
        tap.die(f"unknown stream in state: {sorted(tap.saved)}")
    tap.schema("numbers")
    start = tap.saved.get("numbers", 0)
    for n in range(start + 1, start + 21):
        tap.record("numbers", {"id": n, "text": f"text {n}"})
        if n % 10 == 0:
            tap.state({"numbers": n})


main()
