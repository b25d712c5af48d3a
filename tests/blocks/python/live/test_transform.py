"""A transformer block as a recipe: items in, the block's file, items out."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamline.blocks.python.function import BlockFile, Shape, shape_of
from streamline.blocks.python.live.transform import TransformStage
from streamline.errors import ConfigError, PipelineFailed, StreamFailed, StreamlineError
from streamline.flow.items import ActivateVersion, BadRecord, Item, JSONObject, Position, RawBatch, Schema
from tests.processes.pools import alive
from tests.support.processes import wait_until

INTEGER = {"type": ["null", "integer"]}
NUMBER = {"type": ["null", "number"]}
STRING = {"type": ["null", "string"]}


def schema(stream: str = "orders", keys: Sequence[str] = (), **props: JSONObject) -> Schema:
    return Schema(
        stream, {"type": "object", "properties": props}, key_properties=list(keys), raw=b"as the tap wrote it"
    )


def records(*rows: JSONObject | str, stream: str = "orders", **envelope: Any) -> RawBatch:
    lines = []
    for row in rows:
        text = row if isinstance(row, str) else json.dumps(row)
        rest = "".join(f',"{key}":{json.dumps(value)}' for key, value in envelope.items())
        lines.append(f'{{"type":"RECORD","stream":"{stream}","record":{text}{rest}}}\n'.encode())
    return RawBatch(stream, list(lines), len(lines), sum(map(len, lines)))


def position(number: int) -> Position:
    return Position("shop", number, {})


class Kitchen:
    """Makes a stage of a block's code and runs items through it as the router does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def block(self, code: str) -> BlockFile:
        path = self.folder / "mask.py"
        path.write_text(code)
        return BlockFile("mask", str(path))

    def run(
        self, code: str, items: Iterable[Item], *, flush_each: bool = True, finish: bool = True, **options: Any
    ) -> list[Item]:
        async def cook() -> list[Item]:
            stage = TransformStage(self.block(code), **options)
            out: list[Item] = []
            try:
                for item in items:
                    out += await stage.process(item)
                    if flush_each and stage.pending:
                        out += await stage.flush()
                if finish:
                    out += await stage.finish()
            finally:
                await stage.close()
            return out

        return anyio.run(cook)


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


def lines(batch: RawBatch) -> list[bytes]:
    return b"".join(map(bytes, batch.slices)).splitlines()


def rows_of(items: Iterable[Item], stream: str = "orders") -> list[JSONObject]:
    return [
        json.loads(line)["record"]
        for item in items
        if isinstance(item, RawBatch) and item.stream == stream
        for line in lines(item)
    ]


def props_of(items: Iterable[Item]) -> list[JSONObject]:
    return [item.schema["properties"] for item in items if isinstance(item, Schema)]


def kinds(items: Iterable[Item]) -> list[str]:
    return [f"{type(item).__name__}" for item in items]


def code(body: str, signature: str = "rows: list[dict], *args, **kwargs", head: str = "") -> str:
    lines = "\n".join("    " + line for line in body.splitlines())
    return (
        f"from streamline.decorators import transformer\n{head}\n\n@transformer\ndef transform({signature}):\n{lines}\n"
    )


PANDAS = {"signature": "df: pd.DataFrame, *args, **kwargs", "head": "import pandas as pd"}

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


def test_untouched_values_keep_their_exact_text(kitchen: Kitchen) -> None:
    text = (
        '{"id":1,"big":123456789012345678901234567890,"exact":0.12345678901234567891,'
        '"odd":"\\ud800","nan":NaN,"doc":{"b":1.5,"a":[null]}}'
    )
    given = [
        schema(id=INTEGER, big=INTEGER, exact=NUMBER, odd=STRING, nan=NUMBER, doc={"type": "object"}),
        records(text),
    ]
    rows = kitchen.run(code("return rows"), given)
    assert text.encode() in bytes(rows[1].slices[0])  # type: ignore[union-attr]
    frame = kitchen.run(code("return df", **PANDAS), given)
    assert json.loads(bytes(frame[1].slices[0]))["record"]["big"] == 123456789012345678901234567890  # type: ignore[union-attr]
    assert b'"odd":"\\ud800","nan":NaN,"doc":{"b":1.5,"a":[null]}' in bytes(frame[1].slices[0])  # type: ignore[union-attr]
    assert props_of(frame) == props_of(rows) == [given[0].schema["properties"]]  # type: ignore[union-attr]


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


# Batches and positions


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


def test_worker_processes_keep_the_order(kitchen: Kitchen) -> None:
    slow_first = code("import time\ntime.sleep(0.3 if rows[0]['id'] == 0 else 0)\nreturn rows")
    items: list[Item] = [schema(id=INTEGER)]
    for number in range(6):
        items += [records({"id": number}), position(number + 1)]
    out = kitchen.run(slow_first, items, flush_each=False, configuration={"workers": 3, "batch_rows": 1})
    assert [row["id"] for row in rows_of(out)] == list(range(6))
    assert out[-1] == position(6)


