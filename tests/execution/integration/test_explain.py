"""A plan in words. How it is printed, and with real plugins, is tested in tests/cli/test_explain.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import ANY

import pytest

from streamline.blocks.connector.spec import SourceSpec
from streamline.connectors.plugins import Plugin
from streamline.connectors.singer.capabilities import Capabilities
from streamline.execution.delivery import Grade
from streamline.execution.integration.explain import explain
from streamline.execution.integration.explanation import (
    FlowExplanation,
    PluginWords,
    SourceWords,
    Start,
    TableWords,
)
from streamline.execution.integration.plan import Plan, SourcePlan
from streamline.pipeline.model import PipelineModel
from streamline.project.lockfile import Locked, write_locked
from streamline.state.store import Bookmark
from streamline.version import __version__
from tests.execution.integration.plans import block, bookmark, context, group, path, plan, plugin, sink, source, stream

USERS = stream("users", key="id", key_properties=["id"])
ORDERS = stream("shop-orders", key="id", stream="orders", key_properties=["id"])
LOG = [stream(name, "LOG_BASED", run_in_parallel=True) for name in ("a", "b")]
PARENT, CHILD = stream("lists"), stream("cards", parent="lists")
PARALLEL = stream("events", run_in_parallel=True)

FROM_THE_START = Start("start", "no position is saved")
OVERRIDDEN = "the override's value"
NOT_PARALLEL = "no stream sets run_in_parallel"


def explained(
    made: Plan,
    *saved: Bookmark,
    root: Path = Path("/shop"),
    gates: dict[str, list[str]] | None = None,
    callbacks: dict[str, list[str]] | None = None,
) -> FlowExplanation:
    """What is said of a plan.

    Args:
        gates: conditional blocks, and the blocks that each is for.
        callbacks: the same of callback blocks.
    """
    project = SimpleNamespace(
        root=root, work_dir=root / ".streamline", shown=lambda path: str(path).removeprefix(f"{root}/")
    )
    store = SimpleNamespace(bookmarks=lambda pipeline, block: {each.stream: each for each in saved})
    hooks = {
        kind: {uuid: block(uuid, kind[:-1], upstream=upstream) for uuid, upstream in (uuids or {}).items()}
        for kind, uuids in (("conditionals", gates), ("callbacks", callbacks))
    }
    return explain(context(store=store, run={"project": project}), cast(PipelineModel, SimpleNamespace(**hooks)), made)


def words_of(load: SourcePlan, *saved: Bookmark, **model: Any) -> SourceWords:
    (words,) = explained(plan(load, sinks=[sink(load)]), *saved, **model).sources
    return words


def started(load: SourcePlan, *saved: Bookmark) -> dict[str, Start]:
    return {each.stream: each.start for each in words_of(load, *saved).streams}


def reads(*streams: Any, rows: dict[str, str] | None = None, **values: Any) -> SourcePlan:
    return source(*streams, groups=[group(*streams, **(rows or {}))], **values)


# -- plugins


@pytest.mark.parametrize(
    ("kind", "about", "expected"),
    [
        ("builtin", {}, PluginWords("tap-x", __version__, ANY)),
        ("builtin", {"version": "1.2"}, PluginWords("tap-x", "1.2", ANY)),
        ("pip", {}, PluginWords("tap-x", "3.4", "in its environment .streamline/venvs/tap-x")),
        ("pip", {"version": 5}, PluginWords("tap-x", "5", "in its environment .streamline/venvs/tap-x")),
        ("command", {}, PluginWords("tap-x", None, "command: bin/tap --fast")),
    ],
)
def test_a_plugin_is_told_with_its_version_and_place(
    tmp_path: Path, kind: Any, about: dict[str, Any], expected: PluginWords
) -> None:
    pip = ["Shop_Tap.Real[x]>=3"]
    write_locked(tmp_path, "tap-x", Locked(pip=pip, packages={"requests": "2.0", "shop-tap-real": "3.4"}))
    argv = [f"{tmp_path}/bin/tap", "--fast"]
    used = Plugin(name="tap-x", role="tap", argv=argv, env={}, cwd=tmp_path, fingerprint="", kind=kind)

    words = words_of(source(USERS, plugin=used, capabilities=Capabilities(about=about)), root=tmp_path)

    assert words.plugin == expected


@pytest.mark.parametrize("locked", [Locked(packages={"requests": "2.0"}), None])
def test_a_plugin_that_is_not_locked_has_no_known_version(tmp_path: Path, locked: Locked | None) -> None:
    write_locked(tmp_path, "tap-x", locked)
    used = Plugin(name="tap-x", role="tap", argv=[], env={}, cwd=tmp_path, fingerprint="", kind="pip")
    assert words_of(source(USERS, plugin=used), root=tmp_path).plugin.version is None


# -- where streams start


def test_a_stream_starts_from_its_bookmark_or_from_the_start() -> None:
    load = reads(USERS, ORDERS, rows={"users": '{"id": 7}'})
    assert started(load, bookmark("users", '{"id": 7}', saved_at="then")) == {
        "users": Start("store", ANY, '{"id": 7}', "then", "r0"),
        "shop-orders": FROM_THE_START,
    }


def test_a_bookmark_that_is_not_used_is_told_with_the_reason() -> None:
    load = reads(USERS, ORDERS, cause_of={"users": "full-refresh", "shop-orders": "full-refresh"})
    load.notes.append("stream shop-orders: made by FULL_TABLE")
    assert started(load, bookmark("users"), bookmark("shop-orders")) == {
        "users": Start("start", "full refresh"),
        "shop-orders": Start("start", "its position belongs to another replication method or key"),
    }
    assert started(load)["users"] == Start("start", "full refresh")
    flat = reads(USERS, ORDERS, rows={"rest": '{"orders": 7}'}, cause_of={"users": "full-refresh"})
    assert started(flat)["users"] == Start("start", "full refresh")


def test_an_override_is_told_though_a_bookmark_is_saved() -> None:
    load = reads(USERS, rows={"users": "9"}, cause_of={"users": "override"})
    assert started(load, bookmark("users")) == {"users": Start("override", OVERRIDDEN, "9")}


def test_what_stands_outside_of_the_bookmarks_is_no_start_of_a_stream() -> None:
    rest = '{"currently_syncing": "users"}'
    load = reads(USERS, ORDERS, rows={"users": "7", "rest": rest})
    assert started(load, bookmark("users"))["shop-orders"] == FROM_THE_START
    flat = reads(USERS, rows={"rest": '{"users": 7}'})
    assert started(flat) == {"users": Start("store", "the tap keeps one state for all streams", '{"users": 7}')}
    assert words_of(flat).start is None, "each stream has its own"


def test_a_tap_without_catalog_starts_from_its_state() -> None:
    def start(*saved: Bookmark, **values: Any) -> Start | None:
        rows = {"users": "7"} if values.pop("starts", False) else {}
        groups = [group(**rows)]
        groups[0].state = b'{"bookmarks":{"users":7}}'
        return words_of(source(catalog=None, groups=groups, **values), *saved).start

    state = '{"bookmarks":{"users":7}}'
    assert start() == FROM_THE_START
    assert start(bookmark("users"), cause_of={"users": "full-refresh"}) == Start("start", "full refresh")
    assert start(bookmark("users"), starts=True) == Start("store", ANY, state)
    assert start(starts=True, cause_of={"users": "override"}) == Start("override", OVERRIDDEN, state)


# -- processes


def whys(*processes: Sequence[Any], rows: dict[str, str] | None = None) -> list[str]:
    """Why each process reads these streams."""
    selected = [each for process in processes for each in process]
    groups = [group(*process, id=f"load.{number}", **(rows or {})) for number, process in enumerate(processes)]
    return [each.why for each in words_of(source(*selected, groups=groups)).processes]


@pytest.mark.parametrize(
    ("processes", "rows", "expected"),
    [
        ([[]], {}, ["the tap has no catalog"]),
        ([[USERS, ORDERS]], {}, [NOT_PARALLEL]),
        ([[USERS]], {}, [NOT_PARALLEL]),
        ([[PARALLEL]], {}, ["it is the only stream"]),
        ([[PARALLEL, USERS]], {"rest": '{"users": 7}'}, ["the tap's state is not split by stream"]),
        ([[USERS], [PARALLEL]], {}, ["run_in_parallel is not set", "run_in_parallel"]),
        ([[USERS, ORDERS], [PARALLEL]], {}, ["run_in_parallel is not set", "run_in_parallel"]),
        ([LOG, [PARALLEL]], {}, ["LOG_BASED streams share one log", "run_in_parallel"]),
        ([LOG], {}, ["LOG_BASED streams share one log"]),
        ([[stream("log", "LOG_BASED"), USERS], [PARALLEL]], {}, ["run_in_parallel is not set", "run_in_parallel"]),
        (
            [[*LOG, PARENT, CHILD], [PARALLEL]],
            {},
            ["LOG_BASED streams share one log; a parent stays with its children (lists)", "run_in_parallel"],
        ),
        (
            [[PARENT, CHILD], [PARALLEL]],
            {},
            [
                "a parent stays with its children (lists); none of the others sets run_in_parallel",
                "run_in_parallel",
            ],
        ),
        ([[CHILD, stream("labels", parent="lists", run_in_parallel=True)], [USERS]], {}, None),
    ],
)
def test_why_streams_share_a_process(processes: Any, rows: dict[str, str], expected: list[str] | None) -> None:
    assert whys(*processes, rows=rows) == (expected or ["they share a parent", "run_in_parallel is not set"])


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, ""),
        ({"max_duration": 60}, "after 60 s (max_duration)"),
        ({"idle_timeout": 5}, "after 5 s of silence (idle_timeout)"),
        ({"max_duration": 60, "idle_timeout": 5}, "after 60 s (max_duration) or after 5 s of silence (idle_timeout)"),
    ],
)
def test_what_ends_a_tap(limits: dict[str, Any], expected: str) -> None:
    assert words_of(source(USERS, spec=SourceSpec(source="tap-x", **limits))).ends == expected


def test_which_conditionals_a_source_waits_for() -> None:
    load = source(USERS, notes=["a note"])
    first, second = words_of(load, gates={"weekday": ["load"], "other": ["more"]}).notes
    assert first.endswith(" weekday returns true")
    assert second == "a note"
    assert "weekday and open return true" in words_of(load, gates={"weekday": ["load"], "open": ["load"]}).notes[0]


# -- destinations


def tables(*streams: Any, merges: bool = False, **values: Any) -> dict[str, TableWords]:
    load = source(*streams)
    about = {"load_methods": ["append", "upsert"]} if merges else None
    (words,) = explained(plan(load, sinks=[sink(load, about=about, **values)])).destinations
    return {each.stream: each for each in words.tables}


def test_a_table_has_the_name_key_and_method_that_the_target_is_given() -> None:
    settings = {"users": {"destination_table": "people", "unique_constraints": ["email"]}, "*": {}}
    words = tables(USERS, ORDERS, streams=settings)
    assert (words["users"].table, words["users"].key) == ("people", ["email"])
    assert (words["shop-orders"].table, words["shop-orders"].key) == ("orders", ["id"])


@pytest.mark.parametrize(
    ("merges", "values", "grade", "why"),
    [
        (True, {}, Grade.EFFECTIVELY_ONCE, "overwrites"),
        (False, {}, Grade.AT_LEAST_ONCE, "not declare"),
        (True, {"streams": {"users": {"load_method": "append"}}}, Grade.AT_LEAST_ONCE, "append"),
    ],
)
def test_the_delivery_of_a_table(merges: bool, values: dict[str, Any], grade: Grade, why: str) -> None:
    delivery = tables(USERS, merges=merges, **values)["users"].delivery
    assert delivery.grade == grade
    assert why in delivery.why


def test_a_stream_that_is_appended_whole_is_told_so() -> None:
    words = tables(stream("users", "FULL_TABLE"), streams={"users": {"load_method": "append"}})
    assert "every run" in words["users"].delivery.why


@pytest.mark.parametrize(
    ("max_processes", "parallel", "processes", "why"),
    [
        (1, False, ["export"], NOT_PARALLEL),
        (1, True, ["export"], "target-x allows only one (max_processes), although users sets run_in_parallel"),
        (2, False, ["export"], NOT_PARALLEL),
        (2, True, ["export.1", "export.2"], "streams set run_in_parallel, and the target allows that many"),
    ],
)
def test_the_processes_of_a_destination(max_processes: int, parallel: bool, processes: list[str], why: str) -> None:
    load = source(USERS, ORDERS)
    target = plugin("target-x", max_processes=max_processes)
    settings = {"users": {"run_in_parallel": parallel}, "*": {}}

    (words,) = explained(plan(load, sinks=[sink(load, target=target, streams=settings)])).destinations

    assert (words.processes, words.processes_why) == (processes, why)
    process = {each.stream: each.process for each in words.tables}
    assert process == {"users": processes[-1], "shop-orders": processes[0]}


# -- edges, transformers, callbacks


def test_an_edge_has_the_tables_of_its_source_alone() -> None:
    load, more = source(USERS), source(ORDERS, uuid="more")
    settings = {"orders": {"load_method": "append"}, "*": {}}
    export = sink(load, more, about={"load_methods": ["append", "upsert"]}, streams=settings)
    other = sink(more, uuid="other")
    ways = {"load": path("export"), "more": path("export", "other")}

    edges = explained(plan(load, more, sinks=[export, other], paths=ways)).edges

    assert [(each.source, each.destination) for each in edges] == [
        ("load", "export"),
        ("more", "export"),
        ("more", "other"),
    ]
    assert [each.delivery.grade for each in edges[:2]] == [Grade.EFFECTIVELY_ONCE, Grade.AT_LEAST_ONCE]


def test_streams_that_are_not_known_before_the_start_are_delivered_at_least_once() -> None:
    load = source(catalog=None)
    (edge,) = explained(plan(load, sinks=[sink(load)])).edges
    assert edge.delivery.grade == Grade.AT_LEAST_ONCE
    assert "unknown until the tap sends them" in edge.delivery.why


def test_a_transformer_is_shown_with_its_workers() -> None:
    load = source(USERS)
    way = path("export", transforms=["change", "mask"])
    for each, workers in zip(way.transforms, (3, None), strict=True):
        each.block.configuration["workers"] = workers
        each.lane = "rows"

    words = explained(plan(load, sinks=[sink(load)], paths={"load": way}))

    assert [(each.block, each.workers) for each in words.transformers] == [("change", 3), ("mask", 0)]
    assert words.edges[0].through == ["change", "mask"]
    assert words.sources[0].batch.why.startswith("change, mask ")


def test_callbacks_of_the_whole_pipeline_are_shown() -> None:
    load = source(USERS)
    words = explained(plan(load, sinks=[sink(load)]), callbacks={"all": [], "of_load": ["load"]})
    assert words.callbacks == ["all"]


# -- files of records


@pytest.mark.parametrize(
    ("first", "second", "passed", "why"),
    [
        ({"names": ["batch"]}, {"names": ["batch"]}, ["sdk"], "every target accepts them"),
        ({"names": ["batch"]}, {}, [], "target-x does not list the capability `batch`"),
        ({"names": ["batch"], "schema_change": "freeze"}, {"names": ["batch"]}, [], "export, other must see"),
    ],
)
def test_files_of_records(first: dict[str, Any], second: dict[str, Any], passed: list[str], why: str) -> None:
    load = source(USERS)
    (words,) = explained(plan(load, sinks=[sink(load, **first), sink(load, uuid="other", **second)])).sources
    assert words.batch.passed == passed
    assert why in words.batch.why
