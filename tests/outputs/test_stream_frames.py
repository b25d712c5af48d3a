"""The streams of a source block as tables: one frame, several by name, and what their columns become."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamline.cli.block_output import _print_streams, _print_tables, _tables
from streamline.flow.codecs.arrow_types import arrow_field, json_field
from streamline.outputs.frames import Frames
from streamline.outputs.manifest import summary
from streamline.outputs.store import Output
from streamline.outputs.stream_frames import merged, to_frames
from streamline.outputs.streams import StreamFiles, Streams
from tests.outputs.conftest import Shelf
from tests.outputs.exactly import same
from tests.support.failures import refuses

PROPERTIES: dict[str, Any] = {
    "id": {"type": "integer"},
    "age": {"type": ["null", "integer"]},
    "name": {"type": ["null", "string"]},
    "price": {"type": "number", "multipleOf": 0.01},
    "born": {"type": "string", "format": "date"},
    "seen": {"type": "string", "format": "date-time"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "address": {"type": "object"},
}


def _table(**columns: list[Any]) -> pa.Table:
    fields = [arrow_field(name, PROPERTIES.get(name)) for name in columns]
    arrays = [pa.array(values, field.type) for field, values in zip(fields, columns.values(), strict=True)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _stream(folder: Path, name: str, *tables: pa.Table, columns: list[str] | None = None) -> StreamFiles:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{name}-{number}.parquet" for number in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table, path)
    return StreamFiles(
        stream={"stream": name, "schema": {"properties": PROPERTIES}},
        columns=columns or list(dict.fromkeys(column for table in tables for column in table.column_names)),
        files=[(path, table.num_rows) for path, table in zip(paths, tables, strict=True)],
    )


def _stored(shelf: Shelf, *streams: StreamFiles) -> Output:
    return shelf.write(Streams(streams=streams))


def test_one_stream_is_one_frame_with_exact_values(shelf: Shelf, tmp_path: Path) -> None:
    table = _table(
        id=[1, 2],
        age=[None, 2**53 + 1],
        name=["a", None],
        price=[Decimal("0.10"), Decimal("12345678901234567.89")],
        born=[dt.date(1900, 1, 1), dt.date(9999, 12, 31)],
        seen=[dt.datetime(2026, 1, 1, 1, 2, 3, 4, dt.UTC)] * 2,
        tags=[["x"], []],
        address=['{"zip":"01234","at":[1.5,null]}', None],
    )
    frame = _stored(shelf, _stream(tmp_path / "new", "people", table)).value(Frames())
    assert frame["id"].dtype == "int64"
    assert frame["age"].dtype == "Int64"
    assert frame["seen"].dtype == "datetime64[us, UTC]"
    assert frame["name"].dtype == pd.Series(["a", None]).dtype
    assert same(frame["age"].tolist(), [pd.NA, 2**53 + 1])
    assert same(frame["price"].tolist(), [Decimal("0.10"), Decimal("12345678901234567.89")])
    assert same(frame["born"].tolist(), [dt.date(1900, 1, 1), dt.date(9999, 12, 31)])
    assert same(frame["tags"].tolist(), [["x"], []])
    assert same(frame["address"].tolist(), [{"zip": "01234", "at": [1.5, None]}, None])
    frame.loc[0, "id"] = 7  # the memory is pandas' own


def test_files_with_other_types_and_columns_make_one_frame(shelf: Shelf, tmp_path: Path) -> None:
    later = pa.Table.from_arrays(
        [pa.array([2]), pa.array(['"b"', None, "[1]"][:1])],
        schema=pa.schema([pa.field("id", pa.int64()), json_field("age")]),
    )
    stream = _stream(tmp_path / "new", "people", _table(id=[1], age=[5]), later, _table(id=[3], name=["c"]))
    frame = _stored(shelf, stream).value(Frames(form="single"))
    assert frame["age"].tolist() == [5, "b", None]
    assert frame["name"].isna().tolist() == [True, True, False]
    assert list(frame.columns) == ["id", "age", "name"]


def test_an_empty_stream_keeps_the_types_of_its_schema(shelf: Shelf, tmp_path: Path) -> None:
    output = _stored(shelf, _stream(tmp_path / "new", "people", columns=["id", "seen", "odd"]))
    frame = output.value(Frames())
    assert (len(frame), frame["id"].dtype, frame["seen"].dtype) == (0, "int64", "datetime64[us, UTC]")
    assert output.table().schema.field("id").type == pa.int64()


def test_several_streams_come_by_name_or_in_their_order(shelf: Shelf, tmp_path: Path) -> None:
    streams = [_stream(tmp_path / "new", name, _table(id=[number])) for number, name in enumerate(["b", "a"])]
    output = _stored(shelf, *streams, _stream(tmp_path / "new", "empty", columns=["id"]))
    assert {name: frame["id"].tolist() for name, frame in output.value(Frames()).items()} == {
        "b": [0],
        "a": [1],
        "empty": [],
    }
    assert [frame["id"].tolist() for frame in output.value(Frames(form="list"))] == [[0], [1], []]
    assert list(output.value(Frames(form="dict"))) == ["b", "a", "empty"]
    for read in (lambda: output.value(Frames(form="single")), output.table):
        with refuses("output.not_a_table", "b, a, empty"):
            read()
    assert output.parquet() is None


def test_one_stream_is_a_dict_of_one_where_that_is_asked_for(shelf: Shelf, tmp_path: Path) -> None:
    output = _stored(shelf, _stream(tmp_path / "new", "people", _table(id=[1])))
    assert list(output.value(Frames(form="dict"))) == ["people"]


def test_streams_of_one_name_in_two_schemas_keep_apart(shelf: Shelf, tmp_path: Path) -> None:
    streams = [
        _stream(tmp_path / "new", "people", _table(id=[1])),
        _stream(tmp_path / "other", "people", _table(id=[2])),
    ]
    for stream, schema in zip(streams, ("a", "b"), strict=True):
        stream.stream["tap_stream_id"] = f"{schema}-people"
    assert list(_stored(shelf, *streams).value(Frames())) == ["a-people", "b-people"]


def test_polars_and_arrow_get_json_as_text(shelf: Shelf, tmp_path: Path) -> None:
    table = _table(id=[1], price=[Decimal("0.10")], address=['{"a":1}'])
    output = _stored(shelf, _stream(tmp_path / "new", "people", table))
    frame = output.value(Frames(library="polars"))
    assert isinstance(frame, pl.DataFrame)
    assert frame.rows() == [(1, Decimal("0.10"), '{"a":1}')]
    assert output.value(Frames(library="pyarrow")).to_pylist() == [
        {"id": 1, "price": Decimal("0.10"), "address": '{"a":1}'}
    ]


def test_the_files_of_one_stream_are_read_by_others_where_they_are(shelf: Shelf, tmp_path: Path) -> None:
    output = _stored(shelf, _stream(tmp_path / "new", "people", _table(id=[1]), _table(id=[2])))
    files = output.parquet()
    assert files is not None
    assert pa.concat_tables(map(pq.read_table, files))["id"].to_pylist() == [1, 2]
    differing = _stored(shelf, _stream(tmp_path / "new", "people", _table(id=[1]), _table(name=["x"])))
    assert differing.parquet() is None
    assert differing.table().num_rows == 2


def test_streams_of_several_calls_are_joined_by_name(tmp_path: Path) -> None:
    outputs = []
    for number in range(2):
        shelf = Shelf(tmp_path / str(number))
        outputs.append(_stored(shelf, _stream(tmp_path / f"new{number}", "people", _table(id=[number]))).streams())
    frames = to_frames(merged([output for output in outputs if output is not None]), Frames())
    assert frames["id"].tolist() == [0, 1]


def test_the_command_shows_the_first_rows_of_each_stream(
    shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = _stream(tmp_path / "new", "orders", _table(id=[1, 2]), _table(id=[3], price=[Decimal("0.10")]))
    streams = _stored(shelf, orders, _stream(tmp_path / "new", "people", columns=["id"])).streams()
    assert streams is not None
    _print_streams("load", streams, 3, as_json=True)
    assert json.loads(capsys.readouterr().out) == [
        {"stream": "orders", "total": 3, "columns": ["id", "price"], "rows": [[1, None], [2, None], [3, 0.1]]},
        {"stream": "people", "total": 0, "columns": ["id"], "rows": []},
    ]
    _print_streams("load", streams, 1, as_json=False)
    shown = capsys.readouterr()
    assert "orders: 3 rows, 1 shown" in shown.out
    assert "2 streams, 3 rows, 1 shown" in shown.err


def test_the_command_shows_values_in_the_shape_of_streams_as_streams(capsys: pytest.CaptureFixture[str]) -> None:
    orders = {"stream": {"stream": "orders"}, "columns": ["id", "day"], "rows": [[1, dt.date(2026, 1, 2)], [2, None]]}
    _print_tables("change", _tables([orders, {"stream": "people", "columns": ["id"], "rows": []}], 1), as_json=True)
    assert json.loads(capsys.readouterr().out) == [
        {"stream": "orders", "total": 2, "columns": ["id", "day"], "rows": [[1, "2026-01-02"]]},
        {"stream": "people", "total": 0, "columns": ["id"], "rows": []},
    ]
    for value in ([], [1], {"stream": "orders"}, [orders, 1], {**orders, "rows": [[1]]}, {**orders, "stream": {}}):
        assert _tables(value, 1) == []


def test_a_run_counts_the_rows_of_each_stream(shelf: Shelf, tmp_path: Path) -> None:
    orders = _stream(tmp_path / "new", "orders", _table(id=[1, 2]), _table(id=[3]))
    manifest = _stored(shelf, orders, _stream(tmp_path / "new", "people", columns=["id"])).manifest
    assert [(each["name"], each["rows"]) for each in summary(manifest)] == [("orders", 3), ("people", 0)]


def test_a_number_that_json_does_not_have_comes_back(shelf: Shelf, tmp_path: Path) -> None:
    output = _stored(shelf, _stream(tmp_path / "new", "people", pa.table({"share": [0.5, float("nan")]})))
    assert same(output.value()["rows"], [[0.5], [float("nan")]])


def test_rows_are_json_values_of_the_types_of_their_columns(shelf: Shelf, tmp_path: Path) -> None:
    share = pa.array([20.0, None, 0.5])
    address = pa.array(['{"a": 1.50}', '{"b": NaN}', None])
    table = pa.table([share, address], schema=pa.schema([pa.field("share", pa.float64()), json_field("address")]))
    rows = _stored(shelf, _stream(tmp_path / "new", "people", table)).value()["rows"]
    assert same(rows, [[20.0, {"a": 1.5}], [None, {"b": float("nan")}], [0.5, None]])
