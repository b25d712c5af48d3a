"""Bookmarks: replaced whole, byte for byte, with epochs, history, rollback, and what is saved along with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamline.errors import ConfigError, StreamlineError
from streamline.state import open_store
from streamline.state.sqlite import SQLiteStore
from streamline.state.sqlite_positions import HISTORY_LIMIT, HISTORY_NEWEST
from streamline.state.store import BookmarkOverride, BookmarkSave, DeadLetter, Store
from tests.support.failures import refuses


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store("sqlite:///.streamline/state.db", tmp_path)
    yield store
    store.close()


def save(store: Store, run: str, cause: str = "run", **values: str) -> None:
    store.save("p", "b", run, [BookmarkSave(stream=s, value=v, sinks=["out"], cause=cause) for s, v in values.items()])


def values(store: Store) -> dict[str, str]:
    return {stream: bookmark.value for stream, bookmark in store.bookmarks("p", "b").items()}


@pytest.mark.parametrize(
    "text",
    [
        '{"b": 1,   "a": 123456789012345678901234567890}',
        '{"x": NaN, "y": 0.12345678901234567890123, "z": "\\ud800"}',
        '{"name": "żółć", "nul": "\\u0000"}',
        "[1]",
        '{"a": 1, "a": 2}',
    ],
)
def test_a_value_comes_back_exactly_as_written(store: Store, text: str) -> None:
    save(store, "r1", orders=text)
    assert values(store) == {"orders": text}


def test_a_lone_surrogate_is_kept_as_its_escape(store: Store) -> None:
    save(store, "r1", orders='{"a": "\ud800"}')
    assert values(store) == {"orders": '{"a": "\\ud800"}'}


def test_a_save_replaces_whole_bookmarks_and_leaves_other_streams(store: Store) -> None:
    save(store, "r1", orders='{"offset": {"page": 5}, "v": 1}', users='{"id": 7}')
    save(store, "r2", orders='{"v": 2}')
    assert values(store) == {"orders": '{"v": 2}', "users": '{"id": 7}'}
    assert store.bookmarks("p", "b")["users"].run_id == "r1"
    assert store.bookmarks("p", "other") == {}
    assert store.bookmarks("other", "b") == {}
    assert store.bookmark_blocks("p") == ["b"]


def test_a_bookmark_names_sinks_and_replication(store: Store) -> None:
    store.save(
        "p",
        "b",
        "r1",
        [
            BookmarkSave(
                stream="orders",
                value="{}",
                sinks=["x", "y"],
                replication_method="INCREMENTAL",
                replication_key="updated_at",
            )
        ],
    )
    bookmark = store.bookmarks("p", "b")["orders"]
    assert bookmark.sinks == ["x", "y"]
    assert (bookmark.replication_method, bookmark.replication_key) == ("INCREMENTAL", "updated_at")
    assert bookmark.epoch == 0
    assert bookmark.saved_at.endswith("Z")
    store.set_bookmark("p", "b", "orders", '{"id": 1}', run_id="set-1")
    bookmark = store.bookmarks("p", "b")["orders"]
    assert (bookmark.sinks, bookmark.replication_key) == (["x", "y"], "updated_at")


def test_everything_but_a_runs_progress_raises_the_epoch(store: Store) -> None:
    def epoch() -> int:
        return store.epochs("p", "b")["s"]

    save(store, "r1", s="1")
    save(store, "r2", s="2")
    assert epoch() == 0
    store.set_bookmark("p", "b", "s", "3", run_id="set-1")
    assert epoch() == 1
    store.set_bookmark("p", "b", "s", "4", run_id="edit-1", cause="edit")
    assert epoch() == 2
    store.reset("p", "b", ["s"], run_id="reset-1")
    assert epoch() == 3
    save(store, "r3", s="5")
    assert epoch() == 3, "a reset must not start the count again"
    store.rollback("p", "b", "s", run_id="rollback-1")
    assert epoch() == 4
    store.import_state("p", "b", [BookmarkSave(stream="s", value="6")], run_id="import-1")
    assert epoch() == 5
    for value in ("7", "8"):
        save(store, "r4", "full-refresh", s=value)
    assert epoch() == 6, "once per run"
    save(store, "r5", "full-refresh", s="9")
    save(store, "r6", "override", s="9")
    assert epoch() == 8


def test_reset_of_one_and_of_all(store: Store) -> None:
    save(store, "r1", a="1", b="2", c="3")
    assert store.reset("p", "b", ["a", "unknown"], run_id="reset-1") == ["a"]
    assert values(store) == {"b": "2", "c": "3"}
    assert store.reset("p", "b", run_id="reset-2") == ["b", "c"]
    assert values(store) == {}
    assert store.reset("p", "b", run_id="reset-3") == []


def test_history_tells_every_change_and_only_changes(store: Store) -> None:
    save(store, "r1", s="1")
    save(store, "r2", s="1")
    save(store, "r3", s="2")
    store.reset("p", "b", run_id="reset-1")
    entries = store.history("p", "b", "s")
    assert [(entry.value, entry.run_id, entry.cause) for entry in entries] == [
        (None, "reset-1", "reset"),
        ("2", "r3", "run"),
        ("1", "r1", "run"),
    ]
    assert [entry.value for entry in store.history("p", limit=1)] == [None]
    assert store.history("p", stream="nothing") == []


def test_rollback_undoes_the_last_run_and_itself(store: Store) -> None:
    save(store, "r1", a="1", b="1")
    save(store, "r2", a="2")
    save(store, "r2", a="3", c="1")
    assert store.rollback("p", "b", run_id="rollback-1") == ["a", "c"]
    assert values(store) == {"a": "1", "b": "1"}
    assert store.rollback("p", "b", run_id="rollback-2") == ["a", "c"]
    assert values(store) == {"a": "3", "b": "1", "c": "1"}


def test_rollback_to_an_entry_a_run_or_one_stream(store: Store) -> None:
    save(store, "r1", a="1", b="1")
    save(store, "r2", a="2", b="2")
    save(store, "r3", a="3", b="3")
    second = next(entry.id for entry in store.history("p", "b", "a") if entry.value == "2")
    assert store.rollback("p", "b", "a", to=second, run_id="x1") == ["a"]
    assert values(store) == {"a": "2", "b": "3"}
    assert store.rollback("p", "b", before_run="r1", run_id="x2") == ["a", "b"]
    assert values(store) == {}
    with refuses("state.no_such_change", "9999"):
        store.rollback("p", "b", to=9999, run_id="x3")
    with refuses("state.no_such_change", "'r9'"):
        store.rollback("p", "b", before_run="r9", run_id="x3")
    with refuses("state.no_history"):
        store.rollback("p", "empty", run_id="x3")


def test_rollback_brings_back_the_proof_of_its_value(store: Store) -> None:
    save(store, "r1", a="1")
    store.save("p", "b", "r2", [BookmarkSave(stream="a", value="2", sinks=["out", "more"])])
    store.rollback("p", "b", run_id="x")
    assert store.bookmarks("p", "b")["a"].sinks == ["out"]


def test_rollback_brings_back_which_destinations_have_the_records(store: Store) -> None:
    def save_to(place: str, run: str, value: str) -> None:
        store.save("p", "b", run, [BookmarkSave(stream="a", value=value, sinks=["out"], destinations={"out": place})])

    save_to("old", "r1", "30")
    save_to("new", "r2", "10")

    store.rollback("p", "b", run_id="x1")

    assert (values(store), store.destinations("p", "b")) == ({"a": "30"}, {"a": {"out": "old"}})
    store.import_state("p", "b", [BookmarkSave(stream="a", value="5")], run_id="i1")
    store.set_bookmark("p", "b", "a", "6", run_id="s1")
    store.rollback("p", "b", run_id="x2")
    assert (values(store), store.destinations("p", "b")) == ({"a": "5"}, {}), "nobody vouches for an import"
    store.rollback("p", "b", before_run="i1", run_id="x3")
    assert store.destinations("p", "b") == {"a": {"out": "old"}}


def test_history_tells_who_proved_a_value_last(store: Store) -> None:
    for sinks in (["out"], ["out", "other"]):
        store.save("p", "b", "r1", [BookmarkSave(stream="s", value="1", sinks=sinks)])
    assert [sorted(entry.sinks) for entry in store.history("p")] == [["other", "out"]]
    store.save("p", "b", "r2", [BookmarkSave(stream="s", value="2", sinks=["out"])])
    store.rollback("p", "b", run_id="r9")
    assert sorted(store.bookmarks("p", "b")["s"].sinks) == ["other", "out"]


def test_import_merges_or_replaces(store: Store) -> None:
    save(store, "r1", a="1", b="1")
    assert store.import_state("p", "b", [BookmarkSave(stream="a", value="9")], run_id="i1") == ["a"]
    assert values(store) == {"a": "9", "b": "1"}
    assert store.import_state("p", "b", [BookmarkSave(stream="c", value="9")], run_id="i2", replace=True) == [
        "a",
        "b",
        "c",
    ]
    assert values(store) == {"c": "9"}
    assert store.import_state("p", "b", [BookmarkSave(stream="c", value="8")], run_id="i3", replace=True) == ["c"]
    assert values(store) == {"c": "8"}


def test_a_gap_mark_stays_until_a_run_proves_a_new_position(store: Store) -> None:
    save(store, "r1", a="1")
    store.mark_gap("p", "b", ["a", "never_read"])
    assert list(values(store)) == ["a"]
    assert store.bookmarks("p", "b")["a"].gap
    store.set_bookmark("p", "b", "a", "2", run_id="set-1")
    assert store.bookmarks("p", "b")["a"].gap
    save(store, "r2", "full-refresh", a="3")
    assert not store.bookmarks("p", "b")["a"].gap


def letter(record: str = '{"id": 1}', **changes: str) -> DeadLetter:
    fields = {"pipeline": "p", "block": "b", "stream": "s", "run_id": "r1", "error": "bad", "stage": "validate"}
    return DeadLetter(record=record, **{**fields, **changes})


def test_a_save_takes_its_dead_letters_and_overrides_along(store: Store) -> None:
    override = BookmarkOverride("s", "id", "5")
    store.save("p", "b", "r1", [BookmarkSave(stream="s", value="1")], [letter()], [override])
    store.save("p", "b", "r2", [], [letter()], [override])
    assert store.consumed_overrides("p", "b") == {override}
    assert len(store.dead_letters("p")) == 1


def test_a_save_that_fails_changes_nothing(store: Store) -> None:
    save(store, "r1", s="1")
    broken = letter()
    broken.stage = None  # type: ignore[assignment]
    with pytest.raises(StreamlineError):
        store.save("p", "b", "r2", [BookmarkSave(stream="s", value="2")], [letter(), broken])
    assert values(store) == {"s": "1"}
    assert store.dead_letters("p") == []
    assert len(store.history("p")) == 1


def test_the_same_dead_letter_is_kept_once(store: Store) -> None:
    store.save("p", "b", "r1", [], [letter(), letter('{"id": 2}'), letter(stage="mask"), letter(stream="t")])
    store.save("p", "b", "r2", [], [letter(run_id="r2", error="still bad")])
    found = store.dead_letters("p")
    assert len(found) == 4
    again = next(one for one in found if one.record == '{"id": 1}' and one.stage == "validate" and one.stream == "s")
    assert (again.run_id, again.error, again.times) == ("r2", "still bad", 2)
    assert [one.id for one in store.dead_letters("p", limit=2)] == sorted(one.id for one in found)[-2:]
    assert [one.stream for one in store.dead_letters("p", stream="t")] == ["t"]
    assert store.discard_dead_letters("p", [again.id, 12345]) == 1
    assert store.dead_letters("p", ids=[again.id]) == []
    assert store.discard_dead_letters("other") == 0
    assert store.discard_dead_letters("p") == 3


def test_history_of_a_long_run_stays_small_and_keeps_the_runs_before(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    for run in range(3):
        save(store, f"short{run}", s=f'"{run}"')
    for number in range(HISTORY_NEWEST * 3):
        save(store, "long", s=str(number))
    entries = store.history("p", limit=10_000)
    assert len(entries) < HISTORY_NEWEST * 2
    assert [entry.run_id for entry in entries[-3:]] == ["short2", "short1", "short0"]
    store.rollback("p", "b", run_id="x")
    assert values(store) == {"s": '"2"'}
    store.close()


def test_history_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamline.state.sqlite_positions.HISTORY_NEWEST", 5)
    monkeypatch.setattr("streamline.state.sqlite_positions.HISTORY_LIMIT", 20)
    assert HISTORY_LIMIT == 1000
    store = SQLiteStore(tmp_path / "state.db")
    for number in range(100):
        save(store, f"run{number}", s=str(number))
    assert len(store.history("p", limit=10_000)) <= 25
    store.close()


STREAMS = st.sampled_from(["a", "b", "*"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.dictionaries(STREAMS, st.integers(0, 3).map(str), min_size=1)),
        st.tuples(st.just("set"), STREAMS, st.integers(0, 3).map(str)),
        st.tuples(st.just("reset"), st.none() | STREAMS),
        st.tuples(st.just("rollback"), st.none() | STREAMS),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_rollback_always_restores_what_stood_before(tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:
    """Against a model that keeps whole copies: a change's rollback gives back the values before it, and epochs grow."""
    store = SQLiteStore(tmp_path_factory.mktemp("model") / "state.db")
    model: dict[str, str] = {}
    changes: list[tuple[set[str], dict[str, str]]] = []  # streams touched in the history, values before
    epochs: dict[str, int] = {}
    try:
        for number, step in enumerate(steps):
            run, before = f"x{number}", dict(model)
            match step:
                case ("run", new):
                    save(store, run, **new)
                    touched = {stream for stream in new if before.get(stream) != new[stream]}
                    model.update(new)
                case ("set", stream, value):
                    store.set_bookmark("p", "b", stream, value, run_id=run)
                    touched = {stream}
                    model[stream] = value
                case ("reset", stream):
                    gone = set(model) if stream is None else {stream} & set(model)
                    assert set(store.reset("p", "b", [stream] if stream else None, run_id=run)) == gone
                    touched = gone
                    model = {name: value for name, value in model.items() if name not in gone}
                case ("rollback", stream):
                    relevant = [old for names, old in changes if stream is None or stream in names]
                    if not relevant:
                        with pytest.raises(ConfigError):
                            store.rollback("p", "b", stream, run_id=run)
                        continue
                    changed = store.rollback("p", "b", stream, run_id=run)
                    wanted = relevant[-1]
                    model = wanted | {} if stream is None else {k: v for k, v in model.items() if k != stream}
                    if stream is not None and stream in wanted:
                        model[stream] = wanted[stream]
                    touched = {name for name in ("a", "b", "*") if before.get(name) != model.get(name)}
                    assert set(changed) == touched
            if touched:
                changes.append((touched, before))
            assert values(store) == model
            now = store.epochs("p", "b")
            assert all(now[stream] >= epoch for stream, epoch in epochs.items())
            if step[0] != "run":
                assert all(now[stream] > epochs.get(stream, 0) for stream in touched)
            epochs = now
    finally:
        store.close()


def test_only_one_row_stands_for_a_stream(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    for number in range(5):
        save(store, f"r{number}", s=str(number))
    store.close()
    with sqlite3.connect(tmp_path / "state.db") as db:
        assert db.execute("SELECT count(*), max(value) FROM bookmarks").fetchall() == [(1, "4")]
