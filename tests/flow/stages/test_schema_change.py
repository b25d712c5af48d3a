from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from streamline.errors import StreamlineError
from streamline.flow.codecs.envelope import records
from streamline.flow.items import ArrowBatch, BadRecord, FileBatch, Item, RawBatch, RowBatch, Schema
from streamline.flow.stages.schema_change import SchemaChangeStage, SchemaPaused, added_columns, compare
from tests.connectors.singer.stages import position, raw, run, schema, tell
from tests.support.failures import fails

OLD = schema("a", "id", id="integer", total="integer").schema
WIDER = schema("a", "id", id="integer", total="integer", note="string")
RETYPED = schema("a", "id", id="integer", total="string")


def stage(policy: str, last: dict[str, Any] | None = None) -> SchemaChangeStage:
    return SchemaChangeStage(lambda _: policy, {"a": OLD} if last is None else last, pipeline="shop")


def test_evolve_forwards_and_remembers_the_newest() -> None:
    evolving = stage("evolve")
    items = [WIDER, raw("a", {"id": 1, "note": "x"}), RETYPED]
    assert [a is b for a, b in zip(run(evolving, items), items, strict=True)] == [True] * 3
    assert evolving.newest == {"a": RETYPED.schema}


@pytest.mark.parametrize("policy", ["freeze", "pause"])
def test_a_new_streams_first_schema_is_taken(policy: str) -> None:
    first = stage(policy, last={})
    assert run(first, [WIDER]) == [WIDER]
    assert first.newest == {"a": WIDER.schema}


@pytest.mark.parametrize("policy", ["freeze", "pause"])
def test_titles_order_and_descriptions_are_no_change(policy: str) -> None:
    item = schema(
        "a",
        "id",
        total={"type": ["null", "integer"], "description": "all"},
        id={"type": ["integer", "null"], "title": "t"},
    )
    stay = stage(policy)
    assert run(stay, [item, raw("a", {"id": 1})])[0] is item
    assert stay.newest == {"a": OLD}


@pytest.mark.parametrize("policy", ["freeze", "pause"])
def test_a_column_that_a_block_adds_is_no_change_of_the_source(policy: str) -> None:
    policed = stage(policy)
    added = Schema("a", WIDER.schema, ["id"], added=frozenset(WIDER.schema["properties"].keys() - OLD["properties"]))
    (out,) = run(policed, [added])
    assert isinstance(out, Schema)
    assert out.schema["properties"] == WIDER.schema["properties"]
    assert added_columns(policed.newest["a"]).keys() == added.added


def test_freeze_drops_new_columns() -> None:
    items: list[Item] = [
        WIDER,
        raw("a", {"id": 1, "total": 2, "note": "x"}, {"id": 2}),
        RowBatch("a", [{"id": 3, "note": "x"}]),
        ArrowBatch("a", pa.Table.from_pylist([{"id": 4, "note": "x"}])),
        raw("b", {"note": 1}),
        position(1),
    ]
    frozen = stage("freeze")
    out = run(frozen, items)
    assert isinstance(out[3], ArrowBatch)
    assert out[3].table.to_pylist() == [{"id": 4}]
    assert tell([*out[:3], *out[4:]]) == [
        "SCHEMA a id,total key id",
        ("a", [{"id": 1, "total": 2}, {"id": 2}]),
        ("a", [{"id": 3}]),
        ("b", [{"note": 1}]),
        "STATE 1",
    ]
    assert frozen.newest == {"a": OLD}


def test_freeze_keeps_the_bytes_of_what_stays() -> None:
    odd = rb'{"id": 1 , "total":NaN,"note":"x"}'
    batch = RawBatch("a", [b'{"type":"RECORD","stream":"a","record":' + odd + b"}\n"], 1, 0)
    out = run(stage("freeze"), [WIDER, batch])
    assert isinstance(out[1], RawBatch)
    assert list(records(out[1])) == [b'{"id":1,"total":NaN}']


def test_freeze_quarantines_what_does_not_fit_the_old_type() -> None:
    rows = [{"id": 1, "total": 5}, {"id": 2, "total": "five"}, {"id": 3}, {"id": 4, "total": None}]
    items: list[Item] = [RETYPED, raw("a", *rows), RowBatch("a", list(rows)), position(1)]
    items.insert(3, ArrowBatch("a", pa.Table.from_pylist([{"id": 8, "total": "x"}, {"id": 9, "total": None}])))
    out = run(stage("freeze"), items)
    good = [{"id": 1, "total": 5}, {"id": 3}, {"id": 4, "total": None}]
    assert tell(out[:5]) == [
        "SCHEMA a id,total key id",
        ("a", good),
        'BAD a {"id": 2, "total": "five"}',
        ("a", good),
        'BAD a {"id":2,"total":"five"}',
    ]
    assert isinstance(out[5], ArrowBatch)
    assert out[5].table.to_pylist() == [{"id": 9, "total": None}]
    assert tell(out[6:]) == ['BAD a {"id":8,"total":"x"}', "STATE 1"]
    bad = out[2]
    assert isinstance(bad, BadRecord)
    assert bad.stage == "schema_change"
    assert bad.error.startswith("column 'total' was retyped (integer → string): ")


def test_the_old_type_may_be_said_in_the_words_of_an_older_draft() -> None:
    """PipelineWise's taps say so of every `numeric` column."""
    number = {"type": ["null", "number"], "maximum": 100, "exclusiveMaximum": True, "multipleOf": 0.01}
    old = {"a": schema("a", total=number).schema}
    items = [schema("a", total={"type": ["null", "string"]}), raw("a", {"total": -9466.37}, {"total": 100})]
    assert tell(run(stage("freeze", old), items))[1:] == [("a", [{"total": -9466.37}]), 'BAD a {"total": 100}']


