"""A transformer block as a recipe: items in, the block's file, items out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from streamline.blocks.python.function import BlockFile, Shape, shape_of
from streamline.blocks.python.live.transform import TransformStage
from streamline.errors import ConfigError, StreamlineError
from streamline.flow.items import Item, JSONObject, Position, RawBatch, Schema
from tests.blocks.python.live.kitchen import (
    INTEGER,
    PANDAS,
    STRING,
    Kitchen,
    code,
    kinds,
    position,
    props_of,
    records,
    rows_of,
    schema,
)

# Every shape in which records come, and how it doubles `total` in a column of its own.
DOUBLING = {
    "rows": code("for row in rows:\n    row['twice'] = row['total'] * 2\nreturn rows"),
    "rows by name": code("return [{**row, 'twice': row['total'] * 2} for row in rows]", "rows: 'list[dict]', **kwargs"),
    "pandas": code("df['twice'] = df['total'] * 2\nreturn df", **PANDAS),
    "no annotation": code("df['twice'] = df['total'] * 2\nreturn df", "df, *args, **kwargs"),
    "polars": code(
        "return df.with_columns(twice=pl.col('total') * 2)", "df: pl.DataFrame, **kwargs", "import polars as pl"
    ),
    "arrow": code(
        "return table.append_column('twice', pc.multiply(table['total'], 2))",
        "table: 'pa.Table', **kwargs",
        "import pyarrow as pa, pyarrow.compute as pc",
    ),
    "record batch": code(
        "return pa.table({**{n: batch.column(n) for n in batch.schema.names}, "
        "'twice': [2 * v for v in batch['total'].to_pylist()]})",
        "batch: RecordBatch, **kwargs",
        "import pyarrow as pa\nfrom pyarrow import RecordBatch",
    ),
    "injected decorator": "@transformer\ndef transform(rows: list, **kwargs):\n"
    "    return [{**row, 'twice': row['total'] * 2} for row in rows]\n",
    "idiom": "if 'transformer' not in globals():\n    raise ImportError\n\n@transformer\n"
    "def transform(rows: list[dict]):\n    return [{**row, 'twice': row['total'] * 2} for row in rows]\n",
}


@pytest.mark.parametrize("shape", DOUBLING)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_new_column_reaches_records_and_schema(kitchen: Kitchen, shape: str, workers: int) -> None:
    pytest.importorskip("polars" if shape == "polars" else "pandas")
    items = [
        schema(keys=["id"], id=INTEGER, total=INTEGER),
        records({"id": 1, "total": 5}, {"id": 2, "total": 7}, version=3),
    ]
    out = kitchen.run(DOUBLING[shape], items, configuration={"workers": workers})
    assert kinds(out) == ["Schema", "RawBatch"]
    assert rows_of(out) == [{"id": 1, "total": 5, "twice": 10}, {"id": 2, "total": 7, "twice": 14}]
    assert props_of(out) == [{"id": INTEGER, "total": INTEGER, "twice": INTEGER}]
    assert b'"version":3' in bytes(out[1].slices[0])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("body", "options", "expected"),
    [
        ("return [row for row in rows if row['id'] > 1]", {}, [{"id": 2, "n": "b"}]),
        ("return rows + rows[:1]", {}, [{"id": 1, "n": "a"}, {"id": 2, "n": "b"}, {"id": 1, "n": "a"}]),
        ("return None", {}, []),
        ("return []", {}, []),
        ("return rows[0]", {}, [{"id": 1, "n": "a"}]),
        ("yield from rows", {}, [{"id": 1, "n": "a"}, {"id": 2, "n": "b"}]),
        ("return df[df.id > 1]", PANDAS, [{"id": 2, "n": "b"}]),
        ("return df.iloc[0:0]", PANDAS, []),
        ("return pd.concat([df, df.tail(1)])", PANDAS, [{"id": 1, "n": "a"}, {"id": 2, "n": "b"}, {"id": 2, "n": "b"}]),
        ("return df.to_dict('records')", PANDAS, [{"id": 1, "n": "a"}, {"id": 2, "n": "b"}]),
        ("import pandas as pd\nreturn pd.DataFrame(rows)", {}, [{"id": 1, "n": "a"}, {"id": 2, "n": "b"}]),
        ("df['n'] = df['n'].str.upper()\nreturn df", PANDAS, [{"id": 1, "n": "A"}, {"id": 2, "n": "B"}]),
    ],
)  # fmt: skip
def test_rows_may_be_filtered_changed_and_multiplied(
    kitchen: Kitchen, body: str, options: dict[str, str], expected: list[JSONObject]
) -> None:
    given = schema(keys=["id"], id=INTEGER, n=STRING)
    out = kitchen.run(code(body, **options), [given, records({"id": 1, "n": "a"}, {"id": 2, "n": "b"})])
    assert rows_of(out) == expected
    sent = msgspec.structs.replace(given, assumed=not expected)  # byte for byte what the tap wrote
    assert [item for item in out if isinstance(item, Schema)] == [sent]


def test_the_function_gets_stream_and_what_it_asks_for(kitchen: Kitchen) -> None:
    body = (
        "return [{'id': 1, 'stream': stream, 'env': env, 'file': __file__.endswith('mask.py'), 'rest': sorted(kwargs)}]"
    )
    out = kitchen.run(
        code(body, "rows: list[dict], *args, env, stream=None, **kwargs"),
        [schema(id=INTEGER), records({"id": 1})],
        keywords={"env": "dev", "run_id": "r1", "rows": "taken by position"},
    )
    assert rows_of(out) == [{"id": 1, "stream": "orders", "env": "dev", "file": True, "rest": ["logger", "run_id"]}]


def test_the_file_is_loaded_once(kitchen: Kitchen) -> None:
    counting = code("global calls\ncalls += 1\nreturn [{'id': calls}]", head="calls = 0")
    out = kitchen.run(counting, [schema(id=INTEGER), *(records({"id": 0}) for _ in range(3))])
    assert [row["id"] for row in rows_of(out)] == [1, 2, 3]


SIZES = code("return [{'n': len(rows), 'of': kwargs['stream']}]")


def test_small_batches_are_gathered_over_positions_and_the_newest_position_goes_last(kitchen: Kitchen) -> None:
    items: list[Item] = [schema(n=INTEGER, of=STRING)]
    for number in range(1, 8):
        items += [records({"n": 0}, {"n": 0}), position(number)]
    out = kitchen.run(SIZES, items, flush_each=False, configuration={"batch_rows": 6})
    assert [row["n"] for row in rows_of(out)] == [6, 6, 2]
    places = [item.number for item in out if isinstance(item, Position)]
    assert places == sorted(places)
    assert out[-1] == position(7)
    assert len(places) < 7


def test_a_position_never_overtakes_records(kitchen: Kitchen) -> None:
    items: list[Item] = [schema(id=INTEGER), schema("lines", id=INTEGER)]
    for number in range(1, 40):
        items += [records({"id": number}, stream="orders" if number % 5 else "lines"), position(number)]
    out = kitchen.run(code("return rows"), items, flush_each=False, configuration={"batch_rows": 7})
    seen = 0
    for item in out:
        if isinstance(item, Position):
            assert item.number <= seen, "a position came before records that it covers"
        elif isinstance(item, RawBatch):
            ids = [row["id"] for row in rows_of([item], item.stream)]
            assert ids == sorted(ids)
            seen = len(rows_of(out[: out.index(item) + 1])) + len(rows_of(out[: out.index(item) + 1], "lines"))
    assert out[-1] == position(39)


def test_a_position_passes_at_once_when_nothing_is_held(kitchen: Kitchen) -> None:
    out = kitchen.run(SIZES, [schema(n=INTEGER), position(1), position(2)], flush_each=False, finish=False)
    assert out == [position(1), position(2)]


def test_a_large_batch_is_given_in_parts(kitchen: Kitchen) -> None:
    out = kitchen.run(SIZES, [schema(n=INTEGER), records(*({"n": 0},) * 25)], configuration={"batch_rows": 10})
    assert [row["n"] for row in rows_of(out)] == [10, 10, 5]


def test_it_runs_on_trio_as_well(kitchen: Kitchen) -> None:
    pytest.importorskip("trio")

    async def cook() -> list[Item]:
        stage = TransformStage(kitchen.block(SIZES), timeout=5)
        try:
            await stage.start()
            held = [*await stage.process(schema(n=INTEGER)), *await stage.process(records({"n": 0}, {"n": 0}))]
            return [*held, *await stage.finish()]
        finally:
            await stage.close()

    assert [row["n"] for row in rows_of(anyio.run(cook, backend="trio"))] == [2]


def test_records_before_their_schema_are_an_error(kitchen: Kitchen) -> None:
    with pytest.raises(StreamlineError, match="stream orders came before its SCHEMA"):
        kitchen.run(SIZES, [records({"id": 1})])


@pytest.mark.parametrize("configuration", [{"batch_rows": 0}, {"batch_rows": "5"}, {"workers": -1}, {"workers": True}])
def test_settings_out_of_range_are_refused(configuration: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="block mask"):
        TransformStage(BlockFile("mask", "mask.py"), configuration=configuration)


@pytest.mark.parametrize(
    ("annotation", "shape"),
    [
        ("", Shape.PANDAS),
        (": pd.DataFrame", Shape.PANDAS),
        (": 'DataFrame'", Shape.PANDAS),
        (": List[Dict]", Shape.ROWS),
        (": list", Shape.ROWS),
        (": list[dict] | None", Shape.ROWS),
        (": typing.Optional[pl.DataFrame]", Shape.POLARS),
        (": Frame", Shape.POLARS),
        (": pyarrow.Table", Shape.TABLE),
        (": 'pa.RecordBatch'", Shape.RECORD_BATCH),
        (": Any", Shape.PANDAS),
    ],
)
def test_what_a_function_wants_is_read_without_running_it(kitchen: Kitchen, annotation: str, shape: Shape) -> None:
    head = "import polars as pl\nfrom polars import DataFrame as Frame\n1 / 0\n"
    text = head + f"@transformer()\ndef f(x{annotation}, **kwargs): ...\n"
    assert shape_of(kitchen.block(text)) is shape


def test_the_rows_lane_does_not_load_frames(kitchen: Kitchen) -> None:
    import subprocess

    kitchen.block(code("return rows"))
    script = f"""
import sys, anyio
sys.path.insert(0, {str(Path(__file__).parent)!r})
from streamline.blocks.python.live.transform import TransformStage
from streamline.blocks.python.function import BlockFile
from streamline.flow.items import RawBatch, Schema
async def main():
    stage = TransformStage(BlockFile("mask", {str(kitchen.folder / "mask.py")!r}))
    await stage.process(Schema("s", {{"properties": {{"id": {{"type": "integer"}}}}}}))
    await stage.process(RawBatch("s", [b'{{"record":{{"id":1}}}}\\n'], 1, 20))
    print(len(await stage.finish()), [n for n in ("pandas", "pyarrow", "numpy", "polars") if n in sys.modules])
    await stage.close()
anyio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
