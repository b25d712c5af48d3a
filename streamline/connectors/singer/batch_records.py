"""The records in files of BATCH messages: JSON Lines, plain or gzipped, and Parquet.

Imported when a tap sends such a file: hardly any does.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from anyio import to_thread

from streamline.connectors.singer.parser import MAX_RECORD_BYTES
from streamline.connectors.singer.record_lines import records_fill_lines
from streamline.errors import StreamlineError
from streamline.flow.codecs.envelope import wrap
from streamline.flow.codecs.jsontext import split_object
from streamline.flow.items import ArrowBatch, Batch, FileBatch
from streamline.flow.protocols import Emit
from streamline.processes.regular_file import open_regular

MAX_ROWS = 10_000
_READ_BYTES = 1 << 20
_NESTED_ROWS = 64
_MOST_DECODED = 16 << 20
_JSON_LINES = ("jsonl", "json", "ndjson")
_GZIP_MAGIC = b"\x1f\x8b"

Batches: TypeAlias = Generator[Batch, None, None]


def count_records(item: FileBatch, paths: Sequence[Path]) -> int | None:
    """Return the number of records in files that are forwarded; None if they are of another format, or broken."""
    if item.format.lower() not in (*_JSON_LINES, "parquet"):
        return None
    try:
        return sum(_rows(item, path) for path in paths)
    except (OSError, EOFError, zlib.error, ValueError):
        return None  # the target tells what is wrong with them


def _rows(item: FileBatch, path: Path) -> int:
    if item.format.lower() == "parquet":
        import pyarrow.parquet as pq

        with open_regular(path) as opened:
            rows: int = pq.read_metadata(opened).num_rows
            return rows
    with _open(path) as file:
        return sum(sum(map(bool, map(bytes.strip, lines))) for lines in _whole_lines(file, _READ_BYTES))


async def read_records(item: FileBatch, path: Path, chunk_bytes: int, emit: Emit) -> None:
    """Read the records of one file of a BATCH, in order, about `chunk_bytes` at a time."""
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
    if form in _JSON_LINES and compression in ("none", "gzip", "gz"):
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
        for lines in _whole_lines(file, chunk_bytes):
            texts = []
            for line in lines:
                number += 1
                text = line.strip()
                if text[:1] == b"{" and text[-1:] == b"}":
                    texts.append(text)
                elif text:
                    raise _error(item, f"line {number:,} of {path} is not a JSON object", code="batch.file_unreadable")
            if texts:
                batch = wrap(item.stream, texts, version=item.version, time_extracted=extracted)
                if batch.prefix is None or not records_fill_lines(batch.slices[0], batch.count, batch.prefix):
                    for text in texts:
                        split_object(text)
                yield batch


def _whole_lines(file: IO[bytes], chunk_bytes: int) -> Generator[list[bytes], None, None]:
    """Give the lines of a file, about `chunk_bytes` of them at a time.

    Raises:
        ValueError: a line is longer than the longest record.
    """
    rest: list[bytes] = []
    size = 0
    while chunk := file.read(chunk_bytes):
        # At the end of the file, the last newline may be missing.
        cut = chunk.rfind(b"\n") + 1 if len(chunk) == chunk_bytes else len(chunk)
        if cut:
            yield b"".join((*rest, chunk[:cut])).split(b"\n")
            rest, size = [], 0
        rest.append(chunk[cut:])
        size += len(chunk) - cut
        if size > MAX_RECORD_BYTES:
            raise ValueError(f"a line is longer than {MAX_RECORD_BYTES:,} bytes")
    if size:
        yield b"".join(rest).split(b"\n")


def _parquet(item: FileBatch, path: Path, chunk_bytes: int) -> Batches:
    import pyarrow as pa
    import pyarrow.parquet as pq

    extracted = _time_extracted(item)
    with open_regular(path) as opened:
        meta = pq.read_metadata(opened)
        texts, rows = _dictionaries(meta, chunk_bytes)
        # A text that many rows have stands in the file once. It is repeated only for as many rows as memory is for.
        with pq.ParquetFile(opened, metadata=meta, pre_buffer=False, read_dictionary=texts) as file:
            for batch in file.iter_batches(batch_size=rows):
                for part in _parts(pa.Table.from_batches([batch]), max(chunk_bytes, _MOST_DECODED)):
                    yield ArrowBatch(item.stream, _plain(part), item.version, extracted)


def _dictionaries(meta: Any, chunk_bytes: int) -> tuple[list[str], int]:
    """Return the columns that are read as dictionaries, and the rows to read at once."""
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    rows = max(1, min(MAX_ROWS, chunk_bytes * meta.num_rows // max(1, size)))
    names: set[str] = set()
    for group in groups:
        for number in range(group.num_columns):
            column = group.column(number)
            if not any(encoding.endswith("DICTIONARY") for encoding in column.encodings):
                continue
            if "." in column.path_in_schema or column.physical_type == "FIXED_LEN_BYTE_ARRAY":
                rows = min(rows, _NESTED_ROWS)
            elif column.physical_type == "BYTE_ARRAY":
                names.add(column.path_in_schema)
    return sorted(names), rows


def _parts(table: Any, limit: int) -> Generator[Any, None, None]:
    """Yield parts of a table, each of which has at most `limit` bytes of text, or one row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size = 0
    for column in table.columns if table.num_rows > 1 else ():
        if pa.types.is_dictionary(column.type):
            for chunk in column.chunks:
                kind = chunk.dictionary.type
                if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
                    lengths = pc.cast(pc.binary_length(chunk.dictionary), pa.int64())
                    size += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    if size <= limit:
        if table.num_rows:
            yield table
        return
    half = table.num_rows // 2
    yield from _parts(table.slice(0, half), limit)
    yield from _parts(table.slice(half), limit)


def _plain(table: Any) -> Any:
    import pyarrow as pa

    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields, table.schema.metadata))


def _open(path: Path) -> IO[bytes]:
    file = open_regular(path)
    # Taps are known to leave the compression out of the message; no JSON begins with gzip's first bytes.
    if not isinstance(file, io.BufferedReader) or file.peek(2)[:2] != _GZIP_MAGIC:
        return file
    return io.BufferedReader(_Unzipped(file), _READ_BYTES)


class _Unzipped(gzip.GzipFile):
    """Closes the compressed file, too."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(fileobj=file)
        self._compressed = file

    def close(self) -> None:
        super().close()
        self._compressed.close()


def _time_extracted(item: FileBatch) -> str | None:
    message: dict[str, Any] = json.loads(item.raw)
    value = message.get("time_extracted")
    return value if isinstance(value, str) else None


def local_path(item: FileBatch, name: str, root: Path) -> Path:
    """Return the path of a file of a BATCH.

    Raises:
        StreamlineError: it is not on this machine.
    """
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
