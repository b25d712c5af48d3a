"""What a folder with a block's output holds: `manifest.json`, written last, names every other file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

NAME = "manifest.json"
VERSION = 2

Form: TypeAlias = Literal["none", "single", "tuple", "chunks"]


class StoredValue(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One value in files.

    Args:
        file: its main file, relative to the folder; empty where `parts` or `value` hold everything.
        codec: how it reads back: `pandas`, `pandas_series`, `polars`, `polars_series`, `arrow`, `arrow_batch`
            (Parquet, or Arrow's IPC where Parquet has no such type: the file's ending says which), `json`, `pickle`,
            `list` and `dict` (of tables, one by one in `parts`), `streams` (of a source block, one by one in `parts`:
            `stream`, with its catalog entry as `value` and its files as `parts`).
        rows: rows of a table, elements of a list.
        columns: names of a table's columns, as they stand in its file.
        types: their Arrow types, where the file holds the whole table and nothing has to be converted.
        parts: further values that belong to it: the elements of a list or dict, what is pickled beside a frame's file.
        keys: of a dict: its keys.
        value: a small JSON value itself: a file less for each of a thousand children.
    """

    file: str = ""
    codec: str
    rows: int | None = None
    columns: list[str] | None = None
    types: list[str] | None = None
    parts: list[StoredValue] = []
    keys: list[str] | None = None
    value: msgspec.Raw = msgspec.Raw()


class Manifest(msgspec.Struct, kw_only=True):
    """What a block returned.

    Args:
        version: of this format.
        form: `none` (None was returned), `single`, `tuple`, or `chunks` (of a generator).
        outputs: the value, or each of the tuple or generator.
        written_at: when, ISO 8601, UTC.
    """

    version: int = VERSION
    run_id: str
    form: Form
    outputs: list[StoredValue]
    written_at: str


encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Manifest)


def decode(data: bytes) -> Manifest:
    """Parse a manifest.

    Raises:
        msgspec.DecodeError: it is not a manifest, or of another version.
    """
    manifest = _decoder.decode(data)
    if manifest.version != VERSION:
        raise msgspec.ValidationError(f"unknown manifest version {manifest.version}")
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder; None if there is no complete manifest.

    An output that its manifest holds whole can be the manifest alone, a file in the folder's place.
    """
    try:
        descriptor = os.open(f"{folder}/{NAME}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
    with open(descriptor, "rb") as file:
        data = file.read()
    try:
        return decode(data)
    except msgspec.DecodeError:
        return None


def summary(manifest: Manifest) -> list[dict[str, Any]]:
    """Return name, kind and rows of each output and each stream; a generator's chunks are one."""
    if manifest.form == "chunks":
        rows = [chunk.rows for chunk in manifest.outputs]
        total = sum(count or 0 for count in rows) if None not in rows else None
        return [{"name": "output", "kind": f"{len(rows):,} chunk{'' if len(rows) == 1 else 's'}", "rows": total}]
    if manifest.form == "single" and manifest.outputs[0].codec == "streams":
        streams = manifest.outputs[0].parts
        return [
            {"name": msgspec.json.decode(stream.value)["stream"], "kind": "stream", "rows": stream.rows}
            for stream in streams
        ]
    return [
        {"name": f"output_{number}", "kind": output.codec, "rows": output.rows}
        for number, output in enumerate(manifest.outputs)
    ]
