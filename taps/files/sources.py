"""Which files make which streams."""

from __future__ import annotations

import codecs
import contextlib
import glob
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kit.connector import Config, ConfigError, Connector, ConnectorError, log

from .__main__ import PER_STREAM
from .reading import members

_ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
_NAMED = 10
_ONE = Connector("tap-files", "one of 'streams'", (), PER_STREAM)


class Source(NamedTuple):
    """One stream's files and how to read them."""

    stream: str
    format: str
    files: list[Path]
    options: Config

    @property
    def delimiter(self) -> str:
        """Of CSV files."""
        configured: str | None = self.options["delimiter"]
        return configured or ("\t" if _ending(self.files[0]) == ".tsv" else ",")


def sources(config: Config) -> tuple[dict[str, Source], dict[str, ConnectorError]]:
    """Return the streams that the config describes by name, and why others cannot be read.

    Raises:
        ConfigError: a setting is wrong, or there is no stream.
    """
    shared = {setting.name: config[setting.name] for setting in PER_STREAM}
    if config["streams"]:
        wholes = [_ONE.config({**shared, **_object(stream_config)}) for stream_config in config["streams"]]
    else:
        wholes = [shared]
    by_stream: dict[str, Source] = {}
    failed: dict[str, ConnectorError] = {}
    left_out: list[str] = []
    for options in wholes:
        _check(options)
        try:
            files = list(_files(options))
        except ConnectorError as error:
            failed[options["stream"] or _stem(Path(options["path"]))] = error
            continue
        for stream, path in files:
            format_ = _format(path, options["format"])
            if format_ is None:
                left_out.append(str(path))
                continue
            known = by_stream.setdefault(stream, Source(stream, format_, [], options))
            if known.format != format_ or known.options is not options:
                where = f"{known.files[0]} and {path}"
                failed[stream] = ConfigError(
                    f"{where} belong to stream {stream!r} but differ in format or options",
                    "give each a stream name with 'stream'",
                )
            known.files.append(path)
    readable = {stream: by_stream[stream] for stream in sorted(by_stream) if stream not in failed}
    if not readable:
        raise next(iter(failed.values()), None) or ConfigError(
            f"no CSV, JSONL or Parquet files in {config['path']}", "set 'format' if the file names have other endings"
        )
    if left_out:
        named = ", ".join(left_out[:_NAMED]) + (", …" if len(left_out) > _NAMED else "")
        log("WARNING", f"{len(left_out)} files skipped, their suffix is not CSV, JSONL or Parquet: {named}")
    return readable, failed


def _check(options: Config) -> None:
    if not options["path"]:
        raise ConfigError("setting 'path' is missing", "a file, a folder or a glob")
    for name in ("delimiter", "quote_char"):
        if options[name] is not None and (len(options[name]) != 1 or options[name] in "\r\n"):
            raise ConfigError(f"setting {name!r} is {options[name]!r}", "it must be one character")
    try:
        codecs.lookup(options["encoding"])
    except LookupError:
        raise ConfigError(f"setting 'encoding' is {options['encoding']!r}", "Python has no such encoding") from None


def _object(stream_config: Any) -> dict[str, Any]:
    if not isinstance(stream_config, dict):
        raise ConfigError(f"setting 'streams' contains {stream_config!r}", "it must be a list of objects")
    return {key: value for key, value in stream_config.items() if value is not None}


def _files(options: Config) -> Iterator[tuple[str, Path]]:
    """Yield each file with its stream's name, in the order of names."""
    pattern: str = options["path"]
    name: str | None = options["stream"]
    path = Path(pattern)
    if path.is_dir():
        for file in _walk(path):
            inside = file.relative_to(path).parts
            yield name or (inside[0] if len(inside) > 1 else _stem(file)), file
        return
    if path.is_file():
        files = [path]
    else:
        files = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 (takes absolute ones)
        files = [file for file in files if file.is_file()]
    if not files:
        raise ConfigError(f"no file matches {pattern}", f"setting 'path' is relative to {Path.cwd()}")
    for file in files:
        if options["format"] == "auto" and _ending(file) not in _ENDINGS and len(files) == 1:
            raise ConfigError(f"{file}: cannot tell the format from the file name", "set 'format'")
        yield name or _stem(file), file


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the folder's files, except hidden ones and names that begin with `_`: these are unfinished or metadata."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        for name in sorted(files):
            if name[0] not in "._":
                yield Path(parent, name)


def _data_name(path: Path) -> str:
    """Return the file's name without its compression suffix; for a zip file with one file, that file's name."""
    stem, ending = os.path.splitext(path.name)  # noqa: PTH122 (a name, not a path)
    if ending.lower() not in _COMPRESSED:
        return path.name
    if ending.lower() == ".zip" and _ending_of(stem) not in _ENDINGS:
        with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            names = members(archive)
            if len(names) == 1:
                return stem + _ending_of(names[0])
    return stem


def _ending_of(name: str) -> str:
    return os.path.splitext(name.lower())[1]  # noqa: PTH122 (a name, not a path)


def _ending(path: Path) -> str:
    return _ending_of(_data_name(path))


def _stem(path: Path) -> str:
    name = _data_name(path)
    return os.path.splitext(name)[0] or name  # noqa: PTH122 (a name, not a path)


def _format(path: Path, asked: str) -> str | None:
    return _ENDINGS.get(_ending(path)) if asked == "auto" else asked
