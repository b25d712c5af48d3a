from __future__ import annotations

import asyncio
import gzip
import json
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamline.connectors.singer import batch_records
from streamline.connectors.singer.batch_files import FileSource
from streamline.errors import StreamlineError
from streamline.flow.items import ArrowBatch, FileBatch, Item, RawBatch
from streamline.flow.protocols import Emit
from tests.connectors.singer.stages import position, raw, tell
from tests.support.failures import fails

ROWS = [{"id": n, "name": f"n{n}"} for n in range(5)]


class Tap:
    """A source that gives items in one go."""

    id = "tap"

    def __init__(self, *items: Item) -> None:
        self._items = items

    async def run(self, emit: Emit) -> None:
        await emit(self._items)


def sdk(*urls: str, form: str = "jsonl", compression: str | None = None, version: int | None = None) -> FileBatch:
    message = {
        "type": "BATCH",
        "stream": "a",
        "encoding": {"format": form, "compression": compression},
        "manifest": urls,
    }
    return FileBatch("a", "sdk", urls, form, compression, version, json.dumps(message).encode())


def pipelinewise(path: str, form: str = "jsonl", compression: str | None = None) -> FileBatch:
    message = {
        "type": "BATCH",
        "stream": "a",
        "filepath": path,
        "format": form,
        "time_extracted": "2026-01-01T00:00:00Z",
    }
    return FileBatch("a", "pipelinewise", [path], form, compression, None, json.dumps(message).encode())


def jsonl(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return path


def collect(source: FileSource) -> list[Item]:
    out: list[Item] = []

    async def emit(items: Sequence[Item]) -> None:
        out.extend(items)

    asyncio.run(source.run(emit))
    return out


def expand(tmp_path: Path, *items: Item, chunk_bytes: int = 1 << 20) -> list[Item]:
    return collect(FileSource(Tap(*items), run_dir=tmp_path / "run", root=tmp_path, chunk_bytes=chunk_bytes))


def test_a_file_takes_its_place_between_the_other_items(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a b.jsonl")
    items = [raw("b", {"x": 1}), sdk(file.as_uri(), version=3), position(1)]
    assert "%20" in file.as_uri()
    assert tell(expand(tmp_path, *items)) == [("b", [{"x": 1}]), ("a", ROWS, 3), "STATE 1"]


@pytest.mark.parametrize("named", ["gzip", None])
def test_gzip_named_or_not(tmp_path: Path, named: str | None) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\r\n" for row in ROWS)))
    assert tell(expand(tmp_path, sdk(str(path), compression=named))) == [("a", ROWS)]


def test_a_pipelinewise_batch_is_relative_to_the_project_and_keeps_its_time(tmp_path: Path) -> None:
    jsonl(tmp_path / "part.jsonl")
    out = expand(tmp_path, pipelinewise("part.jsonl"))
    assert tell(out) == [("a", ROWS)]
    assert isinstance(out[0], RawBatch)
    assert b'"time_extracted":"2026-01-01T00:00:00Z"' in bytes(out[0].slices[0])


def test_records_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    odd = rb'{"n":123456789012345678901234567890, "x":NaN,"s":"\ud800"}'
    path.write_bytes(odd + b"\n\n" + odd)
    out = expand(tmp_path, sdk(path.as_uri()))
    assert isinstance(out[0], RawBatch)
    assert bytes(out[0].slices[0]) == b'{"type":"RECORD","stream":"a","record":' + odd + b"}\n" + (
        b'{"type":"RECORD","stream":"a","record":' + odd + b"}\n"
    )


def test_a_big_file_comes_in_parts(tmp_path: Path) -> None:
    rows = [{"id": n, "text": "x" * 90} for n in range(1000)]
    file = jsonl(tmp_path / "a.jsonl", rows)
    out = expand(tmp_path, sdk(file.as_uri()), chunk_bytes=10_000)
    assert len(out) >= 10
    assert all(isinstance(item, RawBatch) and item.nbytes < 20_000 for item in out)
    assert [row for _, part in tell(out) for row in part] == rows


def test_parquet_becomes_arrow_batches(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"id": n, "t": "x" * 100} for n in range(5000)]), tmp_path / "a.parquet")
    out = expand(tmp_path, sdk((tmp_path / "a.parquet").as_uri(), form="parquet", version=4), chunk_bytes=2000)
    assert len(out) > 1
    assert all(isinstance(item, ArrowBatch) and item.version == 4 for item in out)
    assert [n for item in out if isinstance(item, ArrowBatch) for n in item.table["id"].to_pylist()] == list(
        range(5000)
    )


