"""The inputs of a block: the stored outputs of its upstream blocks, read when the block uses them."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import pickle
from collections.abc import Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from streamline.errors import ConfigError, StreamlineError
from streamline.execution.batch.task import InputRef
from streamline.outputs.dynamic import Items, items_of
from streamline.outputs.output import Output, open_output, unpack

if TYPE_CHECKING:
    import pyarrow as pa

    from streamline.blocks.call import Input
    from streamline.outputs.frames import Frames
    from streamline.outputs.streams import StoredStream


def open_input(ref: InputRef, *, mage: bool = False) -> Input:
    """Return the input that `ref` names; nothing is read yet.

    Args:
        mage: a returned list of one value is that value, as in Mage.
    """
    return CombinedInput(ref) if ref.parts is not None else StoredInput(ref, mage=mage)


def item_metadata(ref: InputRef) -> dict[str, Any]:
    """Return the metadata in a dynamic block's output for the item that `ref` names."""
    return copy.deepcopy(_items(ref).metadata(ref.item)) if ref.item is not None else {}


def child_key(items: Sequence[InputRef]) -> str | None:
    """Return what the positions of a child are kept under: the `block_uuid` of its item's metadata, else the item's
    `key`, else a hash of the item; of several items, all of them. Never its number, which changes with other items.

    Args:
        items: of dynamic blocks; None: nothing is known of them.
    """
    keys = []
    for ref in items:
        if ref.item is None:
            continue
        item, metadata = _items(ref).get(ref.item), _items(ref).metadata(ref.item)
        name = metadata.get("block_uuid") or (item.get("key") if isinstance(item, dict) else None)
        known = name is not None and name != ""
        keys.append(str(name) if known else blake2b(_bytes_of(item), digest_size=8).hexdigest())
    return ",".join(keys) or None


def _bytes_of(item: Any) -> bytes:
    """Return bytes that are the same for equal items, in every run."""
    with contextlib.suppress(TypeError, ValueError):
        return json.dumps(item, sort_keys=True, default=_text_of).encode()
    return pickle.dumps(item, protocol=4)


def _text_of(value: Any) -> str:
    if isinstance(value, date | time | timedelta | Decimal | UUID | bytes):
        return repr(value)
    raise TypeError(type(value).__name__)  # others, such as frames, may look alike and differ


class StoredInput:
    """The output of one call of a block, or one item of it.

    Every read returns a new value: a block that changes its input changes nothing for another block.
    """

    def __init__(self, ref: InputRef, *, mage: bool = False) -> None:
        self.ref = ref
        self._mage = mage
        self.uuid = ref.block
        self.type = ref.type

    def value(self, frames: Frames | None = None) -> Any:
        if self.ref.live:
            return None  # an argument that the destination's functions do not read
        if self.ref.item is not None:
            # Copied, because the list of items is kept for the other children.
            return copy.deepcopy(_items(self.ref).get(self.ref.item))
        output = open_ref(self.ref)
        value = output.value(frames)
        # A child's list of one value always is that value: children in Mage return `[frame]`.
        bare = self.ref.child or (self._mage and output.manifest.form != "chunks")
        return value[0] if bare and type(value) is list and len(value) == 1 else value

    def values(self) -> list[Any]:
        return open_ref(self.ref).values() if self.count() > 1 else [self.value()]

    def count(self) -> int:
        return 1 if self.ref.item is not None or self.ref.live else open_ref(self.ref).count()

    def table(self) -> pa.Table:
        if self.ref.item is not None or self.ref.child:
            from streamline.outputs.tables import to_table

            value = self.value()
            return to_table([value] if self.ref.item is not None and isinstance(value, dict) else value)
        return open_ref(self.ref).table()

    def streams(self) -> list[StoredStream] | None:
        return None if self.ref.item is not None else open_ref(self.ref).streams()

    def parquet(self) -> list[Path] | None:
        return None if self.ref.item is not None else open_ref(self.ref).parquet()


class CombinedInput:
    """The outputs of a block's children, as one list."""

    def __init__(self, ref: InputRef) -> None:
        assert ref.parts is not None
        self.uuid = ref.block
        self.type = ref.type
        self._parts = [StoredInput(part) for part in ref.parts]

    def value(self, frames: Frames | None = None) -> Any:
        streams = self.streams() if frames is not None else None
        if frames is None or streams is None:
            return [part.value(frames) for part in self._parts]
        from streamline.outputs.stream_frames import to_frames

        return to_frames(streams, frames)

    def values(self) -> list[Any]:
        return [self.value()]

    def count(self) -> int:
        return 1

    def table(self) -> pa.Table:
        from streamline.outputs.tables import concatenated

        return concatenated([part.table() for part in self._parts])

    def streams(self) -> list[StoredStream] | None:
        outputs = [part.streams() for part in self._parts]
        known = [streams for streams in outputs if streams is not None]
        if not known or len(known) < len(outputs):
            return None
        from streamline.outputs.stream_frames import merged

        return merged(known)

    def parquet(self) -> list[Path] | None:
        paths: list[Path] = []
        for part in self._parts:
            files = part.parquet()
            if files is None:
                return None
            paths += files
        return paths or None


def open_ref(ref: InputRef) -> Output:
    """Return the stored output that `ref` names.

    Raises:
        ConfigError: there is none.
        StreamlineError: another run has overwritten it.
    """
    if ref.inline is not None:
        return unpack(ref.inline)
    if ref.live:
        raise ConfigError(
            f"the output of '{ref.block}' is not stored: the destination writes it as it is read",
            hint="to use it otherwise, put a block between the two",
            code="output.live",
        )
    if ref.folder is None:
        raise ConfigError(
            f"the block '{ref.block}' has no stored output", hint=ref.remedy, code="block.no_stored_output"
        )
    output = open_output(Path(ref.folder))
    if ref.run_id is not None and output.manifest.run_id != ref.run_id:
        raise StreamlineError(
            f"the stored output of '{ref.block}' was overwritten by another run ({output.manifest.run_id})",
            where=ref.folder,
            hint="run the pipeline again",
            code="output.overwritten",
        )
    return output


def _items(ref: InputRef) -> Items:
    # Cached, since each child reads the list; by run, since another run may write the same folder.
    run_id = ref.run_id or (open_ref(ref).manifest.run_id if ref.folder is not None else "")
    return _items_of(ref.folder, ref.inline, run_id)


@functools.lru_cache(maxsize=2)
def _items_of(folder: str | None, inline: bytes | None, run_id: str) -> Items:
    output = unpack(inline) if inline is not None else open_output(Path(folder or ""))
    return items_of(output)
