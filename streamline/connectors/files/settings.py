"""Settings of sources that read files or the standard input."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from streamline.connectors.files.records import FORMATS, Format
from streamline.connectors.setting_kinds import (
    Kinds,
    Settings,
    WrongValueError,
    choice,
    flag,
    read_settings,
    seconds,
    text,
    texts,
    whole,
)
from streamline.connectors.stream_connector import Config, StreamContext, Where


def _delimiter(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 1 or value in '\r\n"':
        raise WrongValueError("must be one character")
    return value


RECORD_KINDS: Kinds = {
    "format": choice(*FORMATS),
    "delimiter": _delimiter,
    "columns": texts,
    "max_record_bytes": whole(1),
    "batch_size": whole(1),
    "include_metadata": flag,
}
_FILE_KINDS: Kinds = {
    **RECORD_KINDS,
    "path": text,
    "read": choice("tail", "whole"),
    "start": choice("beginning", "end"),
    "settle": seconds(),
    "poll_interval": seconds(0.01),
}


class RecordSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How bytes become messages.

    Args:
        columns: of CSV without a first row that names them.
        max_record_bytes: a longer record is an error.
    """

    format: Format = "json"
    delimiter: str = ","
    columns: tuple[str, ...] | None = None
    max_record_bytes: int = 16 << 20
    batch_size: int = 1_000
    include_metadata: bool = False


class FileSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a source of files reads.

    Args:
        path: a file, a folder, or a glob.
        settle: seconds without a change after which a file is complete, so that a last line without an end is a
            message; None: such a line waits for its end.
        from_end: of files that are there when the pipeline runs for the first time, read only what is added.
        poll_interval: seconds between two looks at the files.
    """

    path: Path
    records: RecordSettings
    settle: float | None = None
    from_end: bool = False
    poll_interval: float = 1.0


def record_settings(given: Settings) -> RecordSettings:
    """Return the settings of records.

    Raises:
        ConfigError: one has no effect with the others.
    """
    if given.get("format", "json") != "csv":
        for key in ("delimiter", "columns"):
            if key in given:
                given.fail(f"`{key}` has no effect without `format: csv`", key, hint="remove it, or set the format")
    return RecordSettings(**{key: given[key] for key in RECORD_KINDS if key in given})


def file_settings(config: Config, context: StreamContext, where: Where) -> FileSettings:
    """Read and check the settings of a source of files.

    Raises:
        ConfigError: one is missing or invalid.
    """
    given = read_settings(config, _FILE_KINDS, where, what="a source of files")
    path = context.root / Path(given.need("path", "a file, a folder, or a pattern such as logs/*.jsonl")).expanduser()
    read: Literal["tail", "whole"] = given.get("read", "whole" if path.is_dir() else "tail")
    if read == "tail" and "settle" in given:
        given.fail("`settle` has no effect with `read: tail`", "settle", hint="remove it, or write `read: whole`")
    return FileSettings(
        path=path,
        records=record_settings(given),
        settle=given.get("settle", 1.0) if read == "whole" else None,
        from_end=given.get("start") == "end",
        poll_interval=given.get("poll_interval", 1.0),
    )