# SCHEMA


def test_the_schema_waits_for_the_first_output_and_comes_in_the_end_without_any(kitchen: Kitchen) -> None:
    keep_late = code("return [row for row in rows if row['id'] > 1]")
    given = schema(id=INTEGER)
    assert kinds(kitchen.run(keep_late, [given, records({"id": 1}), position(1), records({"id": 2})])) == [
        "Position",
        "Schema",
        "RawBatch",
    ]
    assumed = msgspec.structs.replace(given, assumed=True)
    assert kitchen.run(keep_late, [given, records({"id": 1})]) == [assumed]
    activate = ActivateVersion("orders", 5)
    assert kitchen.run(keep_late, [given, activate]) == [assumed, activate]
    assert kitchen.run(keep_late, [given, activate, records({"id": 2})])[:3] == [assumed, activate, given]


@pytest.mark.parametrize("signature", ["rows: list[dict], **kwargs", "df, **kwargs"])
def test_a_column_that_is_all_null_waits_for_its_type(kitchen: Kitchen, signature: str) -> None:
    rows = code(
        "global calls\ncalls += 1\nreturn [{**r, 'new': None if calls == 1 else 'x'} for r in rows]", head="calls = 0"
    )
    frame = code(
        "global calls\ncalls += 1\ndf['new'] = None if calls == 1 else 'x'\nreturn df", "df, **kwargs", "calls = 0"
    )
    out = kitchen.run(
        rows if "rows" in signature else frame, [schema(id=INTEGER), records({"id": 1}), records({"id": 2})]
    )
    assert kinds(out) == ["Schema", "RawBatch", "Schema", "RawBatch"]
    assert props_of(out) == [{"id": INTEGER}, {"id": INTEGER, "new": STRING}]
    assert rows_of(out) == [{"id": 1}, {"id": 2, "new": "x"}]


@pytest.mark.parametrize("frame", [False, True])
def test_a_column_that_is_null_again_is_sent_as_null(kitchen: Kitchen, frame: bool) -> None:
    rows = code("return [{**row, 'new': None} for row in rows]")
    frames = code("df['new'] = None\nreturn df", "df")
    out = kitchen.run(
        frames if frame else rows, [schema(id=INTEGER), records({"id": 1})], earlier=lambda stream: {"new": STRING}
    )
    assert rows_of(out) == [{"id": 1, "new": None}]
    assert props_of(out) == [{"id": INTEGER, "new": STRING}]
    assert [item.added for item in out if isinstance(item, Schema)] == [frozenset({"new"})]


@pytest.mark.parametrize("frame", [False, True])
def test_dropped_columns_leave_the_schema_and_come_back_with_it(kitchen: Kitchen, frame: bool) -> None:
    rows = code("return [{k: v for k, v in r.items() if k != 'b' or r['id'] == 2} for r in rows]")
    frames = code("return df if df['id'].iloc[0] == 2 else df.drop(columns='b')", "df")
    given = schema(keys=["id"], id=INTEGER, a=STRING, b=NUMBER, sparse=STRING)
    items = [given, *(records({"id": n, "a": "x", "b": 0.5}) for n in (1, 2, 3))]
    out = kitchen.run(frames if frame else rows, items)
    without = {"id": INTEGER, "a": STRING, "sparse": STRING}
    assert props_of(out) == [without, {**without, "b": NUMBER}]
    assert [list(row) for row in rows_of(out)] == [["id", "a"], ["id", "a", "b"], ["id", "a"]]


@pytest.mark.parametrize("lane", ["rows", "frame", "arrow"])
@pytest.mark.parametrize("lost", [[2], [1, 2, 3]])
def test_a_key_that_the_block_made_null_is_a_bad_record(kitchen: Kitchen, lane: str, lost: list[int]) -> None:
    blocks = {
        "rows": code(f"return [{{**r, 'id': None if r['id'] in {lost} else r['id']}} for r in rows]"),
        "frame": code(f"df['id'] = df['id'].mask(df['id'].isin({lost}))\nreturn df", "df"),
        "arrow": code(
            f"ids = pa.array([None if one in {lost} else one for one in t['id'].to_pylist()])\n"
            "return t.set_column(0, 'id', ids)",
            "t: pa.Table",
            "import pyarrow as pa",
        ),
    }
    given = schema(keys=["id"], id=INTEGER, a=STRING)
    out = kitchen.run(blocks[lane], [given, records(*({"id": n, "a": "x"} for n in (1, 2, 3)))])
    assert rows_of(out) == [{"id": n, "a": "x"} for n in (1, 2, 3) if n not in lost]
    bad = [item for item in out if isinstance(item, BadRecord)]
    assert len(bad) == len(lost)
    assert {item.error for item in bad} == {"the key column id is null, but was not null before the block"}


