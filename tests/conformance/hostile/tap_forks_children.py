"""Forks a child that holds its stdout and stderr open and sleeps, and ends without waiting for it; with
`daemon` the child leaves session and process group first, with `clear` it has no environment either.

Who: taps that start `ssh` tunnels, cloud SQL proxies, Selenium browsers, `multiprocessing` pools; Java
wrappers.

Wanted: the run ends when the tap does, not when the pipe closes, and nothing of what it forked is left.
"""

from __future__ import annotations

import os
import signal
import time

from _singer import Tap, stream, wait_for


def main() -> None:
    """Fork, send 30 rows, leave."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    tap.schema("numbers")
    tap.out.flush()
    if os.fork() == 0:
        if tap.config.get("daemon"):
            os.setsid()
            if os.fork():
                os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if tap.config.get("child_pid"):
            with open(tap.config["child_pid"], "w") as file:
                file.write(str(os.getpid()))
        if tap.config.get("clear"):
            os.execve("/bin/sleep", ["sleep", "600"], {})
        while True:
            time.sleep(60)
    for n in range(tap.bookmark("numbers").get("replication_key_value", 0) + 1, 31):
        tap.record("numbers", {"id": n, "text": f"text {n}"})
        if n % 10 == 0:
            tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": n}}})
    if tap.config.get("child_pid"):
        wait_for(tap.config["child_pid"])
    tap.out.flush()
    if tap.config.get("stay"):
        while True:
            time.sleep(60)


main()
