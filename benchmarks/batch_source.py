"""A source block of 1,000,000 RECORDs of about 315 bytes and a pandas transformer behind it: rows a second of the whole
command, and the most memory that the transformer's process held, against the size of its DataFrame.

The tap is `cat`. The transformer takes the rows once as a DataFrame, by its annotation, and once as they come without:
a dict of columns and rows, which it makes a DataFrame of.
"""

from __future__ import annotations

import json

from batch import BatchProject
from common import CAT_TAP, Options, Result, catalog, finish, interleaved

ROW_BAR = 120_000
FRAME = """\
import pandas as pd

from bench_notes import note
from streamline.decorators import transformer


@transformer
def change(orders: pd.DataFrame, *args, **kwargs):
    note(orders)
    return orders.assign(gross=orders["total"] * 1.21)
"""
SHAPE = """\
import pandas as pd

from bench_notes import note
from streamline.decorators import transformer


@transformer
def change(data, *args, **kwargs):
    orders = pd.DataFrame(data["rows"], columns=data["columns"])
    note(orders)
    return orders.assign(gross=orders["total"] * 1.21)
"""
NOTES = """\
import json
from pathlib import Path


def note(frame):
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    size = int(frame.memory_usage(deep=True).sum())
    Path("notes.json").write_text(json.dumps({"rows": len(frame), "size": size, "peak": peak}))
"""


def project(options: Options, name: str, change: str) -> BatchProject:
    """A project with the source block and the transformer."""
    blocks = [
        {"uuid": "load", "type": "data_loader", "language": "yaml"},
        {"uuid": "change", "type": "transformer", "upstream_blocks": ["load"]},
    ]
    files = {
        "streamline.yaml": 'name: benchmark\nplugins:\n  tap-bench: {command: ["sh", "tap.sh"]}\n',
        "tap.sh": CAT_TAP,
        "catalog.json": catalog("orders"),
        "input.path": str(options.input(options.records, 10_000)),
        "bench_notes.py": NOTES,
        "data_loaders/load.yaml": "source: tap-bench\nconfig: {}\n",
        "transformers/change.py": change,
    }
    return BatchProject(options.work / f"batch_source_{name}", blocks, files)


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=1_000_000, rounds=3)
    projects = {"frame": project(options, "frame", FRAME), "rows": project(options, "rows", SHAPE)}
    memory: dict[str, dict[str, int]] = {}

    def run(name: str) -> float:
        seconds = projects[name].run()
        notes = json.loads((projects[name].folder / "notes.json").read_text())
        if notes["rows"] != options.records:
            raise SystemExit(f"{name}: the transformer got {notes['rows']:,} rows of {options.records:,}")
        memory[name] = max(notes, memory.get(name, notes), key=lambda each: each["peak"])
        return seconds

    times = interleaved({name: lambda name=name: run(name) for name in projects}, options.rounds, options.say)
    held = {
        name: f"{found['size'] / 1e6:,.0f} MB, the worker's peak {found['peak'] / 1e6:,.0f} MB"
        for name, found in memory.items()
    }
    finish(
        options,
        Result(
            "source block to a DataFrame",
            options.records / times["frame"].median,
            "rows a second",
            bar=ROW_BAR,
            details={"whole command": str(times["frame"]), "DataFrame": held["frame"]},
        ),
        Result(
            "source block to a dict of rows",
            options.records / times["rows"].median,
            "rows a second",
            bar=ROW_BAR,
            details={"whole command": str(times["rows"]), "DataFrame made of the dict": held["rows"]},
        ),
        Result(
            "peak memory of the DataFrame's worker",
            memory["frame"]["peak"] / memory["frame"]["size"],
            "times the DataFrame",
            bar=2.5,
            at_most=True,
        ),
    )


if __name__ == "__main__":
    main()