@pytest.mark.parametrize("frame", [False, True])
def test_a_null_key_that_the_tap_sent_passes(kitchen: Kitchen, frame: bool) -> None:
    same = code("return df", "df") if frame else code("return rows")
    given = schema(keys=["id"], id=INTEGER, a=STRING)
    out = kitchen.run(same, [given, records({"id": None, "a": "x"}, {"id": 2, "a": "y"})])
    assert rows_of(out) == [{"id": None, "a": "x"}, {"id": 2, "a": "y"}]


@pytest.mark.parametrize("frame", [False, True])
def test_a_record_that_the_tap_sent_without_its_key_passes(kitchen: Kitchen, frame: bool) -> None:
    same = code("return df", "df") if frame else code("return rows")
    given = schema(keys=["id"], id=INTEGER, a=STRING)
    out = kitchen.run(same, [given, records({"a": "x"}, {"id": 2, "a": "y"})])
    assert rows_of(out) == [{"a": "x"}, {"id": 2, "a": "y"}]


@pytest.mark.parametrize("frame", [False, True])
def test_losing_a_key_column_names_it(kitchen: Kitchen, frame: bool) -> None:
    lose = code("return df.drop(columns='id')", "df") if frame else code("return [{'a': 1} for _ in rows]")
    with pytest.raises(PipelineFailed, match="stream orders lack the key column id"):
        kitchen.run(lose, [schema(keys=["id"], id=INTEGER, a=INTEGER), records({"id": 1, "a": 1})])


@pytest.mark.parametrize("frame", [False, True])
def test_types_of_new_columns_only_widen_and_misfits_are_quarantined(kitchen: Kitchen, frame: bool) -> None:
    values = [1, 2.5, "text", 3, None]
    rows = code("return [{**r, 'new': values[r['id']]} for r in rows]", head=f"values = {values!r}")
    frames = code("df['new'] = values[df['id'].iloc[0]]\nreturn df", "df", f"values = {values!r}")
    out = kitchen.run(frames if frame else rows, [schema(id=INTEGER), *(records({"id": n}) for n in range(5))])
    assert [prop["new"]["type"] for prop in props_of(out)] == [["null", "integer"], ["null", "number"]]
    assert [row["new"] for row in rows_of(out)] == [1, 2.5, 3, None]
    (bad,) = [item for item in out if isinstance(item, BadRecord)]
    assert (json.loads(bad.record), bad.stage, bad.stream) == ({"id": 2, "new": "text"}, "mask", "orders")
    assert bad.error == "column new has a value of type string, but its earlier values are number"


@pytest.mark.parametrize("frame", [False, True])
def test_a_column_given_another_type_takes_it_into_the_schema(kitchen: Kitchen, frame: bool) -> None:
    rows = code("return [{**r, 'id': f\"#{r['id']}\", 'at': r['at'][:10] + '!'} for r in rows]")
    frames = code(
        "df['id'] = '#' + df['id'].astype(str)\ndf['at'] = df['at'].dt.strftime('%Y-%m-%d') + '!'\nreturn df", "df"
    )
    given = schema(keys=["id"], id={"type": "integer"}, at={"type": ["null", "string"], "format": "date-time"})
    out = kitchen.run(frames if frame else rows, [given, records({"id": 7, "at": "2024-05-01T00:00:00Z"})])
    assert rows_of(out) == [{"id": "#7", "at": "2024-05-01!"}]
    assert props_of(out)[0]["id"] == {"type": ["string"]}
    if frame:  # a row's string says nothing about the format that it once had
        assert props_of(out)[0]["at"] == STRING


def test_moments_from_python_get_a_format_and_an_offset(kitchen: Kitchen) -> None:
    body = (
        "import datetime as dt, decimal\n"
        "return [{'naive': dt.datetime(2024, 5, 1), 'day': dt.date(2024, 5, 1), 'price': decimal.Decimal('1.10')}]"
    )
    out = kitchen.run(code(body), [schema(), records({"id": 1})])
    assert rows_of(out) == [{"naive": "2024-05-01T00:00:00Z", "day": "2024-05-01", "price": 1.10}]
    assert b'"price":1.10' in bytes(out[1].slices[0])  # type: ignore[union-attr]
    assert props_of(out) == [
        {
            "naive": {"type": ["null", "string"], "format": "date-time"},
            "day": {"type": ["null", "string"], "format": "date"},
            "price": NUMBER,
        }
    ]


