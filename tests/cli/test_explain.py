"""`streamline explain` and `streamline run --dry-run`."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import MakeProject
from tests.support.project import Block, Project, mapper, tap, target, transformer

COLUMNS = {"id": "integer", "text": "string"}
INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
PASS_ON = """
@transformer
def change(records: list[dict], *args, **kwargs) -> list[dict]:
    return records
"""


def rows(*streams: str, **keys: Any) -> Block:
    """A tap with 20 rows in each stream, read incrementally unless `streams` says otherwise."""
    config = {name: {"properties": COLUMNS, "replication_key": "id", "rows": 20} for name in streams}
    return tap("rows", {"streams": config}, **{"streams": dict.fromkeys(streams, INCREMENTAL), **keys})


def plan(project: Project, *args: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(project.command(*(args or ("explain", "p")), "--json").expect(0).out)
    return found


def by_stream(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["stream"]: entry for entry in entries}


def test_it_says_what_would_run_and_moves_nothing(make_project: MakeProject) -> None:
    project = make_project(rows("numbers"), target("keyed", {"spy": "spy", "password": "hunter2"}))

    completed = project.command("explain", "p").expect(
        0,
        r"source load: tap-rows, command: .*tap_rows\.py",
        r"numbers +INCREMENTAL \(id\) +id +the start \(.*\) +load",
        r"1 tap process, at most 1 at once \(max_parallel: 4\)",
        r"destination export: target-keyed",
        r"numbers +numbers +id +upsert +.* id +pass +evolve +.* +export",
        r"what proves: the STATEs that it prints, and exit code 0",
        r"load -> export: .*; the target gets the key but ",
    )

    assert "hunter2" not in completed.text
    assert project.runs() == []
    assert project.rows() == []
    assert project.spied("target") == [], "a target is not started for it"
    assert list((project.root / ".streamline/runs").iterdir()) == [], "its private folder is gone"


def test_it_says_the_same_while_the_pipeline_is_running(make_project: MakeProject) -> None:
    project = make_project(tap("never_ends", max_duration=60, streams={"numbers": INCREMENTAL}), target())
    running = project.start("run", "p")
    try:
        words = plan(project)
    finally:
        running.kill()

    assert words["sources"][0]["ends"] == "after 60 s (max_duration)"
    assert words["destinations"][0]["session_interval"] == 60


def test_where_each_stream_starts(make_project: MakeProject) -> None:
    full = {"replication_method": "FULL_TABLE"}
    project = make_project(rows("a", "b", "c", streams={"a": INCREMENTAL, "b": INCREMENTAL, "c": full}), target())
    run_id = json.loads(project.run("--json").expect(0).out)["run_id"]

    streams = by_stream(plan(project)["sources"][0]["streams"])
    assert streams["a"]["start"]["kind"] == "store"
    assert json.loads(streams["a"]["start"]["value"])["replication_key_value"] == 20
    assert streams["a"]["start"]["run_id"] == run_id
    assert (streams["c"]["start"]["kind"], streams["c"]["start"]["value"]) == ("start", None)

    streams = by_stream(plan(project, "run", "p", "--dry-run", "--bookmark", "b.id=7")["sources"][0]["streams"])
    assert (streams["a"]["start"]["kind"], streams["b"]["start"]["kind"]) == ("store", "override")
    assert json.loads(streams["b"]["start"]["value"])["replication_key_value"] == 7

    words = plan(project, "run", "p", "--dry-run", "--full-refresh", "--stream", "a")
    streams = by_stream(words["sources"][0]["streams"])
    assert list(streams) == ["a"]
    assert (streams["a"]["start"]["kind"], streams["a"]["start"]["why"]) == ("start", "full refresh")
    assert project.position("a") == 20, "a dry run moves nothing"


def test_a_position_of_another_replication_method_is_not_used_and_said_so(make_project: MakeProject) -> None:
    project = make_project(rows("numbers"), target())
    project.run().expect(0)
    project.pipeline("p", rows("numbers", streams={"numbers": {"replication_method": "FULL_TABLE"}}), target())

    completed = project.command("explain", "p").expect(
        0, r"the start \(its position belongs to another replication method"
    )

    assert "note: stream numbers: its bookmark was made by INCREMENTAL on id" in completed.out


def test_which_streams_share_a_process_and_why(make_project: MakeProject) -> None:
    settings = {name: {**INCREMENTAL, "run_in_parallel": name == "b"} for name in "abc"}
    project = make_project(rows("a", "b", "c", streams=settings, max_parallel=3), target())

    source = plan(project)["sources"][0]
    assert {entry["id"]: entry["streams"] for entry in source["processes"]} == {
        "load.shared": ["a", "c"],
        "load.b": ["b"],
    }
    project.command("explain", "p").expect(0, r"2 tap processes, .*\(max_parallel: 3\)")

    project.command("streams", "set", "p", "b", "run_in_parallel=false", "--block", "load").expect(0)
    project.command("explain", "p").expect(0, r"1 tap process\b")


def test_log_based_streams_share_one_log(make_project: MakeProject) -> None:
    settings = {name: {"replication_method": "LOG_BASED", "run_in_parallel": True} for name in "ab"}
    settings["c"] = {**INCREMENTAL, "run_in_parallel": True}
    project = make_project(rows("a", "b", "c", streams=settings), target())

    processes = plan(project)["sources"][0]["processes"]
    assert [entry["streams"] for entry in processes] == [["a", "b"], ["c"]]


def test_how_streams_are_loaded_and_what_a_failure_can_do(make_project: MakeProject) -> None:
    settings = {"a": INCREMENTAL, "b": INCREMENTAL, "c": {"replication_method": "FULL_TABLE"}}
    destination = {"a": {"load_method": "append", "on_bad_record": "quarantine"}, "*": {}}
    project = make_project(
        rows("a", "b", "c", streams=settings),
        target("keyed", plugin={"args": ["--able=activate-version"], "proof": "exit"}, streams=destination),
    )
    project.command("streams", "set", "p", "b", "schema_change=freeze", "--block", "export").expect(0)

    words = plan(project)
    tables = by_stream(words["destinations"][0]["tables"])
    assert {name: table["load_method"] for name, table in tables.items()} == {
        "a": "append",
        "b": "upsert",
        "c": "replace",
    }
    assert {name: table["delivery"]["grade"] for name, table in tables.items()} == {
        "a": "at least once",
        "b": "at least once",  # it does not say that it upserts
        "c": "effectively once",
    }
    assert (tables["a"]["on_bad_record"], tables["b"]["on_bad_record"]) == ("quarantine", "pass")
    assert tables["b"]["schema_change"] == "freeze"
    assert words["edges"][0]["delivery"]["grade"] == "at least once", "the weakest of its streams"
    assert "proof: exit" in words["destinations"][0]["proof"]
    project.command("explain", "p").expect(0, r"a: append: after a failure, .* are duplicated")


def test_streams_that_share_a_name_have_a_row_each(make_project: MakeProject) -> None:
    catalog = [{"id": "a-orders", "stream": "orders"}, {"id": "b-orders", "stream": "orders"}]
    project = make_project(tap("messages", {"catalog": catalog, "messages": [], "spy": "spy", "code": 0}), target())

    tables = plan(project)["destinations"][0]["tables"]
    assert [(table["stream"], table["table"]) for table in tables] == [("a-orders", "orders"), ("b-orders", "orders")]


def test_several_blocks_on_the_way(make_project: MakeProject) -> None:
    project = make_project(rows("numbers"), mapper("tag"), transformer(PASS_ON), target(uuid="one"), target(uuid="two"))

    words = plan(project)

    assert [(edge["through"], edge["destination"]) for edge in words["edges"]] == [
        (["map", "change"], "one"),
        (["map", "change"], "two"),
    ]
    assert words["transformers"] == [{"block": "change", "lane": "rows", "workers": 0}]
    assert words["sources"][0]["mappers"] == ["map (mapper-tag)"]
    assert words["sources"][0]["batch"] == {"passed": [], "why": "map, change must see the records"}


def test_files_of_records_are_passed_on_where_the_target_takes_them(make_project: MakeProject) -> None:
    source = tap("sends_batches", {"dialect": "sdk"}, streams={"numbers": INCREMENTAL})
    project = make_project(source, target("keyed", plugin={"args": ["--able=batch"]}))
    project.command("explain", "p").expect(0, r"BATCH messages, if it sends any: passed on as files \(sdk\)")

    project.pipeline("p", source, target())
    project.command("explain", "p").expect(0, "expanded into records; target-keyed does not list the capability")


def test_a_target_that_drops_its_tables_is_told_of(make_project: MakeProject) -> None:
    project = make_project(rows("numbers"), target("keyed", {"load_method": "overwrite"}))

    project.command("explain", "p").expect(0, "note: its config .* makes it drop its tables when it starts")


def test_what_cannot_run_is_an_error_before_anything_moves(make_project: MakeProject) -> None:
    project = make_project(rows("numbers"), target(streams={"numbers": {"load_method": "replace"}}))

    project.command("explain", "p").expect(2, "activate-version")
    project.command("explain", "q").expect(2, "'q'")
    project.command("run", "p", "--dry-run").expect(2, "activate-version")


def test_a_destination_without_earlier_records_is_shown_and_noted(make_project: MakeProject) -> None:
    project = make_project(rows("numbers"), target())
    project.run().expect(0)
    project.pipeline("p", rows("numbers"), target(uuid="other"))

    source = plan(project)["sources"][0]

    assert [stream["stream"] for stream in source["streams"]] == ["numbers"]
    assert any("--accept-gap" in note for note in source["notes"])
    project.run().expect(2)
