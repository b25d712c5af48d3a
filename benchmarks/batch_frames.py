"""Three blocks over a DataFrame of 5,000,000 rows and 8 columns, time and peak memory, against a script that calls the
same functions and writes and reads Parquet files with the same settings between them.
"""

from __future__ import annotations

import statistics
import sys

from batch import FRAME, BatchProject
from common import Options, Result, finish, streamline_command

LOAD = """\
from bench_frame import frame
{}
def load(*args, **kwargs):
    return frame({rows})
"""
CHANGE = """\
{}
def change(orders, *args, **kwargs):
    return orders[orders["paid"]].assign(gross=lambda rows: rows["price"] * 1.21)
"""
GROUP = """\
{}
def group(orders, *args, **kwargs):
    return orders.sort_values("price")
"""
SCRIPT = """\
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from load import load
from change import change
from group import group


def write(frame, path):
    table = pa.Table.from_pandas(frame)
    del frame
    pq.write_table(table, path, compression="snappy")


def read(path):
    return pq.read_table(path).to_pandas(split_blocks=True, self_destruct=True)


write(load(), "a.parquet")
write(change(read("a.parquet")), "b.parquet")
write(group(read("b.parquet")), "c.parquet")
"""


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=5_000_000, rounds=5)
    files = {"bench_frame.py": FRAME, "script.py": SCRIPT}
    blocks, before = [], []
    for name, kind, text in (
        ("load", "data_loader", LOAD),
        ("change", "transformer", CHANGE),
        ("group", "transformer", GROUP),
    ):
        files[f"{name}.py"] = text.format("", rows=options.records)
        head = f"import pandas as pd\n\nfrom streamline.decorators import {kind}\n\n\n@{kind}"
        files[f"{kind}s/{name}.py"] = text.format(head, rows=options.records)
        blocks.append({"uuid": name, "type": kind, "upstream_blocks": before})
        before = [name]
    project = BatchProject(options.work / "batch_frames", blocks, files)
    sides = {
        "script": [sys.executable, "script.py"],
        "streamline": [*streamline_command(), "run", "demo"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peaks: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(options.rounds + 1):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            took, _ = project.watch(sides[name], memory=False)
            _, peak = project.watch(sides[name]) if number in (1, options.rounds) else (0.0, 0.0)
            if number:
                seconds[name].append(took)
                if peak:
                    peaks[name].append(peak)
        options.say(f"round {number}: {seconds} {peaks}")
    time = {name: statistics.median(values) for name, values in seconds.items()}
    peak = {name: statistics.median(values) for name, values in peaks.items()}
    finish(
        options,
        Result(
            "three blocks over a large DataFrame",
            time["streamline"] / time["script"],
            "times the script's seconds",
            bar=1.3,
            at_most=True,
            details={name: f"{value:.2f} s" for name, value in time.items()},
        ),
        Result(
            "their peak memory",
            peak["streamline"] / peak["script"],
            "times the script's",
            bar=1.5,
            at_most=True,
            details={name: f"{value:,.0f} MB" for name, value in peak.items()},
        ),
    )


if __name__ == "__main__":
    main()
