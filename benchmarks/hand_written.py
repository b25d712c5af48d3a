"""The references for blocks that see records: the shortest program one would write by hand for the job.

tap | python hand_written.py change | target
"""

from __future__ import annotations

import sys

import orjson


def change(record: dict[str, object]) -> dict[str, object]:
    """Changes one field."""
    record["status"] = str(record["status"]).upper()
    return record


def add(record: dict[str, object]) -> dict[str, object]:
    """Adds one field."""
    record["gross"] = float(str(record["total"])) * 1.19
    return record


def main() -> None:
    """Decode each RECORD, do the job, encode it again; everything else passes."""
    job = sys.argv[1]
    write = sys.stdout.buffer.write
    if job == "validate":
        import jsonschema_rs

        fits = None
        for line in sys.stdin.buffer:
            message = orjson.loads(line)
            if message["type"] == "SCHEMA":
                fits = jsonschema_rs.validator_for(message["schema"]).is_valid
            elif message["type"] == "RECORD" and fits is not None and not fits(message["record"]):
                print(message["record"], file=sys.stderr)
                continue
            write(line)
        return
    do = {"change": change, "add": add}[job]
    for line in sys.stdin.buffer:
        message = orjson.loads(line)
        if message["type"] == "RECORD":
            message["record"] = do(message["record"])
            line = orjson.dumps(message) + b"\n"
        write(line)


if __name__ == "__main__":
    main()
