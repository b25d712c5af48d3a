"""What the benchmarks of batch pipelines share: a project of blocks, and plain scripts to compare with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import streamline_command

SAMPLE_SECONDS = 0.02

FRAME = """\
import numpy as np
import pandas as pd


def frame(rows: int, seed: int = 1) -> pd.DataFrame:
    # Eight columns: whole numbers, a flag, prices, short and longer text, a time.
    dice = np.random.default_rng(seed)
    number = np.arange(rows)
    return pd.DataFrame(
        {
            "id": number,
            "customer": dice.integers(0, rows // 10, rows),
            "paid": dice.random(rows) < 0.5,
            "price": dice.random(rows) * 100,
            "weight": dice.random(rows),
            "status": pd.Series(np.array(["open", "packed", "shipped"])[number % 3], dtype="str"),
            "note": pd.Series("order " + pd.Series(number % 99991).astype("str"), dtype="str"),
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(number % 10_000_000, unit="s"),
        }
    )
"""


class BatchProject:
    """A project with one batch pipeline `demo`.

    Args:
        folder: made anew.
        blocks: entries of metadata.yaml.
        files: texts by path.
    """

    def __init__(self, folder: Path, blocks: Sequence[Mapping[str, Any]], files: Mapping[str, str]) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        metadata = {"name": "demo", "type": "python", "blocks": list(blocks)}
        # JSON is YAML.
        texts = {"streamline.yaml": "name: benchmark\n", "pipelines/demo/metadata.yaml": json.dumps(metadata), **files}
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))

    @property
    def data(self) -> Path:
        """Where the outputs stand."""
        return self.folder / ".streamline" / "data" / "demo"

    def run(self, *arguments: str) -> float:
        """Seconds that `streamline run demo` takes."""
        return self.time([*streamline_command(), "run", "demo", *arguments])

    def script(self, name: str, *arguments: str) -> float:
        """Seconds that a Python script of the project takes."""
        return self.time([sys.executable, name, *arguments])

    def time(self, command: Sequence[str]) -> float:
        """Seconds that a command takes.

        Raises:
            SystemExit: it failed; its output is printed.
        """
        return self.watch(command, memory=False)[0]

    def watch(self, command: Sequence[str], *, memory: bool = True) -> tuple[float, float]:
        """Seconds that a command takes, and the most memory (MB) that it and what it started held at once.

        Pages that several processes share count once (PSS).
        """
        output = self.folder / "output.txt"
        peak = 0.0
        with output.open("wb") as file:
            started = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
            while memory and process.poll() is None:
                peak = max(peak, sum(map(proportional, below(process.pid))) / 1e6)
                time.sleep(SAMPLE_SECONDS)
            process.wait()
            seconds = time.perf_counter() - started
        if process.returncode:
            sys.exit(
                f"{' '.join(command)} ended with {process.returncode}:\n{output.read_text(errors='replace')[-4000:]}"
            )
        return seconds, peak


def below(root: int) -> list[int]:
    """A process and all that it started, directly or not."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    pids, todo = [], [root]
    while todo:
        pid = todo.pop()
        pids.append(pid)
        todo += children.get(pid, [])
    return pids


def proportional(pid: int) -> int:
    """Bytes that a process holds, its part of shared pages."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
    return 0
