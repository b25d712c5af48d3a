from __future__ import annotations

import json

import msgspec
import pytest

from streamline.flow.items import ActivateVersion, FileBatch, RowBatch
from streamline.flow.stages.versions import VersionStage, new_version
from tests.connectors.singer.stages import position, raw, run, schema, tell

ROW = {"id": 1}
SDK_ORDER = [
    schema("a", "id", id="integer"),
    ActivateVersion("a", 5),
    raw("a", ROW, version=5),
    position(1),
    raw("a", ROW, version=5),
    position(2),
]


def test_a_version_announced_before_its_records_waits_for_the_end() -> None:
    assert tell(run(VersionStage(bookmarks_of={"a": ["public-a"]}.__getitem__), SDK_ORDER)) == [
        "SCHEMA a id key id",
        ("a", [ROW], 5),
        "STATE 1 without public-a",
        ("a", [ROW], 5),
        "STATE 2 without public-a",
        "ACTIVATE a 5",
        "STATE 3",
    ]


def test_a_table_that_others_write_to_gets_no_version_of_the_taps() -> None:
    records = [raw("a", ROW, version=5), RowBatch("a", [ROW], version=5)]
    stage = VersionStage(shared=lambda stream: True)
    assert tell(run(stage, [*records, position(1), ActivateVersion("a", 5)])) == [("a", [ROW]), ("a", [ROW]), "STATE 1"]
    ours = VersionStage(shared=lambda stream: True, replace=lambda stream: True, version=7)
    assert tell(run(ours, [*records, ActivateVersion("a", 5)])) == [("a", [ROW], 7), ("a", [ROW], 7), "ACTIVATE a 7"]


def test_it_is_never_sent_when_the_tap_failed() -> None:
    told = tell(run(VersionStage(), SDK_ORDER, finish=False))
    assert "ACTIVATE a 5" not in told
    assert told[-1] == "STATE 2 without a"


def test_at_the_end_of_its_stream_it_passes_at_once() -> None:
    items = [raw("a", ROW, version=5), position(1), ActivateVersion("a", 5), position(2)]
    assert tell(run(VersionStage(), items)) == [("a", [ROW], 5), "STATE 1", "ACTIVATE a 5", "STATE 2"]


def test_announced_at_both_ends_only_the_later_one_is_sent() -> None:
    items = [ActivateVersion("a", 5), raw("a", ROW, version=5), position(1), ActivateVersion("a", 5), position(2)]
    assert tell(run(VersionStage(), items)) == [("a", [ROW], 5), "STATE 1 without a", "ACTIVATE a 5", "STATE 2"]


def test_without_a_state_after_the_later_one_the_last_position_is_completed() -> None:
    items = [ActivateVersion("a", 5), raw("a", ROW, version=5), position(1), ActivateVersion("a", 5)]
    assert tell(run(VersionStage(), items))[-2:] == ["ACTIVATE a 5", "STATE 2"]


def test_a_second_version_is_held_although_records_of_the_first_were_seen() -> None:
    items = [raw("a", ROW, version=5), ActivateVersion("a", 6), position(1), raw("a", ROW, version=6)]
    assert tell(run(VersionStage(), items)) == [
        ("a", [ROW], 5),
        "STATE 1 without a",
        ("a", [ROW], 6),
        "ACTIVATE a 6",
        "STATE 2",
    ]


def test_a_lower_version_is_held_as_well_as_a_higher_one() -> None:
    items = [*SDK_ORDER[2:3], ActivateVersion("a", 5), ActivateVersion("a", 4), position(1), raw("a", ROW, version=4)]
    assert tell(run(VersionStage(), items)) == [
        ("a", [ROW], 5),
        "ACTIVATE a 5",
        "STATE 1 without a",
        ("a", [ROW], 4),
        "ACTIVATE a 4",
        "STATE 2",
    ]


def test_the_late_activation_of_an_older_version_leaves_the_newer_one_held() -> None:
    items = [raw("a", ROW, version=5), ActivateVersion("a", 6), ActivateVersion("a", 5), raw("a", ROW, version=6)]
    assert tell(run(VersionStage(), items))[1:] == ["ACTIVATE a 5", ("a", [ROW], 6), "ACTIVATE a 6"]


@pytest.mark.parametrize("newer", [4, 6])
def test_the_late_activation_of_an_older_version_passes_and_the_newer_one_is_still_activated(newer: int) -> None:
    items = [raw("a", ROW, version=5), raw("a", ROW, version=newer), ActivateVersion("a", 5)]
    assert tell(run(VersionStage(holds_rows=True), items))[2:] == ["ACTIVATE a 5", f"ACTIVATE a {newer}"]


def test_a_lower_version_that_a_mapper_swallowed_is_activated_at_the_end() -> None:
    items = [raw("a", ROW, version=5), ActivateVersion("a", 5), raw("a", ROW, version=4)]
    assert tell(run(VersionStage(holds_rows=True), items))[1:] == ["ACTIVATE a 5", ("a", [ROW], 4), "ACTIVATE a 4"]


def test_only_the_held_stream_is_withheld_and_what_others_withhold_stays() -> None:
    items = [ActivateVersion("a", 5), raw("b", ROW), position(1, "c")]
    assert tell(run(VersionStage(), items)) == [
        ("b", [ROW]),
        "STATE 1 without a,c",
        "ACTIVATE a 5",
        "STATE 2 without c",
    ]


