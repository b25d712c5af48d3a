"""What many STATEs cost: the input of raw_lane.py with a STATE every 10 records instead of every 10,000.

More lines cost the shell pipe something as well. What counts is how many percentage points more of its speed
Streamline loses than the shell pipe does: its ledger, its state store, its matching of echoes.
"""

from __future__ import annotations

from common import Options, Project, Result, finish, interleaved

MANY, FEW = 10, 10_000


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=2_000_000)
    project = Project(options.work / "raw_lane_states")
    inputs = {"few": options.input(options.records, FEW), "many": options.input(options.records, MANY)}

    def run(side: str, states: str) -> float:
        project.feed(inputs[states])
        seconds = project.streamline() if side == "streamline" else project.shell()
        lines = project.lines()
        if lines < options.records + 1:
            raise SystemExit(f"{side}: the target got {lines:,} lines of an input with {options.records:,} records")
        return seconds

    times = interleaved(
        {
            "shell, few STATEs": lambda: run("shell", "few"),
            "streamline, few STATEs": lambda: run("streamline", "few"),
            "shell, many STATEs": lambda: run("shell", "many"),
            "streamline, many STATEs": lambda: run("streamline", "many"),
        },
        options.rounds,
        options.say,
    )

    def loss(side: str) -> float:
        return 100 * (1 - times[f"{side}, few STATEs"].median / times[f"{side}, many STATEs"].median)

    details = {name: str(seconds) for name, seconds in times.items()}
    details["speed lost"] = f"shell {loss('shell'):.1f} %, streamline {loss('streamline'):.1f} %"
    more = loss("streamline") - loss("shell")
    finish(
        options,
        Result(
            "a STATE every 10 records", more, "points more lost than the shell", bar=15, at_most=True, details=details
        ),
    )


if __name__ == "__main__":
    main()
