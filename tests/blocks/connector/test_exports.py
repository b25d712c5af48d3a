"""What a block returned is what a destination is sent: every value, with a schema that allows it."""

from __future__ import annotations

import datetime as dt
import json
import math
import tempfile
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import jsonschema_rs
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.blocks.call import BlockCall
from streamline.blocks.connector.exports import with_streams
from streamline.blocks.connector.prepared import Export, ExportedStream, PreparedDestination
from streamline.blocks.connector.spec import DestinationSpec
from streamline.connectors.outputs.table_source import TableSource
from streamline.execution.batch.inputs import StoredInput
from streamline.execution.batch.task import InputRef
from streamline.execution.connector_blocks.plans import _table_stream
from streamline.flow.codecs.lanes import to_raw
from streamline.flow.items import ArrowBatch, Item
from streamline.outputs.store import project_key, write_output


def exported(value: Any, folder: Path) -> list[ExportedStream]:
    """Return the streams that a destination block exports of what a block `load` returned."""
    project = folder / ".streamline"
    project.mkdir()
    write_output(project / "load", value, run_id="r", secrets_key=lambda: project_key(project))
    upstream = StoredInput(InputRef(block="load", type="data_loader", folder=str(project / "load")))
    call = cast(BlockCall, SimpleNamespace(inputs=[upstream], where="metadata.yaml"))
    destination = DestinationSpec(destination="target")
    prepared = PreparedDestination(spec=destination, exports=[Export(index=0, block="load")])
    (export,) = with_streams(call, prepared, folder / "exports").exports
    return export.exported


def sent(streams: list[ExportedStream]) -> dict[str, list[Any]]:
    """Return the records that a target is sent, by stream."""
    records: dict[str, list[Any]] = {stream.stream: [] for stream in streams}

    async def emit(items: list[Item]) -> None:
        for item in items:
            if isinstance(item, ArrowBatch):
                lines = b"".join(to_raw(item).slices).splitlines()
                records[item.stream] += [json.loads(line, parse_float=Decimal)["record"] for line in lines]

    anyio.run(TableSource("load", [_table_stream(stream) for stream in streams]).run, emit)
    for stream in streams:
        validator = jsonschema_rs.validator_for(stream.schema)
        for record in records[stream.stream]:
            validator.validate(json.loads(json.dumps(record, default=float)))
    return records


KINDS: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "text": st.text(max_size=5),
    "boolean": st.booleans(),
    "decimal": st.decimals(-(10**9), 10**9, places=3),
    "date": st.dates(dt.date(1, 1, 1)),
    "time": st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)),
    "list": st.lists(st.integers(0, 9), max_size=3),
    "nested": st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.lists(st.text(max_size=2), max_size=2)}),
}


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    columns = draw(st.dictionaries(st.sampled_from("abcdefg"), st.sampled_from(sorted(KINDS)), min_size=1, max_size=4))
    row = st.fixed_dictionaries({name: st.none() | KINDS[kind] for name, kind in columns.items()})
    return draw(st.lists(row, min_size=1, max_size=5))


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, dt.date):
        return value.isoformat()
    return value


def same(found: Any, value: Any) -> bool:
    if isinstance(value, float):
        return math.isclose(float(found), value, rel_tol=1e-15) if found is not None else False
    if isinstance(value, dt.datetime):
        return dt.datetime.fromisoformat(found.replace("Z", "+00:00")).replace(tzinfo=None) == value
    if isinstance(value, list):
        return len(found) == len(value) and all(same(*pair) for pair in zip(found, value, strict=True))
    if isinstance(value, dict):
        return found.keys() == value.keys() and all(same(found[name], value[name]) for name in value)
    return bool(found == plain(value))


@given(tables())
def test_records_reach_a_destination_as_a_block_returned_them(table: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        records = sent(exported(table, Path(folder)))["load"]
    assert len(records) == len(table)
    for record, row in zip(records, table, strict=True):
        assert {name: value for name, value in record.items() if value is not None}.keys() == {
            name for name, value in row.items() if value is not None
        }
        assert all(same(record[name], value) for name, value in row.items() if value is not None), (record, row)


@given(tables())
def test_frames_reach_a_destination_as_lists_do(table: list[dict[str, Any]]) -> None:
    arrow = pa.Table.from_pylist(table)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        of_arrow = sent(exported(arrow, Path(first)))["load"]
        of_pandas = sent(exported(arrow.to_pandas(types_mapper=pd.ArrowDtype), Path(second)))["load"]
    assert of_arrow == of_pandas
    assert len(of_arrow) == len(table)


@pytest.mark.parametrize(
    ("value", "streams"),
    [
        (pd.DataFrame([], columns=["a"]), []),
        (pd.DataFrame({"a": pd.Series([], dtype="int64")}), ["load"]),
        ([], []),
        ({"stream": "s", "columns": ["a"], "rows": []}, []),
        (
            [{"stream": "s", "columns": ["a"], "rows": [[1]]}, {"stream": "t", "columns": ["a"], "rows": [[2]]}],
            ["s", "t"],
        ),
    ],
)
def test_tables_without_a_known_column_are_no_streams(value: Any, streams: list[str], tmp_path: Path) -> None:
    assert [each.stream for each in exported(value, tmp_path)] == streams
