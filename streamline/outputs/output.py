"""A stored output as the blocks downstream see it: read on demand, a new object each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from streamline.errors import ConfigError
from streamline.outputs.errors import OutputError
from streamline.outputs.key import project_key
from streamline.outputs.manifest import Manifest, StoredValue, read_manifest
from streamline.outputs.storage import FolderStorage, Key, MemoryStorage, Storage
from streamline.outputs.values import read_value, write_values

if TYPE_CHECKING:
    import pyarrow as pa

    from streamline.outputs.frames import Frames
    from streamline.outputs.streams import StoredStream

_T = TypeVar("_T")
# How often to start again when the output is replaced during a read.
_ATTEMPTS = 20


class Output:
    """What a block returned.

    Args:
        manifest: what is there; None: as the folder says each time.
    """

    def __init__(self, storage: Storage, manifest: Manifest | None = None) -> None:
        self._storage = storage
        self._manifest = manifest

    @property
    def manifest(self) -> Manifest:
        """Return the manifest.

        Raises:
            OutputError: nothing is stored.
        """
        if self._manifest is not None:
            return self._manifest
        assert isinstance(self._storage, FolderStorage)
        manifest = read_manifest(self._storage.folder)
        if manifest is None:
            raise OutputError(
                "no output is stored here",
                where=str(self._storage.folder),
                hint="run the block first",
                code="output.missing",
            )
        return manifest

    def value(self, frames: Frames | None = None) -> Any:
        """Read what the block returned; several outputs, or a generator's chunks, as a list.

        Args:
            frames: in which form a source block's streams are wanted; None: as dicts of columns and rows.

        Raises:
            ConfigError: one table is asked for, and there are several streams.
            OutputError: it cannot be read.
        """

        def read(manifest: Manifest) -> Any:
            streams = self._streams(manifest) if frames is not None else None
            if streams is None or frames is None:
                return self._value(manifest)
            from streamline.outputs.stream_frames import to_frames

            return to_frames(streams, frames)

        return self._whole(read)

    def streams(self) -> list[StoredStream] | None:
        """Return the streams of a source block, unread; None for the output of any other block.

        Raises:
            OutputError: nothing is stored.
        """
        return self._streams(self.manifest)

    def values(self) -> list[Any]:
        """Read the elements of a returned tuple, or a list with the one value (a generator's chunks are one list)."""
        value = self._whole(lambda manifest: (manifest.form, self._value(manifest)))
        return value[1] if value[0] == "tuple" else [value[1]]

    def count(self) -> int:
        """Return the number of elements of `values`, without reading them."""
        manifest = self.manifest
        return len(manifest.outputs) if manifest.form == "tuple" else 1

    def chunks(self) -> Iterator[Any]:
        """Yield a generator's chunks or a tuple's elements one by one, or the one value."""
        manifest = self.manifest
        if manifest.form == "none":
            yield None
        for stored in manifest.outputs:
            yield read_value(self._storage, stored)

    def table(self) -> pa.Table:
        """Read the output as one Arrow table: a DataFrame, a list of dicts, a dict of lists, a Series, chunks of these.

        Raises:
            ConfigError: it is not a table.
            OutputError: it cannot be read.
        """
        return self._whole(self._table)

    def parquet(self) -> list[Path] | None:
        """Return the Parquet files with the whole output, if it is a table that needs no conversion; else None."""
        manifest = self.manifest
        if manifest.form == "tuple" and len(manifest.outputs) != 1:
            return None
        streams = self._streams(manifest)
        if streams is not None:
            from streamline.outputs.stream_frames import parquet_files

            return parquet_files(streams)
        files = [path for stored in manifest.outputs for path in self._files(stored)]
        if not files or None in files:
            return None
        leaves = [leaf for stored in manifest.outputs for leaf in (stored.parts or [stored])]
        first = (leaves[0].columns, leaves[0].types)
        return files if all((leaf.columns, leaf.types) == first for leaf in leaves) else None  # type: ignore[return-value]

    def read(self, stored: StoredValue) -> Any:
        """Read one of the values in the manifest."""
        return read_value(self._storage, stored)

    def _streams(self, manifest: Manifest) -> list[StoredStream] | None:
        if manifest.form != "single" or manifest.outputs[0].codec != "streams":
            return None
        from streamline.outputs import streams

        return streams.stored_streams(self._storage, manifest.outputs[0])

    def _value(self, manifest: Manifest) -> Any:
        if manifest.form == "none":
            return None
        if manifest.form == "single":
            return read_value(self._storage, manifest.outputs[0])
        return [read_value(self._storage, stored) for stored in manifest.outputs]

    def _table(self, manifest: Manifest) -> pa.Table:
        from streamline.outputs.tables import concatenated

        if manifest.form == "none":
            raise ConfigError("it returned None, which is not a table", code="output.not_a_table")
        if manifest.form == "tuple" and len(manifest.outputs) != 1:
            raise ConfigError(
                f"it returned {len(manifest.outputs)} outputs, which are not one table",
                hint="return one table, or take the outputs in a Python block",
                code="output.not_a_table",
            )
        streams = self._streams(manifest)
        if streams is not None:
            from streamline.outputs.stream_frames import one_stream, to_table

            return to_table(one_stream(streams))
        return concatenated([self._one_table(stored) for stored in manifest.outputs])

    def _one_table(self, stored: StoredValue) -> pa.Table:
        from streamline.outputs.tables import concatenated, to_table

        if stored.codec == "list":
            return concatenated([self._one_table(part) for part in stored.parts])
        if stored.types is not None or stored.codec.startswith("arrow"):
            from streamline.outputs.arrow_tables import read_table

            return read_table(self._storage, stored).replace_schema_metadata(None)
        return to_table(read_value(self._storage, stored))

    def _files(self, stored: StoredValue) -> list[Path | None]:
        if stored.codec == "list":
            return [path for part in stored.parts for path in self._files(part)]
        if stored.types is None:
            return [None]
        return [self._storage.path(stored.file)]

    def _whole(self, read: Callable[[Manifest], _T]) -> _T:
        """Read from one folder only, even while another takes its place."""
        if self._manifest is not None:
            return read(self._manifest)
        assert isinstance(self._storage, FolderStorage)
        for _ in range(_ATTEMPTS):
            before = _identity(self._storage.folder)
            try:
                result = read(self.manifest)
            except (OSError, OutputError, ConfigError) as error:
                if _identity(self._storage.folder) != before:
                    continue
                if isinstance(error, OSError):
                    what = f"the stored output cannot be read: {error.strerror or error}"
                    raise OutputError(
                        what, where=str(error.filename or self._storage.folder), code="output.damaged"
                    ) from error
                raise
            if _identity(self._storage.folder) == before:
                return result
        raise OutputError(
            f"the output was replaced {_ATTEMPTS} times while it was read",
            where=str(self._storage.folder),
            hint="find out what keeps writing it, then run again",
            code="output.busy",
        )


def _identity(folder: Path) -> tuple[int, int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def open_output(folder: Path, secrets_key: Key | None = None) -> Output:
    """Open the output stored in `folder`. It is read on use.

    Args:
        secrets_key: gives the project's key, called only for pickled values; left out, it is looked for in the
            `.streamline` folder above.
    """
    return Output(FolderStorage(Path(folder), secrets_key or (lambda: _key_above(Path(folder)))))


def _key_above(folder: Path) -> bytes:
    for parent in folder.absolute().parents:
        if parent.name == ".streamline":
            return project_key(parent)
    raise OutputError(
        "a pickled output can be read only in the project that stored it",
        where=str(folder),
        hint="open it in the project's .streamline folder",
        code="output.wrong_project",
    )


class _Packed(msgspec.Struct):
    manifest: Manifest
    files: dict[str, bytes]


_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(_Packed)


def pack(value: Any) -> bytes:
    """Pack what a block returned into bytes, without writing to disk.

    Raises:
        OutputError: a value that cannot be stored.
    """
    storage = MemoryStorage()
    manifest = write_values(storage, value, "")
    return _packer.encode(_Packed(manifest, storage.files()))


def unpack(data: bytes) -> Output:
    """Unpack what `pack` packed. Only for bytes that came from this project's own processes: they may hold pickles."""
    packed = _unpacker.decode(data)
    return Output(MemoryStorage(packed.files), packed.manifest)
