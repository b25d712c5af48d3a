"""One measurement, three blocks: records a second through something that must look into each record."""

from __future__ import annotations

import sys
from pathlib import Path

from common import Options, Project, Result, finish, interleaved

STATE_EVERY = 10_000


def measure(
    name: str,
    *,
    doc: str | None,
    job: str,
    bar: float,
    aim: float | None = None,
    transformer: str | None = None,
    destination: str = "",
) -> None:
    """Measure a pipeline against `hand_written.py JOB` between the same tap and target, and print.

    Args:
        name: what is measured; its first word names the project's folder.
        doc: the script's text.
        job: the argument of `hand_written.py`.
        bar: records a second.
        aim: records a second.
        transformer: text of the block.
        destination: more keys of the destination block.
    """
    options = Options.parse(doc, records=2_000_000, rounds=3)
    project = Project(
        options.work / name.replace(" ", "_").replace(",", ""), transformer=transformer, destination=destination
    )
    project.feed(options.input(options.records, STATE_EVERY))
    script = str(Path(__file__).with_name("hand_written.py"))

    def checked(seconds: float) -> float:
        lines = project.lines()
        if lines < options.records + 1:
            raise SystemExit(f"the target got {lines:,} lines of an input with {options.records:,} records")
        return seconds

    times = interleaved(
        {
            "by hand": lambda: checked(project.shell(sys.executable, script, job)),
            "streamline": lambda: checked(project.streamline()),
        },
        options.rounds,
        options.say,
    )
    ours, reference = times["streamline"].median, times["by hand"].median
    details = {side: str(seconds) for side, seconds in times.items()}
    details["ratio"] = (
        f"{reference / ours:.2f} of the program written by hand ({options.records / reference:,.0f} a second)"
    )
    finish(options, Result(name, options.records / ours, "records a second", bar=bar, aim=aim, details=details))
