"""The command `tap-files`."""

from __future__ import annotations

from collections.abc import Sequence

from kit.connector import Arguments, Config, Connector, Setting, run

FORMATS = ("auto", "csv", "jsonl", "parquet")

PER_STREAM = (
    Setting(
        "path",
        "string",
        "a file, a folder or a glob (** goes through folders). In a folder, each file and each "
        "sub-folder is a stream; of a glob, each file is a stream, or all files are the stream that 'stream' names",
    ),
    Setting("stream", "string", "the name of the stream to read all files of 'path' into"),
    Setting(
        "format", "string", "auto: by the file's suffix before .gz, .bz2, .xz or .zip", default="auto", choices=FORMATS
    ),
    Setting("key_properties", "array", "the columns that are a row's key; files name none", default=[], items="string"),
    Setting("delimiter", "string", "CSV: the separator of cells; default: a tab for .tsv, else a comma"),
    Setting("quote_char", "string", "CSV: the quote around cells that contain delimiters or newlines", default='"'),
    Setting("header", "boolean", "CSV: the first row names the columns", default=True),
    Setting(
        "columns",
        "array",
        "CSV: names of the columns, in place of the header's or of column_1, column_2, …",
        items="string",
    ),
    Setting(
        "skip_rows", "integer", "CSV: lines before the header, or before the first row, to skip", default=0, minimum=0
    ),
    Setting("null_values", "array", "CSV: cells that are read as null", default=[""], items="string"),
    Setting("encoding", "string", "the encoding of CSV and JSONL files", default="utf-8-sig"),
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
        "number of rows from which discovery infers types, 0 for all. A later value that does not fit is sent "
        "unchanged, after a SCHEMA with a wider type",
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
            "several sources: objects with the settings above, each for one source",
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
