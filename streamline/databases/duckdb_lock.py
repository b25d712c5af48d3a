"""Waiting for a DuckDB file that another process has open: DuckDB lets one process write, and refuses all others.

dbt's process loads this file, too, so it needs nothing but the standard library.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOCKED = "Could not set lock on file"
"""What DuckDB says."""
SECONDS = 60.0
"""How long to wait for a process that is none of ours."""
SECONDS_IN_RUN = 3600.0
"""How long to wait for another block of the same run: it will be done, be it a long dbt build."""

_RUN = "STREAMLINE_RUN_ID"
_HOLDER = re.compile(r"\(PID (\d+)\)")
_REPORT_AFTER = 5.0


def patiently(connect: Callable[[], T], name: str) -> T:
    """Call `connect` until no other process has the file open, and return what it returns.

    Args:
        name: the file's, for the log.

    Raises:
        Exception: what `connect` raises for another reason, or when the time is over.
    """
    strangers = own = 0.0
    wait, reported = 0.02, False
    while True:
        try:
            return connect()
        except Exception as error:
            if LOCKED not in str(error):
                raise
            holder = _HOLDER.search(str(error))
            if holder is not None and _in_this_run(holder[1]):
                own += wait
            else:
                strangers += wait
            if strangers > SECONDS or own > SECONDS_IN_RUN:
                raise
        if strangers + own > _REPORT_AFTER and not reported:
            reported = True
            by = f" (process {holder[1]}{', of this run' if own else ''})" if holder is not None else ""
            logging.getLogger("streamline").warning("waiting for %s, which another process has open%s", name, by)
        time.sleep(wait)
        wait = min(wait * 1.5, 0.5)


def _in_this_run(process: str) -> bool:
    """Return whether the run that this process belongs to has started that one as well."""
    run = os.environ.get(_RUN)
    if not run:
        return False
    try:
        with open(f"/proc/{process}/environ", "rb") as file:
            return f"{_RUN}={run}".encode() in file.read().split(b"\0")
    except OSError:
        return False