def test_a_dialect_that_every_target_takes_is_passed(tmp_path: Path) -> None:
    ours, theirs = sdk("s3://bucket/x"), pipelinewise(str(jsonl(tmp_path / "a.jsonl")))
    ours = sdk((tmp_path / "anything").as_uri(), form="arrow")
    source = FileSource(Tap(ours, theirs), run_dir=tmp_path, root=tmp_path, passed={"sdk"})
    assert tell(collect(source)) == [ours, ("a", ROWS)]


@pytest.mark.parametrize(
    ("file", "form", "count"),
    [
        (b'{"id": 1}\n\n{"id": 2}', "jsonl", 2),
        (gzip.compress(b'{"id": 1}\n' * 3), "jsonl", 3),
        (None, "parquet", 4),
        (b"torn", "parquet", None),
        (b"torn\n", "arrow", None),
    ],
    ids=["lines", "packed lines", "parquet", "torn parquet", "no parquet"],  # packed bytes have the time in them
)
def test_records_in_files_that_are_passed_are_counted(
    tmp_path: Path, file: bytes | None, form: str, count: int | None
) -> None:
    path = tmp_path / "a"
    if file is None:
        pq.write_table(pa.table({"id": range(4)}), path)
    else:
        path.write_bytes(file)
    source = FileSource(Tap(sdk(path.as_uri(), form=form)), run_dir=tmp_path, root=tmp_path, passed={"sdk"})
    (item,) = collect(source)
    assert isinstance(item, FileBatch)
    assert item.count == count


@pytest.mark.parametrize(
    ("item", "code", "name"),
    [
        (sdk("file:///nowhere/x.jsonl"), "batch.file_missing", "/nowhere/x.jsonl"),
        (sdk("s3://bucket/x.jsonl"), "batch.file_not_local", "s3://bucket/x.jsonl"),
        (sdk("file:///x", form="avro"), "batch.encoding_unknown", "'avro'"),
        (sdk("file:///x", compression="zstd"), "batch.encoding_unknown", "'zstd'"),
        (sdk("torn.jsonl"), "batch.file_unreadable", "line 2"),
        (sdk("torn.gz", compression="gzip"), "batch.file_unreadable", "torn"),
        (sdk("torn.jsonl", form="parquet"), "batch.file_unreadable", "torn"),
    ],
)
def test_what_cannot_be_read_names_the_stream(tmp_path: Path, item: FileBatch, code: str, name: str) -> None:
    (tmp_path / "torn.jsonl").write_bytes(b'{"id":1}\n{"id":')
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b'{"id":1}\n' * 1000)[:-20])
    with fails(code, name) as caught:
        expand(tmp_path, item)
    assert caught.value.where == "stream 'a'"


