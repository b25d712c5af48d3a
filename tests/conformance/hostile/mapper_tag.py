"""A mapper: adds a column `tag` to every record and its SCHEMA, upper-cases `text`, drops rows where `id` %
10 == 7.

It passes STATE on as mappers do, though not every one: of STATEs with no record between, the last only.

Who: `pipelinewise-transform-field` (which coalesces STATEs), `meltano-map-transformer`.
"""

from __future__ import annotations

import sys

from _singer import arguments, read_json, spy
from _text import dumps, loads


def main() -> None:
    """Read messages, write messages."""
    given = arguments("mapper")
    config = read_json(given["config"])
    spy("mapper", given, config, {})
    state: str | None = None
    for line in sys.stdin:
        message = loads(line)
        if message["type"] == "STATE":
            state = line
            continue
        if state:
            sys.stdout.write(state)
            state = None
        if message["type"] == "SCHEMA":
            message["schema"]["properties"]["tag"] = {"type": ["null", "string"]}
        elif message["type"] == "RECORD":
            record = message["record"]
            if record["id"] % 10 == 7:
                continue
            record["tag"] = config.get("tag", "mapped")
            record["text"] = record["text"].upper()
        sys.stdout.write(dumps(message) + "\n")
    if state:
        sys.stdout.write(state)
    sys.stdout.flush()


main()
