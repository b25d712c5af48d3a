"""Transformer blocks in each lane, mappers, files of records that a block must see."""

from __future__ import annotations

import json

import pytest

from tests.conformance.integration.common import INCREMENTAL, rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import Block, mapper, tap, target, transformer

LANES = {
    "dicts": """
        from streamline.decorators import transformer

        @transformer
        def change(messages: list[dict], *args, **kwargs):
            assert kwargs['stream'] == 'numbers'
            return [{**m, 'double': m['id'] * 2} for m in messages if m['id'] % 10]
    """,
    "pandas": """
        if 'transformer' not in globals():
            from streamline.decorators import transformer

        @transformer
        def change(frame, *args, **kwargs):
            assert kwargs['stream'] == 'numbers'
            frame = frame[frame['id'] // 10 * 10 != frame['id']]
            return frame.assign(double=frame['id'] * 2)
    """,
    "polars": """
        import polars as pl
        from streamline.decorators import transformer

        @transformer
        def change(frame: pl.DataFrame, *args, **kwargs) -> pl.DataFrame:
            return frame.filter(pl.col('id') % 10 != 0).with_columns(double=pl.col('id') * 2)
    """,
    "arrow": """
        import pyarrow as pa
        import pyarrow.compute as pc
        from streamline.decorators import transformer

        @transformer
        def change(table: pa.Table, *args, **kwargs) -> pa.Table:
            table = table.filter(pc.not_equal(pc.subtract(table['id'], pc.multiply(pc.divide(table['id'], 10), 10)), 0))
            return table.append_column('double', pc.multiply(table['id'], 2))
    """,
}


def source_text(lane: str) -> str:
    """A transformer that drops each tenth row and adds a column, in one lane."""
    lines = LANES[lane].split("\n")
    return "\n".join(line.removeprefix("        ") for line in lines)


@pytest.mark.parametrize("lane", LANES)
def test_a_transformer_filters_and_adds_a_column(make_project: MakeProject, lane: str) -> None:
    project = make_project(
        tap("counts", {"rows": 500}, streams={"numbers": INCREMENTAL}),
        transformer(source_text(lane)),
        target("keyed", {"log": "log.jsonl"}),
    )

    project.run().expect(0)

    expected = [{"id": n, "square": n * n, "text": "x" * 20, "double": 2 * n} for n in upto(500) if n % 10]
    assert project.rows() == expected
    assert project.position() == 500
    schema = next(m for m in project.messages() if m["type"] == "SCHEMA")
    assert "integer" in schema["schema"]["properties"]["double"]["type"]
    assert schema["key_properties"] == ["id"]


def test_losing_a_key_column_is_an_error(make_project: MakeProject) -> None:
    code = (
        "from streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n    return [{'text': m['text']} for m in messages]\n"
    )
    project = make_project(tap("counts", {"rows": 50}), transformer(code), target())

    project.run().expect(1, "change", "id")

    assert project.state() == {}


def test_an_error_in_a_transformer_shows_its_own_line(make_project: MakeProject) -> None:
    code = (
        "from streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n    return messages[0]['nothing']['there']\n"
    )
    project = make_project(tap("counts", {"rows": 50}), transformer(code), target())

    completed = project.run()

    assert completed.code == 1, completed
    assert "change.py" in completed.text
    assert "line 6" in completed.text
    assert "KeyError" in completed.text
    assert project.state() == {}


def test_filtering_everything_still_moves_the_position(make_project: MakeProject) -> None:
    code = (
        "from streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n    return []\n"
    )
    project = make_project(
        tap("counts", {"rows": 50}, streams={"numbers": INCREMENTAL}), transformer(code), target("silent_until_end")
    )

    project.run().expect(0)

    assert project.rows() == []
    assert project.position() == 50


def test_a_singer_mapper_is_a_block(make_project: MakeProject) -> None:
    project = make_project(
        tap("counts", {"rows": 200}, streams={"numbers": INCREMENTAL}), mapper("tag", {"tag": "t"}), target()
    )

    project.run().expect(0)

    rows = project.rows()
    assert [row["id"] for row in rows] == [n for n in upto(200) if n % 10 != 7]
    assert {(row["tag"], row["text"]) for row in rows} == {("t", "X" * 20)}
    assert project.position() == 200


def test_batches_are_expanded_where_a_block_must_see_the_records(make_project: MakeProject) -> None:
    code = (
        "from streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n"
        "    return [{**m, 'text': m['text'].upper()} for m in messages]\n"
    )
    project = make_project(
        tap("sends_batches", {"dialect": "sdk"}, streams={"numbers": INCREMENTAL}),
        transformer(code),
        target("keyed", plugin={"args": ["--able=about,batch"]}),
    )

    project.run().expect(0)

    assert [row["text"] for row in project.rows()] == [f"TEXT {n}" for n in upto(25)]


