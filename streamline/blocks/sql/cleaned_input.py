"""Clean the names of columns in upstream data, as Mage does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.pipeline.reader import load_pipeline

if TYPE_CHECKING:
    import pyarrow as pa

    from streamline.blocks.call import BlockCall, Input
    from streamline.outputs.frames import Frames
    from streamline.outputs.streams import StoredStream


def cleaned_inputs(call: BlockCall, allow_reserved_words: bool) -> list[Input]:
    """Return the call's inputs with cleaned names. What SQL blocks selected keeps its names."""
    blocks = load_pipeline(call.project, call.pipeline).blocks
    languages = {uuid: block.language for uuid, block in blocks.items()}
    return [
        given if languages.get(given.uuid) == "sql" else CleanedInput(given, allow_reserved_words)
        for given in call.inputs
    ]


class CleanedInput:
    """An input whose table has cleaned column names: `Boxes Shipped` is `boxes_shipped`, `order` is `_order`.

    Args:
        given: the input.
        allow_reserved_words: names may be reserved words of SQL.
    """

    def __init__(self, given: Input, allow_reserved_words: bool) -> None:
        self._given = given
        self._allow_reserved_words = allow_reserved_words
        self.uuid = given.uuid
        self.type = given.type

    def value(self, frames: Frames | None = None) -> Any:
        return self._given.value(frames)

    def values(self) -> list[Any]:
        return self._given.values()

    def count(self) -> int:
        return self._given.count()

    def table(self) -> pa.Table:
        from streamline.io.table_export import cleaned_as_in_mage

        return cleaned_as_in_mage(self._given.table(), allow_reserved_words=self._allow_reserved_words)

    def streams(self) -> list[StoredStream] | None:
        return self._given.streams()

    def parquet(self) -> list[Path] | None:
        import pyarrow.parquet as pq

        from streamline.io.table_export import cleaned_as_in_mage

        files = self._given.parquet() or []
        empty = [pq.read_schema(file).empty_table() for file in files]
        clean = [cleaned_as_in_mage(table, allow_reserved_words=self._allow_reserved_words) for table in empty]
        return files if files and [t.column_names for t in empty] == [t.column_names for t in clean] else None
