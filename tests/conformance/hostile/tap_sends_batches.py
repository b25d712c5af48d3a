"""Sends its rows as files: BATCH messages in the `dialect` of the Singer SDK (`sdk`: a manifest of URLs) or
of pipelinewise-singer-python (`pipelinewise`: a file path), plain or `gzip`.

`folder`: where it writes the files; without it, beside its own config file, which is in the run's private
folder.

Who: SDK taps with `batch_config`; PipelineWise's tap-mongodb, tap-kafka, tap-snowflake. The two dialects
exclude each other, and most targets know neither.

Wanted: passed on where the target takes it, else read and sent as records; files go after the proof, but only
those in the run's own folder.
"""

from __future__ import annotations

import gzip
import os

from _singer import Tap, stream
from _text import dumps


def main() -> None:
    """Send two files of 10 rows and 5 rows as records."""
    tap = Tap()
    tap.offer(stream("numbers", {"id": "integer", "text": "string"}, replication_key="id"))
    folder = tap.config.get("folder") or os.path.dirname(tap.given["config"])  # noqa: PTH120
    folder = os.path.abspath(folder)  # noqa: PTH100
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    zipped = tap.config.get("compression") == "gzip"
    tap.schema("numbers")
    start = tap.bookmark("numbers").get("replication_key_value", 0)
    for part in range(2 if start == 0 else 0):
        path = f"{folder}/part-{part}.jsonl" + (".gz" if zipped else "")
        rows = [{"id": n, "text": f"text {n}"} for n in range(part * 10 + 1, part * 10 + 11)]
        with (gzip.open if zipped else open)(path, "wt", encoding="utf-8") as file:
            file.writelines(dumps(row) + "\n" for row in rows)
        compression = "gzip" if zipped else "none"
        if tap.config["dialect"] == "sdk":
            encoding = {"format": "jsonl", "compression": compression}
            tap.message(type="BATCH", stream="numbers", encoding=encoding, manifest=[f"file://{path}"])
        else:
            more = {"compression": "gzip"} if zipped else {}
            tap.message(type="BATCH", stream="numbers", filepath=path, format="jsonl", batch_size=10, **more)
        last = rows[-1]["id"]
        tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": last}}})
    for n in range(max(start, 20) + 1, 26):
        tap.record("numbers", {"id": n, "text": f"text {n}"})
    tap.state({"bookmarks": {"numbers": {"replication_key": "id", "replication_key_value": 25}}})


main()
