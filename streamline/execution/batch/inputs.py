"""What a block is given: the stored outputs of its upstream blocks, read when it asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.execution.batch.task import InputRef

if TYPE_CHECKING:
    import pyarrow as pa

    from streamline.blocks.call import Input
    from streamline.outputs.dynamic import Items
    from streamline.outputs.store import Output


def open_input(ref: InputRef) -> Input:
    """The input that `ref` names; nothing is read yet."""
    return Gathered(ref) if ref.parts is not None else One(ref)


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
            return _items(self.ref).get(self.ref.item)
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
        if self.ref.item is not None:
            from streamline.outputs.store import unpack

            return unpack_value(self.value(), unpack)
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
        import pyarrow as pa

        return pa.concat_tables([part.table() for part in self._parts], promote_options="permissive")

    def parquet(self) -> list[Path] | None:
        found: list[Path] = []
        for part in self._parts:
            files = part.parquet()
            if files is None:
                return None
            found += files
        return found or None