def test_files_go_when_their_position_is_proven_and_only_from_the_runs_folder(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    outside = jsonl(tmp_path / "outside.jsonl")
    first, second, last = (jsonl(run_dir / f"{n}.jsonl") for n in (1, 2, 3))
    (run_dir / "link.jsonl").symlink_to(outside)
    tap = Tap(
        sdk(first.as_uri(), outside.as_uri()),
        sdk(str(run_dir / "link.jsonl"), str(run_dir / ".." / "outside.jsonl")),
        position(1),
        sdk(second.as_uri()),
        position(2),
        position(3),
        sdk(last.as_uri()),
    )
    source = FileSource(tap, run_dir=run_dir, root=tmp_path, passed={"sdk"})
    collect(source)

    def left() -> set[str]:
        return {path.name for path in run_dir.iterdir()} - {"link.jsonl"}

    asyncio.run(source.delete_until(position(1)))
    assert left() == {"2.jsonl", "3.jsonl"}
    asyncio.run(source.delete_until(position(3)))
    assert left() == {"3.jsonl"}
    asyncio.run(source.delete_all())
    assert left() == set()
    assert outside.exists()


def refused(tmp_path: Path, item: FileBatch) -> str:
    with pytest.raises(StreamlineError) as failure:
        expand(tmp_path, item)
    assert failure.value.code == "batch.file_unreadable"
    return failure.value.message


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_only_regular_files_are_opened(tmp_path: Path, form: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        refused(tmp_path, sdk(f"file://{path}", form=form))


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_without_end_is_not_read_to_its_end(
    tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_records, "MAX_RECORD_BYTES", 4 << 20)
    (tmp_path / "bomb").write_bytes((gzip.compress if packed else bytes)(b'{"id":"' + b" " * (32 << 20)))
    tracemalloc.start()
    refused(tmp_path, sdk(f"file://{tmp_path}/bomb"))
    assert tracemalloc.get_traced_memory()[1] < 24 << 20
    tracemalloc.stop()


def test_the_longest_line_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_records, "MAX_RECORD_BYTES", 64)
    first, path = b'{"id":"a"}\n', tmp_path / "a.jsonl"
    for length, ending in ((64, b"\n"), (64, b""), (65, b"\n")):
        path.write_bytes(first + b'{"id":"' + b"x" * (length - 9) + b'"}' + ending)
        chunk_bytes = len(first) + length  # up to the end of the line
        if length == 64:
            told = tell(expand(tmp_path, sdk(path.as_uri()), chunk_bytes=chunk_bytes))
            assert [row["id"] for _, rows in told for row in rows] == ["a", "x" * 55]
        else:
            with fails("batch.file_unreadable", "64"):
                expand(tmp_path, sdk(path.as_uri()), chunk_bytes=chunk_bytes)


@pytest.mark.parametrize(
    "line", ['{"id":1},"version":9,"x":{}', '{"id":1}}{"a":{"b":1}', '{"id":1},"stream":"b","x":{}']
)
def test_a_line_is_one_record_and_nothing_else(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"id":0}}\n{line}\n')
    refused(tmp_path, sdk(f"file://{tmp_path}/a.jsonl"))


def test_a_text_that_all_rows_of_a_parquet_file_share_is_not_repeated_for_all_at_once(tmp_path: Path) -> None:
    text = "x" * (1 << 20)
    rows = {"id": list(range(100)), "note": pa.DictionaryArray.from_arrays(pa.array([0] * 100), [text])}
    pq.write_table(pa.table({**rows, "note": rows["note"].cast(pa.string())}), tmp_path / "a.parquet")
    items = expand(tmp_path, sdk(f"file://{tmp_path}/a.parquet", form="parquet"))
    tables = [item.table for item in items if isinstance(item, ArrowBatch)]
    assert max(table.nbytes for table in tables) <= 17 << 20
    assert [row for table in tables for row in table["id"].to_pylist()] == list(range(100))
    assert {table.schema.field("note").type for table in tables} == {pa.string()}
    assert {value for table in tables for value in table["note"].to_pylist()} == {text}


def test_a_row_of_a_parquet_file_that_is_larger_than_the_limit_comes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_records, "_MOST_DECODED", 150)
    notes = ["x" * 200, "y" * 100, "z" * 20, "z" * 20]
    pq.write_table(pa.table({"note": notes}), tmp_path / "a.parquet")
    items = expand(tmp_path, sdk(f"file://{tmp_path}/a.parquet", form="parquet"), chunk_bytes=150)
    assert [row["note"] for item in items if isinstance(item, ArrowBatch) for row in item.table.to_pylist()] == notes
