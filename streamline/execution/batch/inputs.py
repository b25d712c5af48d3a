"""What a block is given: the stored outputs of its upstream blocks, read when it asks for them."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.errors import StreamlineError
from streamline.execution.batch.task import InputRef
from streamline.outputs.dynamic import Items, items_of
from streamline.outputs.output import Output, open_output, unpack

if TYPE_CHECKING:
    import pyarrow as pa

    from streamline.blocks.call import Input


def open_input(ref: InputRef) -> Input:
    """The input that `ref` names; nothing is read yet."""
    return Gathered(ref) if ref.parts is not None else One(ref)


def item_metadata(ref: InputRef) -> dict[str, Any]:
    """What a dynamic block's output says about the item that `ref` names."""
    return copy.deepcopy(_items(ref).metadata(ref.item)) if ref.item is not None else {}


class One:
    """The output of one call of a block, or one item of it.

    What comes back is new each time: a block that changes what it was given changes nothing for another.
    """

    def __init__(self, ref: InputRef) -> None:
        self.ref = ref
        self.uuid = ref.block
        self.type = ref.type

    def value(self) -> Any:
        if self.ref.item is not None:
            # Text and numbers are their own copies; the list that they come from is kept for the other children.
            return copy.deepcopy(_items(self.ref).get(self.ref.item))
        value = _open(self.ref).value()
        # What a child hands on as a list of one thing is that thing: the reference product's children write `[frame]`.
        if self.ref.child and type(value) is list and len(value) == 1:
            return value[0]
        return value

    def values(self) -> list[Any]:
        return _open(self.ref).values() if self.count() > 1 else [self.value()]

    def count(self) -> int:
        return 1 if self.ref.item is not None else _open(self.ref).count()

    def table(self) -> pa.Table:
        if self.ref.item is not None or self.ref.child:
            from streamline.outputs.tables import to_table

            value = self.value()
            return to_table([value] if self.ref.item is not None and isinstance(value, dict) else value)
        return _open(self.ref).table()

    def parquet(self) -> list[Path] | None:
        return None if self.ref.item is not None else _open(self.ref).parquet()


class Gathered:
    """The outputs of a block's children, as one list."""

    def __init__(self, ref: InputRef) -> None:
        assert ref.parts is not None
        self.uuid = ref.block
        self.type = ref.type
        self._parts = [One(part) for part in ref.parts]

    def value(self) -> Any:
        return [part.value() for part in self._parts]

    def values(self) -> list[Any]:
        return [self.value()]

    def count(self) -> int:
        return 1

    def table(self) -> pa.Table:
        from streamline.outputs.tables import concatenated

        return concatenated([part.table() for part in self._parts])

    def parquet(self) -> list[Path] | None:
        found: list[Path] = []
        for part in self._parts:
            files = part.parquet()
            if files is None:
                return None
            found += files
        return found or None


def _open(ref: InputRef) -> Output:
    if ref.inline is not None:
        return unpack(ref.inline)
    assert ref.folder is not None
    output = open_output(Path(ref.folder))
    if ref.run_id is not None and output.manifest.run_id != ref.run_id:
        raise StreamlineError(
            f"the stored output of '{ref.block}' is another run's ({output.manifest.run_id}), not this one's",
            where=ref.folder,
            hint="something else has written there; run the pipeline again",
        )
    return output


def _items(ref: InputRef) -> Items:
    # One list is met by each of its children; another run's may stand in the same place.
    return _items_of(ref.folder, ref.inline, _writer(ref))


def _writer(ref: InputRef) -> str:
    return _open(ref).manifest.run_id if ref.folder is not None and ref.run_id is None else ref.run_id or ""


@functools.lru_cache(maxsize=2)
def _items_of(folder: str | None, inline: bytes | None, run_id: str) -> Items:
    output = unpack(inline) if inline is not None else open_output(Path(folder or ""))
    return items_of(output)