def test_moments_in_frames_come_back_in_the_schemas_format(kitchen: Kitchen) -> None:
    moment = {"type": ["null", "string"], "format": "date-time"}
    body = "df['later'] = df['at'] + pd.Timedelta(days=1)\ndf['naive'] = pd.Timestamp('2024-01-01')\nreturn df"
    given = [schema(at=moment), records({"at": "2024-05-01T02:00:00+02:00"}, {"at": None})]
    out = kitchen.run(code(body, **PANDAS), given)
    assert props_of(out) == [{"at": moment, "later": moment, "naive": moment}]
    first, second = rows_of(out)
    assert (first["at"], first["later"]) == ("2024-05-01T00:00:00.000000Z", "2024-05-02T00:00:00.000000Z")
    assert first["naive"].endswith("Z")
    assert (second["at"], second["later"]) == (None, None)


def test_what_the_tap_sends_is_no_misfit(kitchen: Kitchen) -> None:
    given = schema(id=INTEGER, a=INTEGER)
    odd = [records({"id": 1, "a": "text"}), records({"id": 2, "a": 5, "undeclared": [1]}), records({"id": 3})]
    for body, signature in (("return rows", "rows: list[dict]"), ("return df", "df")):
        out = kitchen.run(code(body, signature), [given, *odd])
        assert [item for item in out if isinstance(item, Schema)] == [given]
        assert rows_of(out) == [{"id": 1, "a": "text"}, {"id": 2, "a": 5, "undeclared": [1]}, {"id": 3}]


def test_integers_that_a_frame_made_floats_are_integers_again(kitchen: Kitchen) -> None:
    body = "df['id'] = df['id'].astype('float64')\nreturn df"
    out = kitchen.run(code(body, "df"), [schema(id=INTEGER), records({"id": 1})])
    assert bytes(out[1].slices[0]).endswith(b'"record":{"id":1}}\n')  # type: ignore[union-attr]


def test_nan_from_a_frames_arithmetic_is_null(kitchen: Kitchen) -> None:
    body = "import pyarrow.compute as pc\nreturn t.append_column('r', pc.divide(t['a'], t['b']))"
    out = kitchen.run(
        code(body, "t: pyarrow.Table", "import pyarrow"),
        [schema(a=NUMBER, b=NUMBER), records({"a": 0, "b": 0}, {"a": 1, "b": 2})],
    )
    assert rows_of(out) == [{"a": 0, "b": 0, "r": None}, {"a": 1, "b": 2, "r": 0.5}]


def test_a_new_schema_from_the_tap_keeps_what_the_block_added(kitchen: Kitchen) -> None:
    add = code("return [{**row, 'new': 1.5 if row['id'] == 1 else 2} for row in rows]")
    later = schema(id=INTEGER, more=STRING)
    out = kitchen.run(
        add, [schema(id=INTEGER), records({"id": 1}), later, later, records({"id": 2, "more": "x"}), later]
    )
    assert kinds(out) == ["Schema", "RawBatch", "Schema", "RawBatch", "Schema"]
    assert props_of(out)[1:] == [{"id": INTEGER, "more": STRING, "new": NUMBER}] * 2


def test_a_frame_with_a_column_of_several_types_goes_by_rows(kitchen: Kitchen) -> None:
    body = "df['mixed'] = pd.Series([{'a': 1}, None], dtype=object)\nreturn df"
    out = kitchen.run(code(body, **PANDAS), [schema(id=INTEGER), records({"id": 1}, {"id": 2})])
    assert [row["mixed"] for row in rows_of(out)] == [{"a": 1}, None]
    assert props_of(out)[0]["mixed"]["type"] == ["null", "object"]


OBJECT = {"type": ["null", "object"], "properties": {"k": INTEGER}}
RENAMES = {
    "pandas": code("return df.rename(columns={'doc': 'new'})", **PANDAS),
    "copied": code("df['new'] = df['doc']\nreturn df[df['id'] > 1]", **PANDAS),
    "mixed": code("df['x'] = [{'a': 1}, {'a': 'x'}, None]\ndf['new'] = df['doc']\nreturn df", **PANDAS),
    "polars": code("return df.rename({'doc': 'new'})", "df: pl.DataFrame, **kwargs", "import polars as pl"),
    "arrow": code("return t.rename_columns(['id', 'new', 'at'])", "t: pa.Table", "import pyarrow as pa"),
}


