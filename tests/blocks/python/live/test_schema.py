"""The SCHEMA behind a transformer block: columns that come, go and change type, and keys that are lost."""

from __future__ import annotations

import json

import msgspec
import pytest

from streamline.flow.items import ActivateVersion, BadRecord, Schema
from tests.blocks.python.live.kitchen import (
    INTEGER,
    NUMBER,
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
from tests.support.failures import fails


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
    assert all("column id " in item.error for item in bad)


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
    with fails("stream.key_missing", "orders", "id"):
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


def test_what_the_tap_sends_is_no_misfit(kitchen: Kitchen) -> None:
    given = schema(id=INTEGER, a=INTEGER)
    odd = [records({"id": 1, "a": "text"}), records({"id": 2, "a": 5, "undeclared": [1]}), records({"id": 3})]
    for body, signature in (("return rows", "rows: list[dict]"), ("return df", "df")):
        out = kitchen.run(code(body, signature), [given, *odd])
        assert [item for item in out if isinstance(item, Schema)] == [given]
        assert rows_of(out) == [{"id": 1, "a": "text"}, {"id": 2, "a": 5, "undeclared": [1]}, {"id": 3}]


def test_a_new_schema_from_the_tap_keeps_what_the_block_added(kitchen: Kitchen) -> None:
    add = code("return [{**row, 'new': 1.5 if row['id'] == 1 else 2} for row in rows]")
    later = schema(id=INTEGER, more=STRING)
    out = kitchen.run(
        add, [schema(id=INTEGER), records({"id": 1}), later, later, records({"id": 2, "more": "x"}), later]
    )
    assert kinds(out) == ["Schema", "RawBatch", "Schema", "RawBatch", "Schema"]
    assert props_of(out)[1:] == [{"id": INTEGER, "more": STRING, "new": NUMBER}] * 2
