"""What of a tap process's positions goes into the state store, and with what beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from streamline.connectors.singer.state import StateParts, owned_parts
from streamline.execution.integration.run_store import RunStore, SourceAccount
from streamline.flow.items import FORGOTTEN, BadRecord
from streamline.state.store import BookmarkOverride, BookmarkSave, DeadLetter, StateChange, Store


class Kept:
    """A store that keeps what it is given, one entry a transaction; `fail` counts the transactions that fail first."""

    def __init__(self) -> None:
        self.saves: list[tuple[str, dict[str, str], list[str]]] = []
        self.causes: list[str] = []
        self.copies: list[str] = []
        self.dropped: list[str] = []
        self.consumed: list[BookmarkOverride] = []
        self.gaps: list[list[str]] = []
        self.fail = 0

    def save(
        self,
        pipeline: str,
        block: str,
        run_id: str,
        bookmarks: Sequence[BookmarkSave],
        dead_letters: Sequence[DeadLetter] = (),
        consumed_overrides: Sequence[BookmarkOverride] = (),
        dropped: Sequence[str] = (),
        state: Sequence[StateChange] = (),
    ) -> None:
        if self.fail:
            self.fail -= 1
            raise OSError("no space")
        self.copies += [bad.copy for bad in dead_letters]
        self.dropped += dropped
        self.saves.append(
            (block, {each.stream: each.value for each in bookmarks}, [bad.record for bad in dead_letters])
        )
        self.causes += [each.cause for each in bookmarks]
        self.consumed += consumed_overrides

    def mark_gap(self, pipeline: str, block: str, streams: Sequence[str], *, at_start: bool = False) -> None:
        self.gaps.append(list(streams))


def account(**more: Any) -> SourceAccount:
    values: dict[str, Any] = {
        "block": "load",
        "owned": dict,
        "sinks_of": lambda key: ["export"],
        "destinations": lambda key, text: {},
        "replication": {},
        "rows": {},
        **more,
    }
    return SourceAccount(**values)


def run_store(store: Kept, **more: Any) -> RunStore:
    return RunStore(cast(Store, store), pipeline="p", run_id="r", accounts={"load": account(**more)})


def state(number: int, value: bytes | None = None) -> StateParts:
    return StateParts(value or b'{"bookmarks":{"a":%d}}' % number)


def bad(*numbers: int) -> list[BadRecord]:
    return [BadRecord("a", b"%d" % number, "odd", "validate") for number in numbers]


def test_a_position_is_saved_with_the_refused_records_before_it_in_one_transaction() -> None:
    store = Kept()
    assert run_store(store).save("load", state(1), bad(1, 2)) == {"a": b"1"}
    assert store.saves == [("load", {"a": "1"}, ["1", "2"])]


def test_only_what_changed_is_saved_and_what_is_missing_deletes_nothing() -> None:
    store = Kept()
    saving = run_store(store, rows={"a": b"1", "b": b"7"})
    assert saving.save("load", state(1), []) == {}
    assert store.saves == []
    assert saving.save("load", state(2), []) == {"a": b"2"}
    assert store.saves == [("load", {"a": "2"}, [])]


def test_another_processs_bookmarks_are_left_alone() -> None:
    store = Kept()
    saving = run_store(store, owned=lambda parts: owned_parts(parts, lambda key: key != "b", shared=True))
    saving.save("load", state(1, b'{"bookmarks":{"a":1,"b":2},"currently_syncing":"a","lsn":4}'), [])
    assert store.saves == [("load", {"a": "1", "*": '{"lsn":4}'}, [])]


def test_a_state_of_another_shape_is_one_row_as_it_was_written() -> None:
    store = Kept()
    run_store(store).save("load", state(1, b'{"users": "2024-01-01",  "n": 1.10}'), [])
    assert store.saves == [("load", {"*": '{"users": "2024-01-01",  "n": 1.10}'}, [])]


def test_an_override_is_consumed_by_the_first_position_though_it_did_not_move() -> None:
    store = Kept()
    override = BookmarkOverride("a", "id", "1")
    saving = run_store(store, rows={"a": b"1"}, cause_of={"a": "override"}, overrides={"a": [override]})
    for number in (1, 1, 2):
        saving.save("load", state(number), [])
    assert store.consumed == [override]
    assert store.causes[0] == "override"
    assert store.saves[-1] == ("load", {"a": "2"}, [])


def test_streams_that_were_left_out_have_their_gap_before_the_position_is_saved() -> None:
    store = Kept()
    saving = run_store(store, left_out=["z"])
    store.fail = 1
    with pytest.raises(OSError, match="no space"):
        saving.save("load", state(1), [])
    assert store.gaps == [["z"]]
    for number in (1, 2):
        saving.save("load", state(number), [])
    assert store.gaps == [["z"]]


@pytest.mark.parametrize(
    ("moved", "marked"),
    [(b'{"bookmarks":{"a":1}}', False), (b'{"bookmarks":{"b":1}}', True), (b'{"bookmarks":{"lsn":1}}', True)],
)
def test_only_what_stands_in_the_log_opens_a_gap(moved: bytes, marked: bool) -> None:
    store = Kept()
    saving = run_store(store, left_out=["z"], replication={"a": ("INCREMENTAL", "id"), "b": ("LOG_BASED", None)})
    saving.save("load", state(1, moved), [])
    assert store.gaps == ([["z"]] if marked else [])


def test_a_bookmark_that_the_tap_dropped_is_deleted_if_it_was_saved() -> None:
    store = Kept()
    saving = run_store(store, rows={"a": b"1"}, cause_of={"b": "full-refresh"})
    parts = dict.fromkeys(("a", "b", "c"), FORGOTTEN)
    assert saving.save("load", parts, []) == dict.fromkeys(("a", "b"), FORGOTTEN)
    assert store.dropped == ["a", "b"]
    assert saving.save("load", {"c": FORGOTTEN}, []) == {}
    assert len(store.saves) == 1


def test_equal_records_are_told_apart_in_streams_without_a_key_alone() -> None:
    store = Kept()
    run_store(store).save("load", state(1), bad(1, 1))
    assert store.copies == ["", ""]
    without_key = Kept()
    run_store(without_key, keyless={"a"}, rows={"a": b"1"}).save("load", state(2), [*bad(1, 1), *bad(2)])
    first, second, other = without_key.copies
    assert first != second
    assert first == other
    again = Kept()
    run_store(again, keyless={"a"}, rows={"a": b"1"}).save("load", state(2), bad(1))
    assert again.copies == [first], "another run that reads it again"
