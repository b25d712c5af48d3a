"""What every state store keeps to: positions, refused records, runs and leases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streamline.errors import LeaseHeld
from streamline.state import open_store
from streamline.state.store import BookmarkOverride, BookmarkSave, DeadLetter, PluginSecret, RunInfo, Store

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


def test_a_renamed_block_keeps_all_that_is_known_of_it(opens: Open) -> None:
    store = opens()
    sinks = {"export": "here", "other": "there", "export\norders": "table"}
    mark = BookmarkSave(stream="a", value="1", sinks=["export", "other"], destinations=sinks)
    store.save("p", "load", "r1", [mark], [letter(1)])
    store.save("p", "load", "r2", [BookmarkSave(stream="a", value="2", sinks=["export"], destinations=sinks)])
    refused = letter(2)
    refused.destination = "export"
    returned = letter(3)
    returned.stage, returned.output = "export", True
    store.save("p", "load", "r2", [], [refused, returned], [BookmarkOverride("a", "id", "1")])
    store.save("q", "load", "r", [BookmarkSave(stream="a", value="9", sinks=["export"])])
    store.save_schema("p", "export < load", "a", {"x": 1})
    store.save_schema("p", "load > export", "a", {"x": 2})
    store.plugin_secret_put("p", "load", PluginSecret(name="token", value='"t"', replaces="h"))
    before, epochs = store.bookmarks("p", "load")["a"], store.epochs("p", "load")
    store.save("p", "reader", "old", [BookmarkSave(stream="b", value="5")])  # of a block that was removed
    store.reset("p", "reader", run_id="remove")

    with store.renamed_block("p", "load", "reader"):
        pass
    with store.renamed_block("p", "export", "writer"):
        pass

    assert store.bookmarks("p", "load") == {}
    after = store.bookmarks("p", "reader")
    assert after.keys() == {"a"}
    assert (after["a"].value, after["a"].run_id, after["a"].saved_at) == (before.value, before.run_id, before.saved_at)
    assert after["a"].sinks == ["writer"]
    assert store.epochs("p", "reader") == epochs
    assert store.destinations("p", "reader") == {"a": {"writer": "here", "other": "there", "writer\norders": "table"}}
    assert [(each.value, each.sinks) for each in store.history("p")] == [("2", ["writer"]), ("1", ["writer", "other"])]
    assert store.rollback("p", "reader", "a", run_id="undo") == ["a"]
    assert store.destinations("p", "reader")["a"].keys() == {"writer", "other", "writer\norders"}
    assert store.consumed_overrides("p", "reader") == {BookmarkOverride("a", "id", "1")}
    letters = store.dead_letters("p")
    assert [(each.block, each.stage, each.destination, each.output) for each in letters] == [
        ("reader", "validate", None, False),
        ("reader", "validate", "writer", False),
        ("reader", "writer", None, True),
    ]
    assert store.last_schemas("p", "writer < reader") == {"a": {"x": 1}}
    assert store.last_schemas("p", "reader > writer") == {"a": {"x": 2}}
    assert store.plugin_secrets("p", "reader").keys() == {"token"}
    assert store.bookmarks("q", "load")["a"].sinks == ["export"]
    store.close()


def test_a_block_is_not_renamed_where_its_file_could_not_be(opens: Open) -> None:
    store = opens()
    store.save("p", "load", "r", [BookmarkSave(stream="a", value="1")], [letter(1)])
    with pytest.raises(OSError, match="full"), store.renamed_block("p", "load", "reader"):
        raise OSError("full")
    assert store.bookmarks("p", "load").keys() == {"a"}
    assert [each.block for each in store.dead_letters("p")] == ["load"]
    store.close()
