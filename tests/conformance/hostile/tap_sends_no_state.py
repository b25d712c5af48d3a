"""Sends 20 rows and never a STATE.

Who: small full-table taps (CSV, spreadsheets). Older SDK targets then say `{}`, and Meltano wiped what it
had.

Wanted: the rows arrive, the run is done, there is no position to save and none is lost.
"""

from __future__ import annotations

from _singer import Tap, stream


def main() -> None:
    """Send rows and nothing else."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}))
    tap.schema("numbers")
    for n in range(1, 21):
        tap.record("numbers", {"id": n, "text": f"text {n}"})
    tap.out.flush()


main()
