"""BATCH messages: records that a tap left in files, read here where a target or a block cannot.

Both dialects are known: Meltano's SDK (`encoding` and `manifest`) and PipelineWise (`filepath`, `format`,
`compression`). A file may be far larger than memory, so this is no stage (those return all they have at once)
but wraps the source: what reads it slowly makes the file be read slowly.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from anyio import to_thread

from streamline.errors import StreamlineError
from streamline.flow.codecs.envelope import wrap
from streamline.flow.items import ArrowBatch, Batch, FileBatch, Item, Position
from streamline.flow.protocols import Emit, Source

CHUNK_BYTES = 1 << 20
MAX_ROWS = 10_000
_GZIP_MAGIC = b"\x1f\x8b"

Batches: TypeAlias = Generator[Batch, None, None]


class FileSource:
    """A source whose BATCH messages are forwarded or expanded, and whose files are deleted when they are proven.

    Args:
        source: the tap.
        run_dir: only files under this folder are deleted.
        root: folder of relative paths (the project's, where the tap runs).
        passed: the dialects (`sdk`, `pipelinewise`) that are forwarded, because every target takes them and no block
            has to see the records. Files of other dialects are expanded.
        chunk_bytes: size of a batch of records, about.
    """

    def __init__(
        self,
        source: Source,
        *,
        run_dir: Path,
        root: Path,
        passed: Collection[str] = (),
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._source = source
        self._run_dir = run_dir.resolve()
        self._root = root
        self._passed = frozenset(passed)
        self._chunk_bytes = chunk_bytes
        self._unmarked: list[Path] = []  # files of BATCHes that no position covers yet
        self._marked: list[tuple[int, list[Path]]] = []  # (number of the position that covers them, files)

    @property
    def id(self) -> str:
        """See `Source`."""
        return self._source.id

    async def run(self, emit: Emit) -> None:
        """See `Source.run`.

        Raises:
            StreamlineError: the source failed, or a file is missing, broken or of an unknown encoding.
        """

        async def take(items: Sequence[Item]) -> None:
            ready: list[Item] = []
            for item in items:
                if isinstance(item, Position):
                    self._mark(item)
                elif isinstance(item, FileBatch):
                    paths = [_local_path(item, name, self._root) for name in item.files]
                    self._unmarked += paths
                    if item.dialect not in self._passed:
                        if ready:
                            await emit(ready)
                            ready = []
                        for path in paths:
                            await _read(item, path, self._chunk_bytes, emit)
                        continue
                ready.append(item)
            if ready:
                await emit(ready)

        await self._source.run(take)

    @property
    def stopped(self) -> str | None:
        """See `Source`."""
        return self._source.stopped

    def stop(self, reason: str) -> None:
        """See `Source.stop`."""
        self._source.stop(reason)

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`. It says nothing of files: a stream whose bookmark did not move may be unproven."""
        await self._source.confirm(parts)

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`."""
        await self._source.release(keys)

    async def delete_until(self, position: Position) -> None:
        """Delete the files that a position covers: every record before it is proven by every sink."""
        proven = [path for number, paths in self._marked if number <= position.number for path in paths]
        self._marked = [entry for entry in self._marked if entry[0] > position.number]
        await self._delete(proven)

    async def delete_all(self) -> None:
        """Delete what files are left: everything that the source gave is proven by every sink."""
        left = [path for _, paths in self._marked for path in paths] + self._unmarked
        self._marked.clear()
        self._unmarked.clear()
        await self._delete(left)

    def _mark(self, position: Position) -> None:
        if self._unmarked:
            self._marked.append((position.number, self._unmarked))
            self._unmarked = []

    async def _delete(self, paths: Sequence[Path]) -> None:
        ours = [path for path in paths if path.resolve().is_relative_to(self._run_dir)]

        def delete() -> None:
            for path in ours:
                path.unlink(missing_ok=True)

        if ours:
            await to_thread.run_sync(delete)


async def _read(item: FileBatch, path: Path, chunk_bytes: int, emit: Emit) -> None:
    """Gives the records of one file of a BATCH, in order, about `chunk_bytes` at a time."""
    batches = _batches(item, path, chunk_bytes)

    def read() -> Batch | None:
        try:
            return next(batches, None)
        except FileNotFoundError:
            raise _error(item, f"a file of its BATCH does not exist: {path}", code="batch.file_missing") from None
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise _error(
                item, f"file {path} of its BATCH cannot be read: {error}", code="batch.file_unreadable"
            ) from error

    with closing(batches):
        while (batch := await to_thread.run_sync(read)) is not None:
            await emit([batch])


def _batches(item: FileBatch, path: Path, chunk_bytes: int) -> Batches:
    form = item.format.lower()
    compression = (item.compression or "none").lower()
    if form in ("jsonl", "json", "ndjson") and compression in ("none", "gzip", "gz"):
        return _jsonl(item, path, chunk_bytes)
    if form == "parquet":  # compressed inside, if at all; a compression named beside it is that one
        return _parquet(item, path, chunk_bytes)
    raise _error(
        item,
        f"the tap sends files of an unknown encoding: format {item.format!r}, compression {compression!r}",
        hint="set the tap to jsonl (plain or gzip) or parquet, or disable its batches",
        code="batch.encoding_unknown",
    )


def _jsonl(item: FileBatch, path: Path, chunk_bytes: int) -> Batches:
    extracted = _time_extracted(item)
    with _open(path) as file:
        number = 0
        while lines := file.readlines(chunk_bytes):
            texts = []
            for line in lines:
                number += 1
                text = line.strip()
                if text[:1] == b"{" and text[-1:] == b"}":
                    texts.append(text)
                elif text:
                    raise _error(item, f"line {number:,} of {path} is no JSON object", code="batch.file_unreadable")
            if texts:
                yield wrap(item.stream, texts, version=item.version, time_extracted=extracted)


def _parquet(item: FileBatch, path: Path, chunk_bytes: int) -> Batches:
    import pyarrow as pa
    import pyarrow.parquet as pq

    extracted = _time_extracted(item)
    with pq.ParquetFile(path, pre_buffer=False) as file:
        meta = file.metadata
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        rows = max(1, min(MAX_ROWS, chunk_bytes * meta.num_rows // max(1, size)))
        for batch in file.iter_batches(batch_size=rows):
            if batch.num_rows:
                yield ArrowBatch(item.stream, pa.Table.from_batches([batch]), item.version, extracted)


def _open(path: Path) -> IO[bytes]:
    file = path.open("rb")
    # Taps are known to leave the compression out of the message; no JSON begins with gzip's first bytes.
    if file.peek(2)[:2] != _GZIP_MAGIC:
        return file
    file.close()
    return io.BufferedReader(gzip.GzipFile(path, "rb"), CHUNK_BYTES)  # its own readlines() is slow


def _time_extracted(item: FileBatch) -> str | None:
    message: dict[str, Any] = json.loads(item.raw)
    value = message.get("time_extracted")
    return value if isinstance(value, str) else None


def _local_path(item: FileBatch, name: str, root: Path) -> Path:
    if "://" not in name:
        return root / name
    url = urlsplit(name)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise _error(
            item,
            f"a file of its BATCH is not on this machine: {name}",
            hint="only file:// URLs and paths can be read; set the tap's batch storage to a local folder",
            code="batch.file_not_local",
        )
    return Path(unquote(url.path))


def _error(item: FileBatch, message: str, *, code: str, hint: str | None = None) -> StreamlineError:
    return StreamlineError(message, where=f"stream {item.stream!r}", hint=hint, code=code)
