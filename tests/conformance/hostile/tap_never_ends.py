"""Sends a row every `every` seconds (0.02), a STATE every fifth, for ever; quiet after `quiet_after` rows.

On SIGTERM it does what `manner` says: `die` (at once, as singer-python taps do), `drain` (a last STATE and
exit 0, as SDK taps do), `empty` (a last STATE of `{}` and exit 0, as SDK taps do that know no bookmark),
`ignore` (go on).

Who: log-based taps without an end (`break_at_end_lsn: false`, `meltanolabs-tap-postgres` LOG_BASED), polling
taps.

Wanted: `max_duration` and `idle_timeout` end it: TERM, drain, prove, exit 0; KILL for the one that ignores
TERM.
"""

from __future__ import annotations

import signal
import time

from _singer import Tap, stream


def main() -> None:
    """Send rows until told to stop."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    manner = tap.config.get("manner", "die")
    signals: list[int] = []
    if manner == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif manner != "die":
        signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    tap.schema("numbers")
    n = tap.bookmark("numbers").get("replication_key_value", 0)
    quiet_after = tap.config.get("quiet_after", -1)
    while not signals:
        if n != quiet_after:
            n += 1
            tap.record("numbers", {"id": n, "text": f"text {n}"})
            tap.out.flush()
            if n % 5 == 0:
                tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": n}}})
        time.sleep(tap.config.get("every", 0.02))
    if manner == "drain":
        tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": n}}})
    else:
        tap.state({})


main()
