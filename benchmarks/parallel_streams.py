"""Four streams of a tap that waits on a slow API, `run_in_parallel` against one after the other.

Each stream takes 15 s (30 pages of half a second); the tap does nothing but wait.
"""

from __future__ import annotations

import json
from functools import partial

from common import USAGE, Options, Project, Result, finish, interleaved

STREAMS = ("customers", "orders", "payments", "refunds")
PAGES = 30
PAGE_SECONDS = 0.5

TAP = f"""\
import json, sys, time

if "--help" in sys.argv:
    sys.exit(print("{USAGE}"))
if "--about" in sys.argv:
    sys.exit(2)
if "--discover" in sys.argv:
    sys.exit(print(open("catalog.json").read()))


def write(**message):
    print(json.dumps(message), flush=True)


bookmarks = {{}}
for stream in json.load(open(sys.argv[sys.argv.index("--catalog") + 1]))["streams"]:
    marks = {{tuple(m["breadcrumb"]): m["metadata"] for m in stream.get("metadata", [])}}
    if not marks.get((), {{}}).get("selected"):
        continue
    name = stream["tap_stream_id"]
    write(type="SCHEMA", stream=name, schema=stream["schema"], key_properties=["id"])
    for page in range({PAGES}):
        time.sleep({PAGE_SECONDS})
        for number in range(10):
            write(type="RECORD", stream=name, record={{"id": page * 10 + number}})
        bookmarks[name] = {{"page": page}}
        write(type="STATE", value={{"bookmarks": bookmarks}})
"""


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=len(STREAMS) * PAGES * 10, rounds=1)
    sides = {
        side: Project(options.work / f"parallel_streams_{side}", tap=TAP, source=source, streams=STREAMS)
        for side, source in {
            "serial": "",
            "parallel": "max_parallel: 4\nstreams: " + json.dumps({"*": {"run_in_parallel": True}}) + "\n",
        }.items()
    }

    def run(project: Project) -> float:
        seconds = project.streamline("--full-refresh")
        if project.lines() < options.records:
            raise SystemExit("records are missing")
        return seconds

    times = interleaved(
        {side: partial(run, project) for side, project in sides.items()}, options.rounds, options.say, warm_up=False
    )
    ratio = times["serial"].median / times["parallel"].median
    details = {name: str(seconds) for name, seconds in times.items()}
    finish(options, Result("four streams in parallel", ratio, "times as fast as serial", bar=3.5, details=details))


if __name__ == "__main__":
    main()