def test_a_table_without_rows_is_emptied_at_the_end() -> None:
    items = [schema("a", id="integer"), ActivateVersion("a", 5), position(1)]
    assert tell(run(VersionStage(), items))[-2:] == ["ACTIVATE a 5", "STATE 2"]


def test_in_an_endless_pipeline_it_goes_out_at_the_next_position() -> None:
    items = [ActivateVersion("a", 5), raw("a", ROW, version=5), position(1), raw("a", ROW, version=5), position(2)]
    assert tell(run(VersionStage(endless=True), items)) == [
        ("a", [ROW], 5),
        "ACTIVATE a 5",
        "STATE 1",
        ("a", [ROW], 5),
        "STATE 2",
    ]


def test_a_tap_without_versions_gets_one_and_it_is_activated_at_the_end() -> None:
    stage = VersionStage(replace={"a", "empty"}.__contains__, version=77)
    items = [
        schema("a", "id", id="integer"),
        schema("b", "id", id="integer"),
        schema("empty", "id", id="integer"),
        raw("a", ROW),
        raw("b", ROW),
        RowBatch("a", [ROW]),
        position(1),
    ]
    assert tell(run(stage, items)) == [
        "SCHEMA a id key id",
        "SCHEMA b id key id",
        "SCHEMA empty id key id",
        ("a", [ROW], 77),
        ("b", [ROW]),
        ("a", [ROW], 77),
        "STATE 1 without a,empty",
        "ACTIVATE a 77",
        "ACTIVATE empty 77",
        "STATE 2",
    ]


def test_a_replaced_stream_that_was_never_announced_is_left_alone() -> None:
    assert tell(run(VersionStage(replace=lambda _: True, version=77), [position(1)])) == ["STATE 1"]


def test_nothing_is_replaced_when_the_tap_failed() -> None:
    stage = VersionStage(replace=lambda _: True, version=77)
    assert tell(run(stage, [raw("a", ROW), position(1)], finish=False)) == [("a", [ROW], 77), "STATE 1 without a"]


@pytest.mark.parametrize(
    "items",
    [
        [raw("a", ROW, version=5), position(1), ActivateVersion("a", 5), position(2)],
        [ActivateVersion("a", 5), raw("a", ROW, version=5), position(1), ActivateVersion("a", 5), position(2)],
    ],
)
def test_a_tap_that_sends_versions_keeps_its_own(items: list[object]) -> None:
    told = tell(run(VersionStage(replace=lambda _: True, version=77), items))  # type: ignore[arg-type]
    assert told[-2:] == ["ACTIVATE a 5", "STATE 2"]
    assert ("a", [ROW], 5) in told


def test_a_version_that_a_mapper_swallowed_is_activated_at_the_end() -> None:
    stage = VersionStage(replace=lambda _: True, version=77)
    told = tell(run(stage, [raw("a", ROW, version=5), position(1)]))
    assert told == [("a", [ROW], 5), "STATE 1", "ACTIVATE a 5"]


def test_a_late_version_of_a_tap_whose_records_have_none_gives_way_to_ours() -> None:
    stage = VersionStage(replace=lambda _: True, version=77)
    assert tell(run(stage, [raw("a", ROW), ActivateVersion("a", 5)])) == [("a", [ROW], 77), "ACTIVATE a 77"]


def test_files_of_records_get_the_version_too() -> None:
    line = b'{"type":"BATCH","stream":"a","encoding":{"format":"jsonl"},"manifest":["file:///x"]}\n'
    item = FileBatch("a", "sdk", ["file:///x"], "jsonl", None, None, line)
    out = run(VersionStage(replace=lambda _: True, version=77), [item])
    assert isinstance(out[0], FileBatch)
    assert out[0].version == 77
    assert json.loads(out[0].raw)["version"] == 77
    assert json.loads(out[0].raw)["encoding"] == {"format": "jsonl"}


def test_every_attempt_has_a_higher_version() -> None:
    first = new_version()
    assert new_version(first) > first
    assert new_version(first + 10**9) == first + 10**9 + 1


def test_for_a_target_that_holds_rows_what_a_tap_never_activates_is_shown_after_its_good_end() -> None:
    items = [raw("a", ROW, version=5), position(1)]
    out = run(VersionStage(holds_rows=True), items)
    assert tell(out) == [("a", [ROW], 5), "STATE 1 without a", "ACTIVATE a 5", "STATE 2"]
    assert isinstance(out[2], ActivateVersion)
    assert out[2].keep_old
    assert "ACTIVATE a 5" not in tell(run(VersionStage(holds_rows=True), items, finish=False))


def test_a_bookmark_with_the_version_is_not_withheld_while_the_target_holds_the_rows() -> None:
    resumed = msgspec.structs.replace(position(1), parts={"a": b'{"version": 5, "last_pk": 1}'})
    told = tell(run(VersionStage(holds_rows=True), [raw("a", ROW, version=5), resumed]))
    assert told == [("a", [ROW], 5), "STATE 1", "ACTIVATE a 5"]
    endless = run(VersionStage(holds_rows=True, endless=True), [raw("a", ROW, version=5), resumed, position(2)])
    assert tell(endless) == [("a", [ROW], 5), "STATE 1", "ACTIVATE a 5", "STATE 2"]
