"""What every state store keeps to: positions, refused records, runs and leases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streamline.errors import LeaseHeld
from streamline.state import open_store
from streamline.state.store import BookmarkSave, DeadLetter, RunInfo, Store

Open = Callable[[], Store]


@pytest.fixture(params=["sqlite:///.streamline/state.db"], ids=["SQLite"])
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same store again and again, as runs one after the other do."""
    return lambda: open_store(request.param, tmp_path)


def letter(number: int) -> DeadLetter:
    return DeadLetter(
        pipeline="p", block="load", stream="a", run_id="r", record=f'{{"id":{number}}}', error="odd", stage="validate"
    )


def test_what_was_saved_is_there_for_the_next_who_opens_it(opens: Open) -> None:
    store = opens()
    store.save("p", "load", "r", [BookmarkSave(stream="a", value='{"id": 1.0}', sinks=["export"])], [letter(1)])
    store.close()
    again = opens()
    assert {stream: mark.value for stream, mark in again.bookmarks("p", "load").items()} == {"a": '{"id": 1.0}'}
    assert [each.record for each in again.dead_letters("p")] == ['{"id":1}']
    again.close()
    again.close()


def test_a_key_that_is_not_named_keeps_its_value(opens: Open) -> None:
    store = opens()
    store.save("p", "load", "r", [BookmarkSave(stream="a", value="1"), BookmarkSave(stream="b", value="1")])
    store.save("p", "load", "r", [BookmarkSave(stream="b", value="2")])
    store.save("p", "other", "r", [BookmarkSave(stream="a", value="9")])
    assert {stream: mark.value for stream, mark in store.bookmarks("p", "load").items()} == {"a": "1", "b": "2"}
    store.close()


def test_a_position_and_the_refused_records_before_it_are_saved_together_or_not_at_all(opens: Open) -> None:
    store = opens()
    broken = letter(1)
    broken.record = None  # type: ignore[assignment]  # what no store can take
    with pytest.raises(Exception, match=r".+"):
        store.save("p", "load", "r", [BookmarkSave(stream="a", value="1")], [letter(0), broken])
    assert store.bookmarks("p", "load") == {}
    assert store.dead_letters("p") == []
    store.save("p", "load", "r", [BookmarkSave(stream="a", value="1")], [letter(0)])
    assert len(store.dead_letters("p")) == len(store.bookmarks("p", "load")) == 1
    store.close()


def test_the_same_refused_record_is_kept_once_until_it_is_discarded(opens: Open) -> None:
    store = opens()
    for _ in range(2):
        store.save("p", "load", "r", [], [letter(1)])
    (kept,) = store.dead_letters("p")
    assert kept.times == 2
    assert store.discard_dead_letters("p", [kept.id]) == 1
    assert store.dead_letters("p") == []
    store.close()


def test_a_run_that_never_ended_can_be_found(opens: Open) -> None:
    store = opens()
    for run_id in ("r1", "r2"):
        store.begin_run(RunInfo(run_id=run_id, pipeline="p"))
    store.finish_run("r1", "completed", {"records": 1})
    store.close()
    again = opens()
    assert [run.run_id for run in again.unfinished_runs("p")] == ["r2"]
    ended = again.run("r1")
    assert ended is not None
    assert (ended.status, ended.summary) == ("completed", {"records": 1})
    again.close()


def test_a_run_that_did_not_happen_is_forgotten(opens: Open) -> None:
    store = opens()
    store.begin_run(RunInfo(run_id="r1", pipeline="p"))
    store.drop_run("r1")
    assert store.runs("p") == []
    store.close()


def test_one_at_a_time_holds_a_pipelines_lease(opens: Open) -> None:
    store, other = opens(), opens()
    with store.acquire_lease("p", "r1"):
        holder = other.lease_holder("p")
        assert holder is not None
        assert holder.run_id == "r1"
        with pytest.raises(LeaseHeld):
            other.acquire_lease("p", "r2")
        other.acquire_lease("another", "r2").release()
    with other.acquire_lease("p", "r2"):
        pass
    assert store.lease_holder("p") is None
    store.close()
    other.close()
