"""Positions of source blocks are saved when everything downstream of them has been done, and not before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from streamline.execution.batch.fanout import COMPLETED, FAILED, SKIPPED, CallKey, Finished, Instance
from streamline.execution.batch.journal import Journal, read_journal
from streamline.execution.batch.pending import PendingPositions, held_of
from streamline.execution.batch.plan import BatchPlan, BlockPlan
from streamline.pipeline.limits import DynamicLimits
from streamline.pipeline.model import Block, PipelineModel
from streamline.state import open_store
from streamline.state.store import BookmarkOverride, BookmarkSave, Store
from tests.execution.batch.test_journal import BEGUN
from tests.support.failures import refuses


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store("sqlite:///state.db", tmp_path)
    yield opened
    opened.close()


class Model:
    """What `PendingPositions` uses of a pipeline."""

    uuid = "p"

    def where(self, *path: Any) -> str:
        return "metadata.yaml"


def plan(blocks: dict[str, Sequence[str]], *, advance: bool = False) -> BatchPlan:
    """Return a plan of blocks with their downstream ones; those named `export…` are destinations."""
    plans = {}
    for uuid, downstream in blocks.items():
        role: Any = {"load": "source", "expor": "destination"}.get(uuid[:5].rstrip("0123456789"))
        block = Block(
            uuid=uuid,
            type="transformer",
            language="yaml",
            upstream=[],
            downstream=list(downstream),
            configuration={},
            retry_config=None,
            timeout=None,
            file=None,
            content=None,
            name=uuid,
            executor_type=None,
            extra={},
            path=(),
        )
        plans[uuid] = BlockPlan(block=block, connector=role, advance_on_skip=advance)
    model = cast(PipelineModel, Model())
    return BatchPlan(model=model, blocks=plans, callbacks=[], limits=DynamicLimits(), concurrency=None, modules={})


CHAIN = {"load": ["change"], "change": ["export"], "export": []}


class Pending:
    """Positions of a run whose journal can be read again."""

    def __init__(self, store: Store, folder: Path, blocks: dict[str, Sequence[str]] = CHAIN, **values: Any) -> None:
        self.store = store
        self.path = folder / "journal.jsonl"
        self.plan = plan(blocks, **values)
        self.begin()

    def begin(self) -> None:
        past = read_journal(self.path)
        self.journal = Journal(self.path)
        if past is None:
            self.journal.add(BEGUN)
        self.positions = PendingPositions(
            self.store, self.plan, "r1", self.journal, held_of(past.positions) if past is not None else None
        )

    def resume(self) -> None:
        self.journal.close()
        self.begin()

    def read(
        self, value: str, key: str = "load", *, call: CallKey = (), into: str | None = None, **values: Any
    ) -> None:
        """Read a source whose stream `s` reaches a position."""
        self.positions.begin(key, "load", call, into)
        view = self.positions.store_for("load", key)
        view.save("p", "load", "r1", [BookmarkSave(stream="s", value=value, **values)])

    def settle(self, **ended: str | dict[CallKey, str]) -> dict[str, str]:
        """End these blocks; return the saved values by key."""
        finished = {}
        for uuid, statuses in ended.items():
            calls = statuses if isinstance(statuses, dict) else {(): statuses}
            instances = [
                Instance(number=number, key=key, status=status) for number, (key, status) in enumerate(calls.items())
            ]
            finished[uuid] = Finished(uuid=uuid, type="", instances=instances)
        self.positions.save_settled(finished)
        return {
            block: bookmark.value
            for block in self.store.bookmark_blocks("p")
            for bookmark in self.store.bookmarks("p", block).values()
        }


@pytest.fixture
def pending(store: Store, tmp_path: Path) -> Pending:
    return Pending(store, tmp_path)


def test_all_blocks_downstream_must_have_completed(pending: Pending) -> None:
    pending.read("1")
    assert pending.settle(load=COMPLETED) == {}
    assert pending.settle(load=COMPLETED, change=COMPLETED) == {}
    assert pending.settle(load=COMPLETED, change=COMPLETED, export=FAILED) == {}
    assert pending.settle(load=COMPLETED, change=COMPLETED, export=COMPLETED) == {"load": "1"}


@pytest.mark.parametrize(("advance", "saved"), [(False, {}), (True, {"load": "1"})])
def test_a_skipped_block_has_done_nothing(store: Store, tmp_path: Path, advance: bool, saved: dict[str, str]) -> None:
    pending = Pending(store, tmp_path, advance=advance)
    pending.read("1")
    assert pending.settle(load=COMPLETED, change=SKIPPED, export=SKIPPED) == saved


def test_positions_survive_with_the_run(pending: Pending) -> None:
    pending.read("1", cause="override")
    pending.resume()
    assert pending.settle(load=COMPLETED, change=COMPLETED, export=COMPLETED) == {"load": "1"}
    (bookmark,) = pending.store.bookmarks("p", "load").values()
    assert bookmark.sinks == ["export"]
    assert bookmark.epoch == 1


def test_what_was_saved_is_not_saved_again_by_a_resumed_run(pending: Pending) -> None:
    pending.read("1")
    pending.settle(load=COMPLETED, change=COMPLETED, export=COMPLETED)
    pending.store.set_bookmark("p", "load", "s", "5", run_id="operator")
    pending.resume()
    assert pending.settle(load=COMPLETED, change=COMPLETED, export=COMPLETED) == {"load": "5"}


def test_a_source_that_stores_its_output_reads_from_where_the_run_began(pending: Pending) -> None:
    pending.read("1")
    pending.positions.begin("load", "load", ())
    assert pending.positions.store_for("load", "load").bookmarks("p", "load") == {}
    pending.resume()
    assert pending.settle(load=COMPLETED, change=COMPLETED, export=COMPLETED) == {}


def test_a_pipe_goes_on_from_what_its_destination_has(store: Store, tmp_path: Path) -> None:
    pending = Pending(store, tmp_path, {"load": ["export"], "export": [], "export2": []})
    pending.read("1", into="export", cause="full-refresh")
    pending.resume()
    pending.read("2", into="export")
    bookmarks = pending.positions.store_for("load", "load").bookmarks("p", "load")
    assert (bookmarks["s"].value, bookmarks["s"].run_id) == ("2", "r1")
    assert pending.settle(load=COMPLETED, export=COMPLETED) == {"load": "2"}
    assert store.bookmarks("p", "load")["s"].epoch == 1  # the refresh counts, though it was read in two parts


@pytest.mark.parametrize(("before", "now"), [(None, "export"), ("export", "export2"), ("export", None)])
def test_a_source_that_goes_elsewhere_now_starts_anew(
    store: Store, tmp_path: Path, before: str | None, now: str | None
) -> None:
    pending = Pending(store, tmp_path, {"load": ["export"], "export": [], "export2": []})
    pending.read("1", into=before)
    pending.resume()
    pending.positions.begin("load", "load", (), now)
    assert pending.positions.store_for("load", "load").bookmarks("p", "load") == {}


A, B = (("items", 0),), (("items", 1),)


def test_each_child_has_a_position_of_its_own(pending: Pending) -> None:
    pending.read("1", "load:a", call=A)
    pending.read("2", "load:b", call=B)
    both: Any = {A: COMPLETED, B: COMPLETED}
    assert pending.settle(load=both, change=both, export={A: COMPLETED, B: SKIPPED}) == {"load:a": "1"}
    assert pending.settle(load=both, change=both, export=FAILED) == {"load:a": "1"}  # it gets all of them as one list
    assert pending.settle(load=both, change=both, export=COMPLETED) == {"load:a": "1", "load:b": "2"}


def test_a_child_that_failed_leaves_its_block_without_output(pending: Pending) -> None:
    pending.read("1", "load:a", call=A)
    assert pending.settle(load={A: COMPLETED, B: FAILED}, change=COMPLETED, export=COMPLETED) == {}


def test_blocks_that_did_not_run_for_all_items_have_not_done_all(pending: Pending) -> None:
    pending.read("1")
    instances = [Instance(number=0, key=A)]
    finished = {uuid: Finished(uuid=uuid, type="", instances=[Instance(number=0)]) for uuid in ("load", "change")}
    finished["export"] = Finished(uuid="export", type="", instances=instances, child=True, limited=True)
    pending.positions.save_settled(finished)
    assert pending.store.bookmark_blocks("p") == []


def test_two_children_cannot_have_one_key(pending: Pending) -> None:
    pending.read("1", "load:a", call=A)
    pending.read("2", "load:a", call=A)  # another attempt
    with refuses("source.duplicate_item", "'a'"):
        pending.read("2", "load:a", call=B)


def test_of_an_item_that_is_gone_nothing_is_saved(pending: Pending) -> None:
    pending.read("1", "load:a", call=A)
    pending.read("2", "load:b", call=B)
    pending.resume()
    pending.read("3", "load:b", call=A)
    saved = pending.settle(load={A: COMPLETED}, change=COMPLETED, export=COMPLETED)
    assert saved == {"load:b": "3"}


def test_overrides_are_consumed_with_the_position(pending: Pending) -> None:
    override = BookmarkOverride("s", "id", "1")
    pending.positions.begin("load", "load", ())
    view = pending.positions.store_for("load", "load")
    view.save("p", "load", "r1", [BookmarkSave(stream="s", value="1")], (), [override])
    assert view.consumed_overrides("p", "load") == {override}
    assert pending.store.consumed_overrides("p", "load") == set()
    pending.settle(load=COMPLETED, change=COMPLETED, export=COMPLETED)
    assert pending.store.consumed_overrides("p", "load") == {override}


def test_a_bookmark_that_the_tap_drops_is_deleted_with_the_others(pending: Pending) -> None:
    pending.store.save("p", "load", "r0", [BookmarkSave(stream="old", value="1")])
    pending.read("1")
    view = pending.positions.store_for("load", "load")
    view.save("p", "load", "r1", [], (), (), ["old"])
    assert list(view.bookmarks("p", "load")) == ["s"]
    assert list(pending.store.bookmarks("p", "load")) == ["old"]
    pending.settle(load=COMPLETED, change=COMPLETED, export=COMPLETED)
    assert list(pending.store.bookmarks("p", "load")) == ["s"]


def test_records_pass_no_destination(store: Store, tmp_path: Path) -> None:
    pending = Pending(store, tmp_path, {"load": ["export"], "export": ["export2"], "export2": []})
    assert pending.positions.proven_by("load") == ["export"]
