"""What a source or destination block of a batch pipeline asks for, once its upstream outputs are known.

A worker process works it out, because that runs the user's code; the flow that it describes runs elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from streamline.blocks.connector.spec import DestinationSpec, SourceSpec


class PreparedSource(msgspec.Struct, kw_only=True):
    """A source block.

    Args:
        spec: what it reads, rendered; of JSON values only.
        catalog: a Singer catalog that is laid over what the tap discovers and the block's catalog.json; None: none.
        discovered: the catalog that the tap has discovered for this block in this run; None: it was not asked.
        key: of a child of a dynamic block: what its positions are kept under, beside the block's uuid.
        catalog_where: `file:line` of what says `catalog`.
    """

    spec: SourceSpec
    catalog: dict[str, Any] | None = None
    discovered: dict[str, Any] | None = None
    key: str | None = None
    catalog_where: str = ""


class ExportedStream(msgspec.Struct, kw_only=True):
    """A stream that a destination block exports, in Parquet files.

    Args:
        stream: its name.
        schema: its JSON Schema.
        files: in the order of their rows. They are only read.
        key_properties, replication_method: as it was read from a source; a table of a block has none.
    """

    stream: str
    schema: dict[str, Any]
    files: list[Path]
    key_properties: list[str] = []
    replication_method: str | None = None


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream output that a destination block exports.

    Args:
        index: its number among the block's inputs.
        block: the upstream block.
        streams: the streams of it that are exported; None: all.
        live: it comes as it is read, by a source that has nothing else downstream.
        exported: what it comes to, once its output was read.
        where: `file:line` of what says so, for errors.
    """

    index: int
    block: str
    streams: list[str] | None = None
    live: bool = False
    exported: list[ExportedStream] = []
    where: str | None = None


class PreparedDestination(msgspec.Struct, kw_only=True):
    """A destination block.

    Args:
        spec: where it writes, rendered; of JSON values only.
        exports: the upstream outputs that it writes.
        catalog: a Singer catalog whose entries override the streams' schemas and settings; None: none.
        catalog_where: the file, or `file:line`, of what says `catalog`.
    """

    spec: DestinationSpec
    exports: list[Export]
    catalog: dict[str, Any] | None = None
    catalog_where: str = ""


Prepared: TypeAlias = PreparedSource | PreparedDestination