@pytest.mark.parametrize("shape", RENAMES)
def test_nested_values_in_frames_keep_their_form_under_another_name(kitchen: Kitchen, shape: str) -> None:
    pytest.importorskip("polars" if shape == "polars" else "pandas")
    rows: list[JSONObject] = [
        {"id": 1, "doc": {"k": 1}, "at": "2024-05-01T00:00:00"},
        {"id": 2, "doc": {"k": 2}, "at": "2024-05-01T00:00:01"},
        {"id": 3, "doc": None, "at": None},
    ]
    moment = {"type": ["null", "string"], "format": "date-time"}
    out = kitchen.run(RENAMES[shape], [schema(id=INTEGER, doc=OBJECT, at=moment), records(*rows)])
    arrived = rows_of(out)
    assert [row["new"] for row in arrived] == [row["doc"] for row in rows][-len(arrived) :]
    assert [row.get("doc") in (None, row["new"]) for row in arrived] == [True] * len(arrived)
    assert arrived[-2]["at"][:19] == rows[1]["at"]
    assert not arrived[-2]["at"].endswith("Z")
    assert "object" in props_of(out)[-1]["new"]["type"]


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        ("df['price'] = df['price'].astype('float64') * 1.075\nreturn df", "df"),
        ("df['price'] = df['price'] * 1.075\nreturn df", "df"),
        ("return [{**row, 'price': float(row['price']) * 1.075} for row in rows]", "rows: list[dict]"),
        ("return [{**row, 'price': row['price'] * Decimal('1.075')} for row in rows]", "rows: list[dict]"),
    ],
)
def test_a_recomputed_decimal_keeps_its_digits(kitchen: Kitchen, body: str, signature: str) -> None:
    money = {"type": ["null", "number"], "multipleOf": 0.01}
    given = [schema(id=INTEGER, price=money), records('{"id":1,"price":19.90}', '{"id":2,"price":4.995}')]
    out = kitchen.run(code(body, signature, "from decimal import Decimal"), given)
    assert [row["price"] for row in rows_of(out)] == pytest.approx([21.3925, 5.369625])
    assert props_of(out)[-1]["price"] == NUMBER

    twice = body.replace("1.075", "2" if "Decimal" in body else "2.0")
    out = kitchen.run(code(twice, signature, "from decimal import Decimal"), given)
    assert [row["price"] for row in rows_of(out)] == [39.8, 9.99]
    assert props_of(out) == [{"id": INTEGER, "price": money}]


json_rows = st.lists(
    st.dictionaries(
        st.sampled_from(["id", "n", "s", "t", "doc", "other"]),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers())
        | st.sampled_from(["2024-05-01T00:00:00Z", "2024-05-01"]),
        min_size=1,
    ),
    min_size=1,
    max_size=8,
)  # fmt: skip
TYPED = schema(
    id=INTEGER, n=NUMBER, s=STRING, t={"type": ["null", "string"], "format": "date-time"}, doc={"type": "object"}
)


@pytest.mark.parametrize("signature", ["rows: list[dict]", "rows: 'pd.DataFrame'"])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(json_rows, min_size=1, max_size=4))
def test_what_the_block_leaves_alone_arrives_whatever_the_schema_says(
    kitchen: Kitchen, signature: str, batches: list[list[JSONObject]]
) -> None:
    out = kitchen.run(code("return rows", signature), [TYPED, *(records(*rows) for rows in batches)])
    sent = [row for rows in batches for row in rows]
    moment = "2024-05-01T00:00:00"
    arrived = [
        {name: f"{moment}Z" if value == f"{moment}.000000Z" else value for name, value in row.items()}
        for row in rows_of(out)
    ]
    assert arrived == sent
    assert [item for item in out if isinstance(item, Schema)] == [TYPED]


# What goes wrong


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_shows_the_users_own_lines(kitchen: Kitchen, workers: int) -> None:
    raising = code("helper(rows)", head="def helper(rows):\n    return rows[0]['nothing']\n")
    with pytest.raises(PipelineFailed) as caught:
        kitchen.run(raising, [schema(id=INTEGER), records({"id": 1})], configuration={"workers": workers})
    text = str(caught.value)
    assert caught.value.blocks == ["mask"]
    assert caught.value.where == f"{kitchen.folder / 'mask.py'}:3"
    assert "stream orders: KeyError: 'nothing'" in text
    assert "return rows[0]['nothing']" in text
    assert "helper(rows)" in text
    assert "python_function.py" not in text


