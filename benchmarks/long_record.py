"""One RECORD of 100 MB through the raw lane, against the same two programs joined by a shell pipe."""

from __future__ import annotations

from common import Options, Project, Result, finish, interleaved, schema_message, state_message

MEGABYTE = 1_000_000


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=100)
    size = options.records * MEGABYTE
    path = options.work / f"long-{options.records}.jsonl"
    if not path.exists():
        with path.open("wb") as file:
            file.write(schema_message())
            file.write(b'{"type":"RECORD","stream":"orders","record":{"id":1,"note":"')
            for _ in range(options.records):
                file.write(b"x" * MEGABYTE)
            file.write(b'"}}\n' + state_message(1))
    # The target says how long its longest line was.
    target = f"""\
import sys

if "--help" in sys.argv:
    sys.exit(print("usage: target [--config CONFIG]"))
if "--about" in sys.argv:
    sys.exit(2)
longest = max((len(line) for line in sys.stdin.buffer), default=0)
if 0 < longest < {size}:
    sys.exit(f"the longest line had only {{longest:,}} bytes")
with open("lines.txt", "w") as file:
    file.write(str(longest))
"""
    project = Project(options.work / "long_record", target=target)
    project.feed(path)

    def checked(seconds: float) -> float:
        if project.lines() < size:
            raise SystemExit("the record did not arrive")
        return seconds

    times = interleaved(
        {"shell": lambda: checked(project.shell()), "streamline": lambda: checked(project.streamline())},
        options.rounds,
        options.say,
    )
    ratio = times["shell"].median / times["streamline"].median
    details = {name: str(seconds) for name, seconds in times.items()}
    details["the record"] = f"{options.records} MB, arrived whole each time"
    # It has to pass; how fast is for information.
    finish(options, Result("a record of 100 MB", ratio, "of the shell pipe", bar=0.0, details=details))


if __name__ == "__main__":
    main()
