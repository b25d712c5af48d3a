"""Peak memory of Streamline's own processes over 10,000,000 records, for each lane.

The target proves nothing before its end, the tap sends a STATE every 10 records (each another one), so the ledger has
a million positions in flight. Sampled from /proc every 50 ms: the resident memory of all processes below the command,
plugins left out, each process's own peak (VmHWM) where that is higher than any sample saw.

Flat means: the peak of the last quarter of the run is not above the second quarter's by more than a tenth of the bar.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from arrow_transformer import TRANSFORMER as ARROW
from common import USAGE, Options, Project, Result, finish, record_message, schema_message
from rows_transformer import TRANSFORMER as ROWS

STATE_EVERY = 10
SAMPLE_SECONDS = 0.05
PAGE = os.sysconf("SC_PAGE_SIZE")
BARS = {"raw": 150, "rows": 150, "arrow": 350}
PLUGINS = (b"tap.py", b"target.py")

# Ten records over and over, each time with a STATE of its own.
TAP = f"""\
import sys

if "--help" in sys.argv:
    sys.exit(print("{USAGE}"))
if "--about" in sys.argv:
    sys.exit(2)
if "--discover" in sys.argv:
    sys.exit(print(open("catalog.json").read()))
write = sys.stdout.buffer.write
write(open("schema.jsonl", "rb").read())
records = open("records.jsonl", "rb").read()
state = b'{{"type":"STATE","value":{{"bookmarks":{{"orders":{{"id":%d}}}}}}}}\\n'
for number in range(int(open("blocks.txt").read())):
    write(records + state % number)
"""


def own_processes(root: int, plugins: Sequence[bytes] = PLUGINS) -> Iterator[int]:
    """The process and those below it that are no plugins (nor below one): no word of their command line is one's."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                # The name in parentheses may hold blanks.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    todo = [root]
    while todo:
        pid = todo.pop()
        with suppress(OSError):
            if not any(name in Path(f"/proc/{pid}/cmdline").read_bytes() for name in plugins):
                yield pid
                todo += children.get(pid, [])


def resident(pid: int) -> tuple[int, int]:
    """Bytes resident now, and at most so far."""
    with suppress(OSError, IndexError, StopIteration):
        now = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024
        return now, peak
    return 0, 0


def watch(process: subprocess.Popen[bytes]) -> tuple[list[float], int, int]:
    """Samples in MB over the run, the highest sum of peaks, and the most processes at once."""
    samples: list[float] = []
    highest, most = 0, 0
    while process.poll() is None:
        processes = [resident(pid) for pid in own_processes(process.pid)]
        samples.append(sum(now for now, _ in processes) / 1e6)
        highest = max(highest, *(peak for _, peak in processes), 0)
        most = max(most, len(processes))
        time.sleep(SAMPLE_SECONDS)
    return samples, highest, most


def measure(options: Options, lane: str) -> list[Result]:
    """One run in one lane."""
    transformer = {"raw": None, "rows": ROWS, "arrow": ARROW}[lane]
    project = Project(options.work / f"memory_{lane}", tap=TAP, transformer=transformer)
    (project.folder / "schema.jsonl").write_bytes(schema_message())
    (project.folder / "records.jsonl").write_bytes(b"".join(record_message(n) for n in range(STATE_EVERY)))
    (project.folder / "blocks.txt").write_text(str(options.records // STATE_EVERY))
    started = time.perf_counter()
    process = project.start()
    samples, highest, most = watch(process)
    seconds = time.perf_counter() - started
    if process.returncode or project.lines() < options.records:
        raise SystemExit((project.folder / "output.txt").read_text(errors="replace")[-4000:])
    quarter = len(samples) // 4
    growth = max(samples[3 * quarter :]) - max(samples[quarter : 2 * quarter])
    details = {"processes": str(most), "seconds": f"{seconds:.1f} ({options.records / seconds:,.0f} records a second)"}
    bar = BARS[lane]
    return [
        Result(f"peak memory, {lane}", max(*samples, highest / 1e6), "MB", bar=bar, at_most=True, details=details),
        Result(f"its growth, {lane}", growth, "MB", bar=bar / 10, at_most=True),
    ]


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=10_000_000, rounds=1)
    results = []
    for lane in BARS:
        results += measure(options, lane)
    finish(options, *results)


if __name__ == "__main__":
    main()
