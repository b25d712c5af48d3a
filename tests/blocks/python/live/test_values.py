"""Values that pass a transformer block: exact where it leaves them alone, typed by the SCHEMA where it does not."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamline.flow.items import JSONObject, RawBatch, Schema
from tests.blocks.python.live.kitchen import (
    INTEGER,
    NUMBER,
    PANDAS,
    STRING,
    Kitchen,
    code,
    lines,
    props_of,
    records,
    rows_of,
    schema,
)


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
