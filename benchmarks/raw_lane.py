"""How much of a shell pipe's speed is left when Streamline stands between a tap and a target.

2,000,000 RECORDs of about 315 bytes, a STATE every 10,000. The tap is `cat`, the target a line-reading Python program.
The reference is the same two programs joined by a shell: `tap | target`. Default settings.

Two ratios: of the whole command, and without start-up, where each side's time for an empty run is taken off first.
"""

from __future__ import annotations

from common import Options, Project, Result, Times, finish, interleaved

STATE_EVERY = 10_000


def measure(options: Options, state_every: int, name: str) -> dict[str, Times]:
    """Times of `streamline` and `shell` over the input, and of both over an empty one."""
    project = Project(options.work / name)
    full, empty = options.input(options.records, state_every), options.input(0, state_every)

    def run(side: str, input_size: int) -> float:
        project.feed(full if input_size else empty)
        seconds = project.streamline() if side == "streamline" else project.shell()
        lines = project.lines()
        # Streamline tells the target a first STATE, and need not pass on each of those that follow one another.
        if lines < input_size + 1:
            raise SystemExit(f"{side}: the target got {lines:,} lines of an input with {input_size:,} records")
        return seconds

    sides = {
        "shell": lambda: run("shell", options.records),
        "streamline": lambda: run("streamline", options.records),
        "empty shell": lambda: run("shell", 0),
        "empty streamline": lambda: run("streamline", 0),
    }
    return interleaved(sides, options.rounds, options.say)


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=2_000_000)
    times = measure(options, STATE_EVERY, "raw_lane")
    shell, ours = times["shell"].median, times["streamline"].median
    moving = (shell - times["empty shell"].median) / (ours - times["empty streamline"].median)
    details = {name: str(seconds) for name, seconds in times.items()}
    details["records a second"] = f"{options.records / ours:,.0f}"
    finish(
        options,
        Result("raw lane, whole command", shell / ours, "of the shell pipe", bar=0.45, details=details),
        Result("raw lane, without start-up", moving, "of the shell pipe", bar=0.6, aim=0.8),
    )


if __name__ == "__main__":
    main()
