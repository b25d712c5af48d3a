"""The command `tap-files`."""

from __future__ import annotations

from collections.abc import Sequence

from kit.connector import Arguments, Config, Connector, Setting, run

FORMATS = ("auto", "csv", "jsonl", "parquet")

PER_STREAM = (
    Setting(
        "path",
        "string",
        "a file, a folder or a glob (** goes through folders). A folder's files are streams by their names, "
        "its sub-folders one stream each; files of a glob are streams by their names, or one if 'stream' names it",
    ),
    Setting("stream", "string", "the name of the one stream that all files of 'path' make"),
    Setting(
        "format", "string", "auto: by the file's ending, .gz, .bz2, .xz and .zip aside", default="auto", choices=FORMATS
    ),
    Setting("key_properties", "array", "the columns that are a row's key; files name none", default=[], items="string"),
    Setting("delimiter", "string", "CSV: between cells; left out: a tab for .tsv, else a comma"),
    Setting("quote_char", "string", "CSV: around cells that hold delimiters or lines", default='"'),
    Setting("header", "boolean", "CSV: the first row names the columns", default=True),
    Setting(
        "columns",
        "array",
        "CSV: names of the columns, in place of the header's or of column_1, column_2, …",
        items="string",
    ),
    Setting(
        "skip_rows", "integer", "CSV: lines before the header, or the first row, to pass over", default=0, minimum=0
    ),
    Setting("null_values", "array", "CSV: cells that mean no value", default=[""], items="string"),
    Setting("encoding", "string", "of CSV and JSONL files", default="utf-8-sig"),
    Setting(
        "on_bad_line",
        "string",
        "CSV and JSONL, a line that is broken: fail, or skip it with a warning",
        default="fail",
        choices=("fail", "skip"),
    ),
    Setting(
        "sample_rows",
        "integer",
        "rows of a stream that discovery infers types from, 0 for all. A later value that does not fit is sent as it "
        "is, after a SCHEMA whose column takes it too",
        default=10_000,
        minimum=0,
    ),
)

CONNECTOR = Connector(
    name="tap-files",
    description="Reads CSV, JSONL and Parquet files, also compressed ones.",
    capabilities=("about", "catalog", "discover", "properties", "state", "multiple-bookmarks", "activate-version"),
    settings=(
        *PER_STREAM,
        Setting(
            "streams",
            "array",
            "several sources: objects with the settings above, which hold for one of them",
            items="object",
        ),
        Setting("state_interval", "integer", "records between two STATEs", default=10_000, minimum=1),
    ),
)


def main(argv: Sequence[str]) -> int:
    """Run the tap; return its exit code."""
    return run(CONNECTOR, argv, _work, tap=True)


def _work(config: Config, args: Arguments) -> None:
    from .tap import work

    work(config, args)
