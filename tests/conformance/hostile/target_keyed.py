"""A well-behaved target: upserts by key into an SQLite file, and says a STATE only when all before it is
durable.

Most hostile targets of this folder are this one with one thing wrong.

Config:
    path: the SQLite file; table rows(stream, key, version, line), `line` being the RECORD as it came.
    flush: rows that are written at once (1000). log: a file that every line is appended to, byte for byte.
    wait_at, wait_for: after so many rows, wait until the file is there (a slow target).
    die_after: leave after so many rows, unflushed; die_code (1; negative: by that signal); die_once: marker file.
    fail_at_end: exit code after everything was flushed and said.
    validate: die of a value that does not fit its type, as SDK targets do.

It takes ACTIVATE_VERSION (rows of lower versions go) and, started with `--able=batch`, the SDK's BATCH
messages. A message of an unknown type kills it, like every target in the wild.
"""

from __future__ import annotations

from _keyed import KeyedTarget

KeyedTarget().run()
