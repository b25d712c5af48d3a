"""A mapper that passes messages on, and after `after` records (100) ends in the middle of its input: with exit code
`code` (0), or by itself with a signal (negative).

Who: mappers that take an error in a record for the end; mappers killed for memory.

Wanted: the run fails and names the mapper, whatever the exit code; nothing that it swallowed is taken for delivered.
"""

from __future__ import annotations

import os
import sys

from _singer import arguments, read_json


def main() -> None:
    """Pass lines on for a while."""
    config = read_json(arguments("mapper")["config"])
    records = 0
    for line in sys.stdin:
        sys.stdout.write(line)
        records += '"RECORD"' in line
        if records >= config.get("after", 100):
            sys.stdout.flush()
            code = config.get("code", 0)
            if code < 0:
                os.kill(os.getpid(), -code)
            os._exit(code)


main()
