"""The command `target-files`."""

from __future__ import annotations

from collections.abc import Sequence

from kit.connector import Arguments, Config, ConfigError, Connector, Setting, run

CONNECTOR = Connector(
    name="target-files",
    description="Writes each stream into a folder of JSONL, CSV or Parquet files; files once visible never change.",
    capabilities=("about", "activate-version", "held-versions", "missing-tables"),
    load_methods=("append", "replace"),
    settings=(
        Setting("path", "string", "the folder of the streams' folders; created if it does not exist", required=True),
        Setting(
            "format",
            "string",
            "jsonl: records, byte for byte as received; csv: a header in each file, an empty text is quoted and a "
            "null is not; parquet: typed columns",
            default="jsonl",
            choices=("jsonl", "csv", "parquet"),
        ),
        Setting(
            "compression",
            "string",
            "jsonl and csv: none (default) or gzip; parquet: snappy (default), zstd, gzip or none",
            choices=("none", "gzip", "snappy", "zstd"),
        ),
        Setting(
            "load_method",
            "string",
            "append: files are added; replace: the files of this run replace those of earlier ones when the input ends",
            default="append",
            choices=("append", "replace"),
        ),
        Setting(
            "streams",
            "object",
            "settings by stream name: destination_table (its folder's name), load_method",
            default={},
        ),
        Setting("batch_rows", "integer", "rows after which files are closed", default=1_000_000, minimum=1),
        Setting("flush_seconds", "number", "age of the oldest row at which files are closed", default=30, minimum=0),
    ),
    max_processes=8,
)


def main(argv: Sequence[str]) -> int:
    """Run the target; return its exit code."""
    return run(CONNECTOR, argv, _work, tap=False, missing=_missing)


def _work(config: Config, args: Arguments) -> None:
    if config["format"] != "parquet" and config["compression"] not in (None, "none", "gzip"):
        raise ConfigError(f"compression {config['compression']} works with parquet only", "use gzip or none")
    from ..common.runner import Runner
    from ..common.streams import StreamSettings
    from .sink import FilesSink

    sink = FilesSink(config, StreamSettings(config, upsert=False))
    try:
        Runner(sink, batch_rows=config["batch_rows"], flush_seconds=config["flush_seconds"]).run()
    finally:
        sink.close()


def _missing(config: Config, tables: Sequence[str]) -> list[str]:
    from pathlib import Path

    from .folder import folder_name

    return [table for table in tables if not (Path(config["path"]) / folder_name(table)).is_dir()]
