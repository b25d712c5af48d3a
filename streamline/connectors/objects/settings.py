"""Settings of sinks that write files into an object store, or a folder."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec

from streamline.connectors.setting_kinds import (
    Kinds,
    Settings,
    WrongValueError,
    choice,
    flag,
    read_settings,
    seconds,
    secret_text,
    text,
    whole,
)
from streamline.connectors.stream_connector import Config, StreamContext, Where

FIELDS = ("stream", "partition", "date")
"""Placeholders of `path`."""

Format: TypeAlias = Literal["jsonl", "parquet"]
FORMATS: Mapping[Format, tuple[str, ...]] = {
    "jsonl": ("none", "gzip", "zstd"),
    "parquet": ("snappy", "gzip", "zstd", "none"),
}
"""Compressions by format; the first is the default."""


def _strftime(value: Any) -> str:
    pattern = text(value)
    try:
        shown = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC).strftime(pattern)
    except ValueError as error:
        raise WrongValueError(f"is no format of dates ({error})") from None
    if "%" not in pattern or not shown.strip("/") or ".." in shown:
        raise WrongValueError(f"is no format of dates: {pattern!r}; for example %Y/%m/%d")
    return pattern


def _path(value: Any) -> str:
    path = text(value).strip("/")
    unknown = [name for name in re.findall(r"\{([^{}]*)\}", path) if name not in FIELDS]
    if unknown or re.sub(r"\{\w+\}", "", path).strip("{}") != re.sub(r"\{\w+\}", "", path):
        raise WrongValueError(f"has placeholders other than {', '.join(f'{{{name}}}' for name in FIELDS)}")
    if ".." in path.split("/"):
        raise WrongValueError("must not have `..` in it")
    return path


SINK_KINDS: Kinds = {
    "url": text,
    "bucket": text,
    "prefix": text,
    "path": _path,
    "format": choice(*FORMATS),
    "compression": choice("none", "gzip", "zstd", "snappy"),
    "max_file_bytes": whole(1),
    "max_file_seconds": seconds(0.01),
    "endpoint_url": text,
    "region_name": text,
    "aws_access_key_id": secret_text,
    "aws_secret_access_key": secret_text,
    "aws_session_token": secret_text,
    "anonymous": flag,
    # Mage's names.
    "file_type": choice(*FORMATS),
    "buffer_size_mb": whole(1),
    "buffer_timeout_seconds": seconds(0.01),
    "date_partition_format": _strftime,
}
_CONNECTION = ("endpoint_url", "region_name", "aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_MAGE = {
    "file_type": "format",
    "buffer_size_mb": "max_file_bytes",
    "buffer_timeout_seconds": "max_file_seconds",
}


class ObjectSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where files go, and how.

    Args:
        bucket: None: they go into a folder.
        base: the prefix of keys in the bucket, or the folder.
        path: of a file's folder below it; may have `{stream}`, `{partition}` and `{date}`.
        date_format: of `{date}`, for `strftime`.
        max_file_bytes: of JSON text, before it is compressed.
        max_file_seconds: from a file's first message to its end.
        connection: of the store, as boto3 names them; what is left out comes from where AWS's own tools look for it.
    """

    bucket: str | None
    base: str
    path: str
    date_format: str
    format: Format = "jsonl"
    compression: str = "none"
    max_file_bytes: int = 64 << 20
    max_file_seconds: float = 60.0
    connection: Mapping[str, str] = {}
    anonymous: bool = False

    @property
    def address(self) -> str:
        """Where files go, for people."""
        if self.bucket is None:
            return self.base
        return f"s3://{self.bucket}/{self.base}".rstrip("/")

    @property
    def extension(self) -> str:
        """Of the names of files."""
        if self.format == "parquet":
            return "parquet"
        return {"gzip": "jsonl.gz", "zstd": "jsonl.zst"}.get(self.compression, "jsonl")


def object_settings(name: str, config: Config, context: StreamContext, where: Where) -> ObjectSettings:
    """Read and check the settings of a sink.

    Args:
        name: of the connector; `amazon_s3` is Mage's, with Mage's default format.

    Raises:
        ConfigError: one is missing or invalid, or two contradict each other.
    """
    given = read_settings(config, SINK_KINDS, where, what=f"a sink '{name}'")
    for mages, ours in _MAGE.items():
        given.refuse_both(ours, mages)
    bucket, base = _place(name, given, context)
    if bucket is None:
        for key in (*_CONNECTION, "anonymous"):
            if key in given:
                given.fail(f"`{key}` has no effect: files go into a folder", key, hint="remove it")
    for key in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"):
        if key in given:
            context.secret(given[key])
    format: Format = given.get("format") or given.get("file_type") or ("parquet" if name == "amazon_s3" else "jsonl")
    compression = given.get("compression", FORMATS[format][0])
    if compression not in FORMATS[format]:
        choices = ", ".join(FORMATS[format])
        given.fail(f"`compression: {compression}` is not possible with {format}", "compression", hint=f"use {choices}")
    path = given.get("path", "{stream}/{date}" if "date_partition_format" in given else "{stream}")
    if "date_partition_format" in given and "{date}" not in path:
        given.fail(
            "`date_partition_format` has no effect: `path` has no {date}",
            "date_partition_format",
            hint="add it to `path`",
        )
    megabytes = given.get("buffer_size_mb")
    return ObjectSettings(
        bucket=bucket,
        base=base,
        path=path,
        date_format=given.get("date_partition_format", "%Y-%m-%d"),
        format=format,
        compression=compression,
        max_file_bytes=megabytes * 1_000_000 if megabytes else given.get("max_file_bytes", 64 << 20),
        max_file_seconds=given.get("max_file_seconds", given.get("buffer_timeout_seconds", 60.0)),
        connection={key: given[key] for key in _CONNECTION if key in given},
        anonymous=given.get("anonymous", False),
    )


def _place(name: str, given: Settings, context: StreamContext) -> tuple[str | None, str]:
    """Return the bucket and the prefix, or the folder."""
    given.refuse_both("url", "bucket")
    if "bucket" in given or name != "objects":
        if "url" not in given:
            return given.need("bucket", "the bucket that files go into"), given.get("prefix", "").strip("/")
    elif "url" not in given:
        given.need("url", "for example s3://bucket/prefix, or a folder")
    if "prefix" in given:
        given.fail("`prefix` has no effect with `url`", "prefix", hint="add it to `url`")
    parts = urlsplit(given["url"])
    if parts.scheme in ("s3", "s3a"):
        if not parts.netloc or parts.query or parts.fragment:
            given.fail("`url` must be s3://bucket/prefix", "url", hint="the connection has keys of its own")
        return parts.netloc, parts.path.strip("/")
    if parts.scheme not in ("", "file") or parts.netloc:
        given.fail(
            "`url` must be s3://bucket/prefix, or a folder", "url", hint="other stores may speak S3: endpoint_url"
        )
    folder = unquote(parts.path) if parts.scheme else given["url"]
    return None, str(context.root / Path(folder).expanduser())
