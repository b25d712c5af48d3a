"""What an attempt counts, saves and marks, and how its groups ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from streamline.connectors.singer.message_reader import TapOutputError
from streamline.connectors.singer.state import StateParts
from streamline.connectors.singer.tap import TapFailed
from streamline.errors import PipelineFailed, StreamlineError
from streamline.execution.integration.accounts import account_of
from streamline.execution.integration.attempt import Attempt, _error_of
from streamline.execution.integration.flat_state import stream_key
from streamline.execution.integration.plan import MapperPlan, Plan
from streamline.flow.items import BadRecord, FileBatch, Position, RawBatch, Schema
from streamline.flow.runtime import FlowOutcome, Runtime
from streamline.flow.stages.schema_change import SchemaPaused
from streamline.telemetry.progress import Progress
from tests.execution.integration.plans import block, context, group, plan, plugin, sink, source, stream
from tests.support.failures import fails

USERS = stream("shop-users", "LOG_BASED", stream="users")
ORDERS = stream("orders", key="id")
BROKEN = StreamlineError("it broke", code="tap.failed")


class Gaps:
    def __init__(self) -> None:
        self.marked: list[list[str]] = []
        self.dropped: list[list[str]] = []

    def mark_gap(self, pipeline: str, block: str, streams: list[str], *, at_start: bool = False) -> None:
        self.marked.append(streams)

    def save(self, pipeline: str, block: str, run: str, bookmarks: Any, *, dropped: list[str]) -> None:
        self.dropped.append(dropped)

    def destinations(self, pipeline: str, block: str) -> dict[str, dict[str, str]]:
        return {}


def planned(**values: Any) -> Plan:
    load = source(USERS, ORDERS)
    return plan(load, sinks=[sink(load, **values)])


def attempt(made: Plan) -> Attempt:
    """An attempt that starts nothing."""
    run = context(store=Gaps(), run={"progress": Progress(), "warn": lambda *args: None})
    return Attempt(run, made, made.groups(), validate=False, version=1)


@pytest.fixture(autouse=True)
def no_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    def build_sinks(run: Any, made: Plan, groups: Any) -> dict[str, Any]:
        return {uuid: SimpleNamespace(id=uuid, unproven=False) for uuid in made.sinks}

    monkeypatch.setattr("streamline.execution.integration.attempt.build_sinks", build_sinks)


def store_of(made: Attempt) -> Gaps:
    return cast(Gaps, made._context.store)


def test_streams_that_the_start_of_a_tap_passes_have_a_gap_if_it_reads_the_log() -> None:
    made = planned()
    load = made.sources["load"]
    load.passed = ["items"]
    for streams, marked in (((USERS, ORDERS), [["items"]]), ((ORDERS,), [])):
        load.groups = [group(*streams)]
        trying = attempt(made)
        anyio.run(trying._mark_passed, load.groups[0])
        assert store_of(trying).marked == marked
    load.passed, load.groups = [], [group(USERS)]
    trying = attempt(made)
    anyio.run(trying._mark_passed, load.groups[0])
    assert store_of(trying).marked == []


def test_only_a_process_that_reads_the_log_leaves_streams_of_it_out() -> None:
    made = planned()
    load = made.sources["load"]
    load.left_out = ["items"]
    load.groups = [group(USERS, id="load.users"), group(ORDERS, id="load.orders")]
    trying = attempt(made)
    assert [account_of(trying._context, made, each).left_out for each in load.groups] == [["items"], []]
    assert account_of(trying._context, made, load.groups[0]).replication == {
        "shop-users": ("LOG_BASED", None),
        "orders": ("INCREMENTAL", "id"),
    }


def test_a_bookmark_is_proven_by_the_destinations_of_its_stream_and_behind_a_mapper_by_all() -> None:
    load = source(USERS, ORDERS)
    made = plan(load, sinks=[sink(load, streams=["orders"]), sink(load, uuid="other", streams=["users"])])
    assert account_of(context(), made, load.groups[0]).sinks_of("orders") == ["export"]
    mapper = MapperPlan(block=block("map", "transformer"), spec=cast(Any, None), plugin=plugin("mapper"), config={})
    made.mappers = {"load": [mapper]}
    assert account_of(context(), made, load.groups[0]).sinks_of("orders") == ["export", "other"]


def test_several_processes_keep_no_stream_that_is_syncing() -> None:
    made = planned()
    load = made.sources["load"]
    parts = StateParts(b'{"bookmarks":{"orders":1},"currently_syncing":"orders"}')
    load.groups = [group(USERS, ORDERS)]
    assert dict(account_of(context(), made, load.groups[0]).owned(parts)) == {
        "orders": b"1",
        "*": b'{"currently_syncing":"orders"}',
    }
    load.groups = [group(USERS, id="load.users"), group(ORDERS, id="load.orders")]
    assert dict(account_of(context(), made, load.groups[1]).owned(parts)) == {"orders": b"1"}


def test_streams_that_are_not_read_stay_covered_by_a_state_of_all_streams_alone() -> None:
    made = planned()
    load = made.sources["load"]
    load.selected, load.groups = [ORDERS], [group(ORDERS, rest='{"lsn":1}')]
    trying = attempt(made)
    key = stream_key("export", "shop-users")
    known = {"*": {"export": "x", key: "x"}}
    trying._context.store.destinations = lambda pipeline, block: known  # type: ignore[method-assign]
    account = account_of(trying._context, made, load.groups[0])
    assert key in account.destinations("*", b'{"lsn":1}')
    assert key not in account.destinations("*", b'{"lsn":2}')
    assert key not in account.destinations("orders", b'{"lsn":1}')
    load.groups = [group(ORDERS, orders="1")]
    assert key not in account_of(trying._context, made, load.groups[0]).destinations("*", b'{"lsn":1}')


def test_a_plugin_limits_its_processes_over_all_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = plugin("tap-x", max_processes=2)
    sources = [source(USERS, uuid="a", plugin=limited, max_parallel=4), source(USERS, uuid="b", plugin=limited)]
    free = source(USERS, uuid="c", plugin=plugin("tap-y"))
    export = sink(*sources, free, streams={"users": {"load_method": "append"}})
    trying = attempt(plan(*sources, free, sinks=[export]))
    limits: dict[str, list[Any]] = {}
    monkeypatch.setattr(trying, "_flow", lambda group, given: limits.__setitem__(group.id, list(given)))
    trying._flows()
    assert {name: [limit.total_tokens for limit in given] for name, given in limits.items()} == {
        "a": [4, 2],
        "b": [1, 2],
        "c": [1],
    }
    assert limits["a"][1] is limits["b"][1]


def test_a_schema_that_differs_from_the_catalog_is_warned_of() -> None:
    made = planned()
    looked: list[str] = []
    watch = SimpleNamespace(look=lambda stream, schema, deselected: looked.append(stream) or ["it has changed"])
    made.sources["load"].watch = cast(Any, watch)
    observe = attempt(made)._observer(made.groups()[0])
    observe([Schema("users", {}), Schema("unknown", {})])
    assert looked == ["shop-users"]


def test_bookmarks_that_processes_contradict_are_deleted() -> None:
    made = planned()
    made.sources["load"].groups = [group(USERS, global_="1", users="2")]
    trying = attempt(made)
    trying._routes.shared = {"load": {"global_", "a"}}
    trying._drop_shared()
    assert store_of(trying).dropped == [["a", "global_"]]
    assert made.groups()[0].rows == {"users": b"2"}


# -- what is observed


def position(text: bytes) -> Position:
    return Position("load", 1, StateParts(text))


def test_records_are_counted_and_streams_without_a_key_are_noted() -> None:
    made = planned()
    trying = attempt(made)
    observe = trying._observer(made.groups()[0])
    observe([Schema("users", {}, []), Schema("orders", {}, ["id"]), RawBatch("users", [b"x\n"], 3, 2)])
    observe([position(b'{"x":1}'), FileBatch("users", "sdk", ["a"], "jsonl", None, None, b"", 4)])
    assert trying._context.progress.records_read("load", "users") == 7
    assert made.sources["load"].keyless == {"users"}
    observe([Schema("users", {}, ["id"])])
    assert made.sources["load"].keyless == set()


def test_several_processes_need_a_bookmark_for_each_stream() -> None:
    made = planned()
    made.sources["load"].groups = [group(USERS, id="load.users"), group(ORDERS, id="load.orders")]
    observe = attempt(made)._observer(made.groups()[0])
    observe([position(b'{"bookmarks":{"users":1}}')])
    with fails("tap.state_not_by_stream", "load.users"):
        observe([position(b'{"x":1}')])


@pytest.mark.parametrize(("stage", "refused"), [("schema_change", True), ("clean", True), ("validate", False)], ids=str)
def test_too_many_refused_records_end_the_run_wherever_they_were_refused(stage: str, refused: bool) -> None:
    load = source(USERS, ORDERS)
    made = plan(load, sinks=[sink(load, max_bad_records=1), sink(load, uuid="other", max_bad_records=5)])
    trying = attempt(made)
    bad = [BadRecord("users", b"{}", "odd", stage)]
    trying._refuse(made.groups()[0], bad)
    if refused:
        with fails("record.too_many_invalid"):
            trying._refuse(made.groups()[0], bad)
    else:
        trying._refuse(made.groups()[0], bad)
    assert trying._context.progress.summary()["quarantined"] == 2


def test_a_record_that_one_destination_refused_counts_for_its_table() -> None:
    made = planned(streams={"users": {"destination_table": "people"}})
    trying = attempt(made)
    trying._refuse(made.groups()[0], [BadRecord("users", b"{}", "odd", "validate", sink="export")])
    (table,) = trying._context.progress.summary()["tables"]
    assert (table["block"], table["table"], table["quarantined"]) == ("export", "people", 1)


# -- saved positions


@pytest.mark.parametrize(
    ("name", "moved", "continues"),
    [
        ("users", ["shop-users"], True),
        ("users", ["users"], True),
        ("users", ["orders"], False),
        # It has no bookmark in this position.
        ("items", ["users"], False),
        ("unknown", ["users"], True),
        ("parts", ["users"], True),
    ],
)
def test_another_attempt_goes_on_where_a_streams_bookmark_moved(name: str, moved: list[str], continues: bool) -> None:
    load = source(USERS, ORDERS, stream("items", "FULL_TABLE"), stream("parts"))
    made = plan(load, sinks=[sink(load)])
    at = Position("load", 1, dict.fromkeys(("shop-users", "users", "orders"), b"1"))
    assert attempt(made)._continues(load.groups[0], name, at, dict.fromkeys(moved, b"1")) is continues


# -- outcomes


class Files:
    deleted = 0

    async def delete_all(self) -> None:
        self.deleted += 1


def judged(outcome: FlowOutcome, *, failures: dict[str, Any] | None = None, mapper: str | None = None) -> Any:
    made = planned()
    if mapper is not None:
        mapping = MapperPlan(block=block("map", "transformer"), spec=cast(Any, None), plugin=plugin(mapper), config={})
        made.mappers = {"load": [mapping]}
    forgotten: list[bool] = []
    made.sources["load"].watch = cast(Any, SimpleNamespace(forget=lambda: forgotten.append(True)))
    trying = attempt(made)
    files = Files()
    trying._files = {"load": cast(Any, files)}
    runtime = cast(Runtime, SimpleNamespace(failures=failures or {}))
    return anyio.run(trying._judge, outcome, runtime), files.deleted, bool(forgotten)


def test_the_outcome_of_a_group_says_who_failed() -> None:
    outcome, deleted, forgotten = judged(FlowOutcome("load", began=1.0, ended=2.0))
    assert (outcome.error, outcome.started, outcome.sink_failed, outcome.fault) == (None, True, False, None)
    assert (deleted, forgotten) == (1, False)
    outcome, deleted, _ = judged(FlowOutcome("load", BROKEN, "export"), failures={"export": BROKEN})
    assert (outcome.error, outcome.started, outcome.sink_failed, outcome.fault) == (BROKEN, False, True, "export")
    assert deleted == 0, "the target may read the files again"


def test_a_tap_that_failed_is_asked_for_its_catalog_again() -> None:
    assert judged(FlowOutcome("load", TapFailed("it broke")))[2]
    assert not judged(FlowOutcome("load", BROKEN))[2]


@pytest.mark.parametrize("kind", [TapFailed, TapOutputError])
def test_a_mapper_is_at_fault_where_its_error_says_so(kind: Any) -> None:
    error = kind("it broke", where="mapper-x")
    assert judged(FlowOutcome("load", error), mapper="mapper-x")[0].fault == "map"
    assert judged(FlowOutcome("load", error), mapper="mapper-y")[0].fault is None


def test_stopped_streams_fail_their_group() -> None:
    assert _error_of({}) is None
    assert _error_of({"users": BROKEN}) is BROKEN
    paused = SchemaPaused("users", "paused", hint="")
    assert _error_of({"users": paused, "orders": SchemaPaused("orders", "paused", hint="")}) is paused
    of_block = PipelineFailed("it broke", blocks=["clean"], code="block.failed")
    several = _error_of({"users": paused, "orders": of_block})
    assert isinstance(several, PipelineFailed)
    assert (several.code, several.blocks) == ("stream.several_stopped", ["clean"])
    named = [line for line in (several.hint or "").splitlines() if line.strip()]
    assert [line.count("users") for line in named] == [1, 0], "its error says so itself"
    assert [line.count("orders") for line in named] == [0, 1]