def test_what_came_before_a_failing_batch_is_given_first(kitchen: Kitchen) -> None:
    raising = code("return [{'id': 1 // (2 - row['id'])} for row in rows]")

    async def cook() -> list[Item]:
        stage = TransformStage(kitchen.block(raising), configuration={"batch_rows": 1})
        out: list[Item] = []
        try:
            with pytest.raises(PipelineFailed, match="ZeroDivisionError"):
                for item in (schema(id=INTEGER), records({"id": 1}), position(1), records({"id": 2})):
                    out += await stage.process(item)
                for _ in range(2):
                    out += await stage.flush()
        finally:
            await stage.close()
        return out

    assert kinds(anyio.run(cook)) == ["Schema", "RawBatch", "Position"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("def transform(rows):\n    return rows\n", "block.function_missing"),
        (
            "@transformer\ndef one(rows):\n    pass\n\n@transformer\ndef two(rows):\n    pass\n",
            "block.function_ambiguous",
        ),
        ("def transform(rows:\n", "block.syntax"),
        ("@transformer\ndef transform(rows: set):\n    pass\n", "block.unknown_annotation"),
    ],
)
def test_what_is_wrong_with_a_file_is_known_at_the_start(kitchen: Kitchen, text: str, code: str) -> None:
    async def cook() -> None:
        stage = TransformStage(kitchen.block(text))
        try:
            await stage.start()
        finally:
            await stage.close()

    with pytest.raises(ConfigError) as caught:
        anyio.run(cook)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 5", "returned a int"),
        ("return [1]", "a list with a int in it"),
        ("return [{1: 2}]", "keys that are not strings"),
        ("return [{'id': object()}]", "a value of type builtins.object cannot be represented in JSON"),
        ("import pandas as pd\nreturn pd.DataFrame([[1, 2]], columns=['a', 'a'])", "duplicate column a"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_result_that_is_no_records_is_named(kitchen: Kitchen, body: str, message: str) -> None:
    with pytest.raises(PipelineFailed, match=message):
        kitchen.run(code(body), [schema(id=INTEGER), records({"id": 1})])


@pytest.mark.parametrize(("workers", "hint"), [(0, "a thread, which cannot be killed"), (1, "raise its `timeout`")])
def test_a_call_that_takes_too_long_fails_the_block(kitchen: Kitchen, workers: int, hint: str) -> None:
    sleepy = code("import time\ntime.sleep(30)")
    with pytest.raises(PipelineFailed, match=r"with records of stream orders: timed out after 0\.5 s") as caught:
        kitchen.run(sleepy, [schema(), records({"id": 1})], timeout=0.5, configuration={"workers": workers})
    assert hint in str(caught.value)
    assert caught.value.code == "block.timeout"


def test_code_that_ends_its_worker_process_fails_the_block(kitchen: Kitchen) -> None:
    with pytest.raises(PipelineFailed, match=r"transformer mask failed .*: the process exited with code 7") as caught:
        kitchen.run(code("import os\nos._exit(7)"), [schema(), records({"id": 1})], configuration={"workers": 1})
    assert caught.value.code == "block.exited"


def test_a_crash_in_a_worker_process_names_the_line(kitchen: Kitchen) -> None:
    with pytest.raises(PipelineFailed) as caught:
        kitchen.run(code("import os\nos.abort()"), [schema(), records({"id": 1})], configuration={"workers": 1})
    assert caught.value.code == "block.crashed"
    assert caught.value.where == f"{kitchen.folder / 'mask.py'}:7"


def test_worker_processes_keep_what_the_block_holds_and_end_with_all_that_it_started(kitchen: Kitchen) -> None:
    head = """
import os, subprocess, threading
calls = 0
os.environ["SEEN"] = "yes"
child = subprocess.Popen(["sleep", "600"])
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
    body = "global calls\ncalls += 1\nreturn [{'id': calls, 'seen': os.environ['SEEN'], 'pid': child.pid}]"
    out = kitchen.run(
        code(body, head=head),
        [schema(id=INTEGER, seen=STRING, pid=INTEGER), *(records({"id": 0}) for _ in range(3))],
        configuration={"workers": 1},
    )
    rows = rows_of(out)
    assert [(row["id"], row["seen"]) for row in rows] == [(1, "yes"), (2, "yes"), (3, "yes")]
    assert not alive(rows[0]["pid"])


RAISES = {
    "dicts": code("return [{'id': 10 // row['id']} for row in rows]"),
    "pandas": code("assert (df['id'] != 0).all(), 'zero'\nreturn df.assign(id=10 // df['id'])", **PANDAS),
}


@pytest.mark.parametrize("shape", RAISES)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_record_that_the_function_raises_on_is_set_aside_alone(kitchen: Kitchen, shape: str, workers: int) -> None:
    out = kitchen.run(
        RAISES[shape],
        [schema(id=INTEGER), records(*({"id": number} for number in (1, 2, 0, 5, 10, 0)))],
        configuration={"workers": workers},
        set_aside=lambda stream: stream == "orders",
    )
    assert [row["id"] for row in rows_of(out)] == [10, 5, 2, 1]
    bad = [item for item in out if isinstance(item, BadRecord)]
    assert [(each.record, each.stage, each.output) for each in bad] == [(b'{"id": 0}', "mask", False)] * 2
    assert f"{kitchen.folder / 'mask.py'}:" in bad[0].error


@pytest.mark.parametrize("count", [2, 500])
def test_a_stream_whose_every_record_raises_fails(kitchen: Kitchen, count: int) -> None:
    items = [schema(id=INTEGER), records(*({"id": 0} for _ in range(count)))]
    with pytest.raises(StreamFailed) as caught:
        kitchen.run(RAISES["dicts"], items, set_aside=lambda stream: True)
    assert (caught.value.stream, caught.value.code) == ("orders", "transformer.failed")


def test_a_value_that_breaks_its_schema_harms_no_other_record(kitchen: Kitchen) -> None:
    rows = [{"id": number, "status": 7 if number == 4 else "active"} for number in range(10)]
    out = kitchen.run(
        code("return df[df['status'] == 'active']", **PANDAS), [schema(id=INTEGER, status=STRING), records(*rows)]
    )
    assert [row["id"] for row in rows_of(out)] == [0, 1, 2, 3, 5, 6, 7, 8, 9]

    rows = [{"id": number, "qty": "n/a" if number == 4 else number} for number in range(10)]
    out = kitchen.run(code("return df[df['qty'] > 3]", **PANDAS), [schema(id=INTEGER, qty=INTEGER), records(*rows)])
    assert [row["id"] for row in rows_of(out)] == [5, 6, 7, 8, 9]
    (bad,) = [item for item in out if isinstance(item, BadRecord)]
    assert json.loads(bad.record) == {"id": 4, "qty": "n/a"}


@pytest.mark.parametrize("raises_on", [0, 3])
def test_a_record_with_a_null_is_no_misfit_when_all_values_of_its_column_are(kitchen: Kitchen, raises_on: int) -> None:
    body = f"df['qty'] + 1\nassert (df['id'] != {raises_on}).all()\nreturn df"
    given = [{"id": 1, "qty": None}, {"id": 2, "qty": "many"}, {"id": 3, "qty": None}]
    items = [schema(id=INTEGER, qty={"type": ["null", "integer"]}), records(*given)]
    if raises_on:
        with pytest.raises(PipelineFailed, match="AssertionError"):
            kitchen.run(code(body, **PANDAS), items)
        return
    out = kitchen.run(code(body, **PANDAS), items)
    assert rows_of(out) == [given[0], given[2]]
    assert [json.loads(item.record) for item in out if isinstance(item, BadRecord)] == [given[1]]


@pytest.mark.parametrize("share", [3, 2])
def test_any_number_of_misfits_leaves_the_types_of_the_other_records(kitchen: Kitchen, share: int) -> None:
    rows: list[JSONObject] = [
        {"id": number, "status": 7, "at": "soon"}
        if number % share
        else {"id": number, "status": "active", "at": "2024-05-01T00:00:00Z"}
        for number in range(12)
    ]
    moment = {"type": "string", "format": "date-time"}
    given = [schema(id=INTEGER, status=STRING, at=moment), records(*rows)]
    out = kitchen.run(code("return df[(df['status'] == 'active') & (df['at'].dt.year == 2024)]", **PANDAS), given)
    assert [row["id"] for row in rows_of(out)] == list(range(0, 12, share))
    out = kitchen.run(code("return df", **PANDAS), given)
    assert [(row["id"], row["status"], row["at"][:10]) for row in rows_of(out)] == [
        (row["id"], row["status"], row["at"][:10]) for row in rows
    ]


NUMBERS = [
    (NUMBER, ["12345678901234567.25", "1.5", "0.1000000000000000000001", "9007199254740993", "3.3333333333333333"]),
    (NUMBER, ["12345678901234567.25", "12345678901234567.5", "12345678901234568", "1.0"]),
    ({"type": ["null", "array"], "items": NUMBER}, ["[1.5]", "[12345678901234567.25]", "[2, null]"]),
    ({"type": "string", "format": "singer.decimal", "scale": 2}, ['"1.5"', '"1.50"', '"2"', '"1.5"', '"3.00"']),
]


@pytest.mark.parametrize(("prop", "texts"), NUMBERS)
@pytest.mark.parametrize("body", ["return df[df['id'] != 0]", "return df.assign(id=df['id'] + 1)"])
def test_numbers_that_a_frame_leaves_alone_keep_their_digits(
    kitchen: Kitchen, prop: JSONObject, texts: list[str], body: str
) -> None:
    rows = [f'{{"id":{number},"n":{text}}}' for number, text in enumerate(texts)]
    out = kitchen.run(code(body, **PANDAS), [schema(id=INTEGER, n=prop), records(*rows)])
    exact = partial(json.loads, parse_float=Decimal, parse_int=Decimal)
    arrived = [exact(line)["record"]["n"] for item in out if isinstance(item, RawBatch) for line in lines(item)]
    assert arrived == [exact(text) for text in texts][-len(arrived) :]
    assert len(arrived) >= len(texts) - 1


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("df['n'] % 3", [1, None]),
        ("df['f'] % 1", [0.5, None]),
        ("df['n'] * df['f']", [17.5, None]),
        ("df['n'] * df['money'] * 2 + 1", [36.0, None]),
        ("df['money'] * df['money']", [6.25, None]),
        ("df['money'] * 1.1", [2.75, None]),
        ("df['money'].fillna(1000)", [2.5, 1000]),
        ("df['yes'] & (df['n'] > 6)", [True, None]),
    ],
)
def test_operators_on_columns_with_nulls(kitchen: Kitchen, expression: str, expected: list[Any]) -> None:
    properties = {
        "n": INTEGER,
        "f": NUMBER,
        "money": {**NUMBER, "multipleOf": 0.01},
        "yes": {"type": ["null", "boolean"]},
    }
    rows = records({"n": 7, "f": 2.5, "money": 2.5, "yes": True}, {"n": None, "f": None, "money": None, "yes": None})
    out = kitchen.run(code(f"df['new'] = {expression}\nreturn df", **PANDAS), [schema(**properties), rows])
    assert [row["new"] for row in rows_of(out)] == pytest.approx(expected)
    assert (
        b'"n":7,"f":2.5,"money":2.50,"yes":true' in lines(next(item for item in out if isinstance(item, RawBatch)))[0]
    )


def test_the_only_record_of_a_run_may_be_set_aside(kitchen: Kitchen) -> None:
    out = kitchen.run(
        RAISES["dicts"], [schema(id=INTEGER), records({"id": 0}), position(1)], set_aside=lambda stream: True
    )
    assert kinds(out) == ["BadRecord", "Position", "Schema"]


@pytest.mark.parametrize("everything", [True, False])
def test_a_stream_that_fails_leaves_the_results_of_others(kitchen: Kitchen, everything: bool) -> None:
    async def cook() -> tuple[list[Item], list[str]]:
        stage = TransformStage(kitchen.block(RAISES["dicts"]))
        out: list[Item] = []
        failed: list[str] = []
        items = [
            schema("good", id=INTEGER),
            schema("bad", id=INTEGER),
            records({"id": 1}, stream="good"),
            records({"id": 0}, stream="bad"),
            position(1),
            records({"id": 2}, stream="good"),
        ]

        async def call(work: Callable[[], Awaitable[Sequence[Item]]]) -> bool:
            try:
                out.extend(await work())
            except StreamFailed as error:
                failed.append(error.stream)
                return False
            return True

        try:
            for item in items:
                await call(partial(stage.process, item))
                while everything and stage.pending:
                    await call(stage.flush)
            while not await call(stage.finish):
                pass
        finally:
            await stage.close()
        return out, failed

    out, failed = anyio.run(cook)
    assert failed == ["bad"]
    assert [row["id"] for row in rows_of(out, "good")] == [10, 5]
    assert kinds(out).count("Position") == 1


def test_a_worker_process_that_is_killed_between_two_calls_fails_the_block(kitchen: Kitchen) -> None:
    def killed(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "its parent has seen its end")

    async def cook() -> None:
        stage = TransformStage(
            kitchen.block(code("return [{'id': os.getpid()}]", head="import os")), configuration={"workers": 1}
        )
        try:
            await stage.process(schema(id=INTEGER))
            for _ in range(2):
                await stage.process(records({"id": 0}))
                killed(rows_of(await stage.flush())[0]["id"])
        finally:
            await stage.close()

    with pytest.raises(PipelineFailed) as caught:
        anyio.run(cook)
    # A call that was sent to it before the pool saw its end fails with the signal.
    assert caught.value.code in ("block.worker_state_lost", "block.killed")


def test_keyword_arguments_that_cannot_be_sent_to_a_worker_process_are_refused(kitchen: Kitchen) -> None:
    with pytest.raises(ConfigError) as caught:
        kitchen.run(
            code("return rows"),
            [schema(), records({"id": 1})],
            configuration={"workers": 1},
            keywords={"f": lambda: None},
        )
    assert caught.value.code == "block.unpicklable_arguments"


def test_what_a_worker_process_prints_does_not_get_between(kitchen: Kitchen) -> None:
    out = kitchen.run(
        code("print('x' * 100_000)\nreturn rows"),
        [schema(id=INTEGER), records({"id": 1})],
        configuration={"workers": 1},
    )
    assert rows_of(out) == [{"id": 1}]


def test_a_line_that_cannot_be_read_is_quarantined_alone(kitchen: Kitchen) -> None:
    batch = records({"id": 1}, {"id": 2})
    batch.slices[0] = b'{"type":"RECORD","stream":"orders","record":{"id":"\xff"}}\n'
    for signature in ("rows: list[dict]", "df"):
        out = kitchen.run(code(f"return {signature.split(':')[0]}", signature), [schema(id=INTEGER), batch])
        assert rows_of(out) == [{"id": 2}]
        (bad,) = [item for item in out if isinstance(item, BadRecord)]
        assert bad.record == b'{"id":"\xff"}'


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