@pytest.mark.parametrize("code", [0, 1, -9])
def test_a_mapper_that_ends_in_the_middle_has_failed(make_project: MakeProject, code: int) -> None:
    source = tap("counts", {"rows": 2000, "state_every": 10}, streams={"numbers": INCREMENTAL})
    project = make_project(source, mapper("exits_early", {"code": code, "after": 500}), target("keyed", {"flush": 50}))

    project.run().expect(1, "mapper-exits-early")

    position = project.position() or 0
    assert position <= 500
    assert set(upto(position)) <= set(project.ids())
    project.pipeline("p", source, mapper("exits_early", {"after": 10**9}), target("keyed", {"flush": 50}))
    project.run().expect(0)
    assert project.ids() == upto(2000)


def test_a_transformer_that_fails_once_is_retried_from_the_last_proof(make_project: MakeProject) -> None:
    code = (
        "from pathlib import Path\n\nfrom streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n"
        "    if messages[-1]['id'] > 300 and not Path('failed').exists():\n"
        "        Path('failed').touch()\n"
        "        raise ConnectionError('the lookup service is away')\n"
        "    return messages\n"
    )
    project = make_project(
        tap(
            "counts",
            {"rows": 1000, "state_every": 10, "pause": 0.01, "pause_every": 100},
            streams={"numbers": INCREMENTAL},
        ),
        transformer(code),
        target("keyed", {"flush": 50}),
        retry_config={"retries": 1, "delay": 0},
    )

    project.run().expect(0, "the lookup service is away")

    assert (project.root / "failed").exists()
    assert project.ids() == upto(1000)
    assert project.position() == 1000


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_transformer_prints_does_not_get_into_the_json(make_project: MakeProject, workers: int) -> None:
    text = """
from streamline.decorators import transformer

@transformer
def change(rows: list[dict], *args, **kwargs):
    print('a word of my own')
    return rows
"""
    project = make_project(
        tap("counts", {"rows": 5}), transformer(text, entry={"configuration": {"workers": workers}}), target()
    )

    completed = project.run("--json").expect(0)

    assert json.loads(completed.out)["records"] == 5
    assert "a word of my own" in completed.err


def test_a_transformer_that_forgets_its_return_is_told_so(make_project: MakeProject) -> None:
    code = "@transformer\ndef change(rows: list[dict], *args, **kwargs):\n    rows[0]['x'] = 1\n"
    project = make_project(
        tap("counts", {"rows": 10}, streams={"numbers": INCREMENTAL}), transformer(code), target("keyed")
    )
    project.run().expect(0, "returned None for every batch", "return")


RAISES = """
from streamline.decorators import transformer

@transformer
def change(messages: list[dict], *args, **kwargs):
    for message in messages:
        if kwargs['stream'] == 'bad' and message['id'] in %s:
            raise ValueError('no such rate')
    return messages
"""


def test_a_stream_that_a_transformer_raises_on_stops_no_other(make_project: MakeProject) -> None:
    source = rows_tap({"a": 20, "bad": 20, "c": 20})
    project = make_project(source, transformer(RAISES % [7]), target("keyed"))

    completed = project.run()
    assert (completed.code, "stream bad: ValueError: no such rate" in completed.err) == (1, True), completed

    assert (project.ids("a"), project.ids("c")) == (upto(20), upto(20))
    assert (project.position("a"), project.position("c")) == (20, 20)
    assert project.ids("bad") == []
    assert project.position("bad") is None
    project.pipeline("p", source, transformer(RAISES % []), target("keyed"))
    project.run().expect(0)
    assert project.ids("bad") == upto(20)


def test_a_record_that_a_transformer_raises_on_becomes_a_dead_letter(make_project: MakeProject) -> None:
    destination = target("keyed", on_bad_record="quarantine")
    project = make_project(rows_tap({"bad": 40}), transformer(RAISES % [7, 8, 40]), destination)

    project.run().expect(0)

    assert project.ids("bad") == [number for number in upto(39) if number not in (7, 8)]
    assert project.position("bad") == 40
    assert len(project.dead_letters()) == 3
    project.pipeline("p", rows_tap({"bad": 40}), transformer(RAISES % []), destination)
    project.command("dead-letters", "retry", "p").expect(0)
    assert project.ids("bad") == upto(40)


@pytest.mark.parametrize("policy", ["freeze", "pause"])
def test_a_column_that_a_block_adds_is_no_change_of_the_source(make_project: MakeProject, policy: str) -> None:
    code = """
from streamline.decorators import transformer

@transformer
def change(messages: list[dict], *args, **kwargs):
    return [{**m, 'note': 'x' if m['id'] in %s else None} for m in messages]
"""
    both = {"batch_rows": 10}
    destination = target("keyed", {"log": "log.jsonl"}, schema_change=policy)

    def blocks(rows: int, noted: list[int]) -> tuple[Block, ...]:
        source = rows_tap({"numbers": rows}, {"state_every": 10})
        return source, transformer(code % noted, entry={"configuration": both}), destination

    project = make_project(*blocks(30, [15]))
    project.run().expect(0)
    assert [row["id"] for row in project.rows() if row.get("note")] == [15]

    project.pipeline("p", *blocks(40, []))
    project.run("--full-refresh").expect(0)

    assert project.ids() == upto(40)
    assert all(row["note"] is None for row in project.rows()), "an upsert clears the value"
