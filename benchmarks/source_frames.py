"""A source block's stored output of 1,000,000 rows and 6 columns as a DataFrame: what a worker's memory peaks at above
what it had before, against the size of the frame.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from common import Options, Result, finish

from streamline.outputs.store import write_output
from streamline.outputs.streams import StreamFiles, Streams

PART_ROWS = 1 << 18
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("customer", pa.string()),
        ("total", pa.float64()),
        ("paid", pa.bool_()),
        ("created_at", pa.timestamp("us", "UTC")),
        ("note", pa.string()),
    ]
)
WORKER = """\
import json, sys, time
from pathlib import Path

import pandas
import pyarrow.parquet

from streamline.outputs.frames import Frames
from streamline.outputs import pandas_frames, stream_frames
from streamline.outputs.store import open_output


def kilobytes(word):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(word)).split()[1])


before, started = kilobytes("VmRSS"), time.perf_counter()
frame = open_output(Path(sys.argv[1])).value(Frames())
seconds, peak = time.perf_counter() - started, kilobytes("VmHWM") - before
size = int(frame.memory_usage(deep=True).sum()) // 1024
print(json.dumps({"rows": len(frame), "size": size, "peak": peak, "seconds": seconds}))
"""


def parts(folder: Path, rows: int) -> Iterator[tuple[Path, int]]:
    """Parquet files with so many orders."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number, first in enumerate(range(0, rows, PART_ROWS)):
        ids = range(first, min(first + PART_ROWS, rows))
        columns = [
            ids,
            [f"customer number {each % 9973}" for each in ids],
            [each % 500 + each % 100 / 100 for each in ids],
            [each % 2 == 1 for each in ids],
            [start + timedelta(seconds=each) for each in ids],
            [f"left at the door of house {each % 77}; ring twice and wait" for each in ids],
        ]
        path = folder / f"{number}.parquet"
        pq.write_table(pa.table(columns, schema=SCHEMA), path)
        yield path, len(ids)


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=1_000_000, rounds=3)
    folder = options.work / "source_frames"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files = list(parts(folder, options.records))
    stream = StreamFiles(stream={"stream": "orders"}, columns=SCHEMA.names, files=files)
    write_output(folder / "output", Streams(streams=[stream]), run_id="r1", secrets_key=lambda: b"")
    command = [sys.executable, "-c", WORKER, str(folder / "output")]
    found = [json.loads(subprocess.check_output(command)) for _ in range(options.rounds)]
    worst = max(found, key=lambda each: each["peak"])
    shutil.rmtree(folder)
    finish(
        options,
        Result(
            "a source block's rows as a DataFrame: peak memory",
            worst["peak"] / worst["size"],
            "times the frame's size",
            bar=2.5,
            at_most=True,
            details={
                "frame": f"{worst['rows']:,} rows, {worst['size'] / 1024:,.0f} MiB",
                "peak": f"{worst['peak'] / 1024:,.0f} MiB",
                "time": f"{min(each['seconds'] for each in found):.2f} s",
            },
        ),
    )


if __name__ == "__main__":
    main()
