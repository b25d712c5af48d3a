"""Sends records that strict parsers refuse or change: `NaN` and `Infinity`, a lone surrogate, an integer over
64 bits, a long decimal, 1e400, escaped and raw non-ASCII, odd key order, keys twice, spaces, CRLF, names in
the record that look like the envelope's.

Who: `NaN` comes from every tap on an old singer-python and a float column; surrogates from cut strings of
MySQL and MongoDB; big integers from Oracle and blockchains; fields called `type` and `stream` from CRM
systems.

Wanted: what is not transformed reaches the target byte for byte.
"""

from __future__ import annotations

from _singer import Tap, stream

LINES = [
    '{"type": "RECORD", "stream": "odd", "record": {"id": 1, "value": NaN}}',
    '{"type": "RECORD", "stream": "odd", "record": {"id": 2, "value": -Infinity}}',
    '{"type": "RECORD", "stream": "odd", "record": {"id": 3, "value": "\\ud800 alone"}}',
    '{"type": "RECORD", "stream": "odd", "record": {"id": 4, "value": 123456789012345678901234567890}}',
    '{"type": "RECORD", "stream": "odd", "record": {"id": 5, "value": 0.12345678901234567890123}}',
    '{"type": "RECORD", "stream": "odd", "record": {"id": 6, "value": 1e400}}',
    '{"type": "RECORD", "stream": "odd", "record": {"id": 7, "value": "caf\\u00e9 \u2028 caf\u00e9 \\/ \\n"}}',
    '{"record": {"id": 8, "value": 1.0}, "stream": "odd", "type": "RECORD"}',
    '{"stream":"odd","time_extracted":"2026-01-01T00:00:00Z","type":"RECORD","record":{"id":9,"value":1.50}}',
    '  {"type": "RECORD", "stream": "odd", "record": {"value": null, "id": 10}}  ',
    '{"type": "RECORD", "stream": "odd", "record": {"id": 11, "value": {"type": "STATE", "stream": "x"}}}',
    '{"type": "RECORD", "stream": "odd", "record": {"id": 12, "value": 1, "value": 2}}',
    '{"type": "RECORD", "stream": "odd", "record": {"id": 13, "value": "{\\"type\\": \\"STATE\\"}"}}',
    '{"type": "RECORD", "stream": "odd", "record": {"id": 14, "value": "\\u0000"}}\r',
    '{"type": "RECORD", "stream": "odd", "record": {"id": 15, "value": 2}, "new_field": [1, {"a": NaN}]}',
]
"""The RECORD lines, as they are sent."""


def main() -> None:
    """Send the lines."""
    tap = Tap()
    tap.offer(stream("odd", {"id": "integer", "value": {}}))
    tap.schema("odd")
    for line in LINES:
        tap.raw(line + "\n")
    tap.state({"bookmarks": {"odd": {"version": 1, "big": 123456789012345678901234567890}}})


if __name__ == "__main__":
    main()
