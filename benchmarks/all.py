"""Runs every benchmark, one after the other, and prints the tables of README.md. Half an hour; needs 8 GB of disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "raw_lane",
    "raw_lane_states",
    "startup",
    "rows_transformer",
    "arrow_transformer",
    "quarantine",
    "memory",
    "long_record",
    "parallel_streams",
    "batch_startup",
    "batch_hop",
    "batch_frames",
    "batch_fanout",
    "batch_sql",
    "batch_source",
    "streaming_python",
    "streaming_kafka",
    "streaming_window",
    "streaming_restart",
    "streaming_target",
)


def main() -> None:
    """Run, and print a row for each result; arguments are handed on to every script."""
    failed = False
    print("| script | what | measured | bar | aim | |\n|---|---|---|---|---|---|", flush=True)
    for script in SCRIPTS:
        command = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), "--json", *sys.argv[1:]]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        failed = failed or done.returncode != 0
        if not done.stdout.strip():
            print(f"| `{script}.py` | failed | | | | |", flush=True)
            continue
        for result in json.loads(done.stdout)["results"]:
            sign = "≤" if result["at_most"] else "≥"
            aim = "" if result["aim"] is None else f"{result['aim']:,g}"
            verdict = "reached" if result["passed"] else "missed"
            print(
                f"| `{script}.py` | {result['name']} | {result['value']:,.2f} {result['unit']} "
                f"| {sign} {result['bar']:,g} | {aim} | {verdict} |",
                flush=True,
            )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