def test_a_column_may_be_called_as_a_keyword() -> None:
    old = {"a": schema("a", multipleOf="integer", properties="integer").schema}
    items = [schema("a", multipleOf="string", properties="string"), raw("a", {"multipleOf": "x"}, {"properties": "x"})]
    assert tell(run(stage("freeze", old), items))[1:] == ['BAD a {"multipleOf": "x"}', 'BAD a {"properties": "x"}']


def test_a_batch_of_misfits_only_leaves_no_batch() -> None:
    assert tell(run(stage("freeze"), [RETYPED, raw("a", {"total": "x"})]))[1:] == ['BAD a {"total": "x"}']


def test_dates_as_python_writes_them_fit_a_date_time() -> None:
    old = {"a": schema("a", at={"type": "string", "format": "date-time"}).schema}
    items = [schema("a", at="string"), raw("a", {"at": "2026-01-02 03:04:05"}, {"at": "soon"}, {"at": None})]
    assert tell(run(stage("freeze", last=old), items))[1:] == [
        ("a", [{"at": "2026-01-02 03:04:05"}]),
        'BAD a {"at": "soon"}',
        'BAD a {"at": null}',
    ]


def test_a_column_that_is_gone_stays_in_a_frozen_schema() -> None:
    out = run(stage("freeze"), [schema("a", "id", id="integer"), raw("a", {"id": 1})])
    assert tell(out) == ["SCHEMA a id,total key id", ("a", [{"id": 1}])]


def test_a_schema_that_changes_back_is_not_touched() -> None:
    same = schema("a", "id", id="integer", total="integer")
    out = run(stage("freeze"), [RETYPED, same, raw("a", {"total": "x"})])
    assert out[1] is same
    assert tell(out[2:]) == [("a", [{"total": "x"}])]


def test_freeze_never_drops_a_key() -> None:
    with fails("stream.key_missing", "'note'"):
        run(stage("freeze"), [schema("a", "note", id="integer", total="integer", note="string")])


def test_freeze_cannot_change_files() -> None:
    item = FileBatch("a", "sdk", ["f"], "jsonl", None, None, b"{}")
    assert run(stage("freeze"), [Schema("a", OLD, ["id"]), item])[1] is item
    with pytest.raises(StreamlineError) as caught:
        run(stage("freeze"), [WIDER, item])
    assert caught.value.code == "stream.batch_not_supported"


def test_pause_stops_before_the_change_and_says_how_to_go_on() -> None:
    changed = schema("a", "id", id="integer", total="string", note="string")
    with pytest.raises(SchemaPaused) as caught:
        run(stage("pause"), [changed])
    assert str(caught.value) == (
        "stream 'a': paused because its schema changed (new: note; retyped: total (integer → string))\n"
        "  to accept the change: streamline streams set shop a schema_change=evolve"
    )
    assert caught.value.stream == "a"
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("policy", ["evolve", "freeze", "pause"])
def test_an_assumed_schema_gives_way_to_the_known_one_if_that_has_its_key(policy: str) -> None:
    def assumed(*keys: str) -> Schema:
        return Schema("a", {"properties": {key: {} for key in keys}}, list(keys), assumed=True)

    policed = stage(policy)
    assert run(policed, [assumed("id")]) == [Schema("a", OLD, ["id"])]
    assert run(policed, [assumed("id", "total")]) == [Schema("a", OLD, ["id", "total"])]
    assert run(policed, [assumed("id", "note")]) == [assumed("id", "note")]
    assert run(stage(policy, last={}), [assumed("id")]) == [assumed("id")]
    assert policed.newest == {}


def test_pause_in_the_middle_of_a_run() -> None:
    with fails("stream.schema_paused", "total"):
        run(stage("pause", last={}), [Schema("a", OLD, ["id"]), schema("a", id="integer")])


def test_what_counts_as_retyped() -> None:
    def how(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
        return dict(compare({"properties": {"x": old}}, {"properties": {"x": new}}).retyped)

    assert how({"type": "string"}, {"type": ["string"]}) == {}
    assert how({"type": ["null", "string"]}, {"type": "string"}) == {"x": "string → string not null"}
    assert how({"type": ["null", "string"]}, {"type": ["null", "string"], "format": "date"}) == {
        "x": "string → string date"
    }
    assert how({"type": ["null", "string"], "maxLength": 5}, {"type": ["null", "string"], "maxLength": 9}) == {
        "x": "string → string"
    }
    nested = {"type": ["object", "null"], "properties": {"title": {"type": "string"}}}
    assert how(nested, {"type": ["object", "null"], "properties": {"title": {"type": "integer"}}}) == {
        "x": "object → object"
    }
    either = {"anyOf": [{"type": ["string"], "format": "date-time"}, {"type": ["null", "string"]}]}
    assert how({"type": "integer"}, either) == {"x": "integer not null → string date-time not null or string"}


def test_a_retyped_column_that_refers_to_another_document_is_an_error_of_its_stream(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text('{"type": "string"}')
    old = {"properties": {"id": {"type": "integer"}, "total": {"$ref": f"file://{tmp_path}/text.json"}}}
    with pytest.raises(StreamlineError) as failure:
        run(stage("freeze", last={"a": old}), [RETYPED])
    assert failure.value.code == "stream.schema_invalid"
