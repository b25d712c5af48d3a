"""What goes wrong in a transformer block: records set aside, streams and blocks that fail."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio
import pytest

from streamline.blocks.python.live.transform import TransformStage
from streamline.errors import ConfigError, PipelineFailed, StreamFailed
from streamline.flow.items import BadRecord, Item, JSONObject
from tests.blocks.python.live.kitchen import (
    INTEGER,
    PANDAS,
    STRING,
    Kitchen,
    code,
    kinds,
    position,
    records,
    rows_of,
    schema,
)
from tests.support.failures import fails


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
        ("return [{'id': object()}]", "builtins.object"),
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
    with fails("block.timeout", "orders", "0.5 s", hint):
        kitchen.run(sleepy, [schema(), records({"id": 1})], timeout=0.5, configuration={"workers": workers})


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


def test_a_line_that_cannot_be_read_is_quarantined_alone(kitchen: Kitchen) -> None:
    batch = records({"id": 1}, {"id": 2})
    batch.slices[0] = b'{"type":"RECORD","stream":"orders","record":{"id":"\xff"}}\n'
    for signature in ("rows: list[dict]", "df"):
        out = kitchen.run(code(f"return {signature.split(':')[0]}", signature), [schema(id=INTEGER), batch])
        assert rows_of(out) == [{"id": 2}]
        (bad,) = [item for item in out if isinstance(item, BadRecord)]
        assert bad.record == b'{"id":"\xff"}'
