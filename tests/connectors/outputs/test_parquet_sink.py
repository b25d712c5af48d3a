"""What a source block's records are when they are read back from its stored output."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamline.connectors.outputs.parquet_sink import ParquetSink, WrittenStream
from streamline.flow.items import ActivateVersion, Item, RawBatch, RowBatch, Schema
from streamline.outputs.store import Output, open_output, write_output
from streamline.outputs.streams import StreamFiles, Streams

pytestmark = pytest.mark.anyio


def schema(**properties: Any) -> Schema:
    return Schema("orders", {"type": "object", "properties": properties}, ["id"])


def rows(*records: dict[str, Any], version: int | None = None) -> RowBatch:
    return RowBatch("orders", list(records), version)


async def written(folder: Path, items: Sequence[Item]) -> list[WrittenStream]:
    sink = ParquetSink("load", folder)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sink.run, lambda source, number: None, lambda error: None)
        await anyio.lowlevel.checkpoint()
        for item in items:
            await sink.send("load", [item])
        await sink.close()
        tasks.cancel_scope.cancel()
    return sink.written()


async def stored(tmp_path: Path, *items: Item) -> Output:
    folder = tmp_path / "parts"
    folder.mkdir()
    streams = [
        StreamFiles(
            stream={"stream": each.stream, "schema": each.schema},
            columns=each.columns,
            files=[(part.path, part.rows) for part in each.parts],
        )
        for each in await written(folder, items)
    ]
    write_output(tmp_path / "load", Streams(streams=streams), run_id="r", secrets_key=lambda: b"k" * 32)
    assert list(folder.iterdir()) == []
    return open_output(tmp_path / "load")


async def test_one_stream_is_a_dict_of_its_columns_and_rows(tmp_path: Path) -> None:
    properties = {"id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}, "tags": {"type": "array"}}
    output = await stored(
        tmp_path,
        schema(**properties),
        rows({"id": 1, "at": "2026-03-04T05:06:07Z", "tags": ["a", {"b": 1}]}),
        rows({"id": 2, "tags": None}),
        rows({"id": 3, "more": "undeclared"}),
    )
    assert output.value() == {
        "stream": {"stream": "orders", "schema": {"type": "object", "properties": properties}},
        "columns": ["id", "at", "tags", "more"],
        "rows": [
            [1, "2026-03-04T05:06:07.000000Z", ["a", {"b": 1}], None],
            [2, None, None, None],
            [3, None, None, "undeclared"],
        ],
    }
    assert output.table().column("id").to_pylist() == [1, 2, 3]


async def test_every_value_comes_back_as_it_was_sent(tmp_path: Path) -> None:
    line = b'{"type":"RECORD","stream":"orders","record":{"id":%s,"n":%s}}\n'
    values = [(b"1", b"0.1"), (b'"x"', b"12345678901234567.25"), (b"2", b"null"), (b"36893488147419103232", b"1e-400")]
    raw = [line % pair for pair in values]
    output = await stored(
        tmp_path,
        schema(id={"type": "integer"}, n={"type": "number"}),
        *(RawBatch("orders", [text], 1, len(text)) for text in raw),
    )
    assert output.value()["rows"] == [
        [1, 0.1],
        ["x", Decimal("12345678901234567.25")],
        [2, None],
        [36893488147419103232, Decimal("1e-400")],
    ]


async def test_rows_of_an_older_version_are_gone_when_the_new_one_is_active(tmp_path: Path) -> None:
    output = await stored(
        tmp_path,
        schema(id={"type": "integer"}),
        rows({"id": 1}, version=1),
        rows({"id": 2}, version=2),
        rows({"id": 3}, version=2),
        ActivateVersion("orders", 2),
    )
    assert output.value()["rows"] == [[2], [3]]


async def test_several_streams_are_a_list_and_one_without_records_is_in_it(tmp_path: Path) -> None:
    users = Schema("users", {"type": "object", "properties": {"name": {"type": "string"}}}, [])
    output = await stored(tmp_path, schema(id={"type": "integer"}), users, rows({"id": 1}))
    assert [(each["stream"]["stream"], each["columns"], each["rows"]) for each in output.value()] == [
        ("orders", ["id"], [[1]]),
        ("users", ["name"], []),
    ]
