"""What one run costs before anything moves: an empty run of two trivial Python plugins, against a shell pipe of them.

Discovery and the plugins' capabilities are known from an earlier run, as they are for every run but the first.
"""

from __future__ import annotations

from common import USAGE, Options, Project, Result, finish, interleaved

TAP = f"""\
import sys

if "--help" in sys.argv:
    sys.exit(print("{USAGE}"))
if "--about" in sys.argv:
    sys.exit(2)
if "--discover" in sys.argv:
    sys.exit(print(open("catalog.json").read()))
"""


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=0, rounds=15)
    project = Project(options.work / "startup", tap=TAP)
    times = interleaved(
        {"shell": project.shell, "streamline": project.streamline},
        options.rounds,
        options.say,
    )
    more = times["streamline"].median - times["shell"].median
    details = {name: str(seconds) for name, seconds in times.items()}
    details["ratio"] = f"{times['streamline'].median / times['shell'].median:.1f} times the shell pipe"
    finish(
        options,
        Result("empty run", more, "s more than the shell pipe", bar=0.6, at_most=True, aim=0.35, details=details),
    )


if __name__ == "__main__":
    main()
