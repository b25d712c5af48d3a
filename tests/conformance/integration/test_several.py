"""Several sources into one destination, one source into several, a sink added later."""

from __future__ import annotations

import shutil

import duckdb

from tests.conformance.integration.common import INCREMENTAL, rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import tap, target, transformer


def test_several_sources_into_one_destination(make_project: MakeProject) -> None:
    project = make_project(
        tap("counts", {"rows": 300, "stream": "a"}, uuid="load_a", streams={"a": INCREMENTAL}),
        tap("counts", {"rows": 200, "stream": "b"}, uuid="load_b", streams={"b": INCREMENTAL}),
        target("keyed", {"spy": "spy"}),
    )

    project.run().expect(0)

    assert (project.ids("a"), project.ids("b")) == (upto(300), upto(200))
    rows = {(row["block"], row["stream"]): row["value"]["replication_key_value"] for row in project.state_rows()}
    assert rows == {("load_a", "a"): 300, ("load_b", "b"): 200}
    assert len(project.spied("target")) == 1


def test_a_position_is_proven_when_every_destination_has_it(make_project: MakeProject) -> None:
    source = tap("counts", {"rows": 1000}, streams={"numbers": INCREMENTAL})
    good = target("keyed", {"path": "good.db", "flush": 50}, uuid="good")
    project = make_project(source, good, target("keyed", {"path": "bad.db", "die_after": 600}, uuid="bad"))

    project.run().expect(1, "bad")

    assert project.state() == {}, "the second destination has flushed nothing"
    project.pipeline("p", source, good, target("keyed", {"path": "bad.db"}, uuid="bad"))
    project.run().expect(0)
    assert project.ids(path="good.db") == project.ids(path="bad.db") == upto(1000)
    assert project.position() == 1000


def test_a_sink_that_is_added_later_stops_the_run_before_anything_moves(make_project: MakeProject) -> None:
    source = tap("counts", {"rows": 100, "spy": "spy"}, streams={"numbers": INCREMENTAL})
    first = target("keyed", {"path": "first.db"}, uuid="first")
    second = target("keyed", {"path": "second.db"}, uuid="second")
    project = make_project(source, first)
    project.run().expect(0)
    project.pipeline("p", source, first, second)
    starts = len(project.spied())

    project.run().expect(2, "second", "--full-refresh", "--accept-gap")

    assert len(project.spied()) == starts
    project.run("--full-refresh").expect(0)
    assert project.ids(path="second.db") == upto(100)
    project.run().expect(0)


def test_accept_gap_lets_a_new_sink_begin_in_the_middle(make_project: MakeProject) -> None:
    first = target("keyed", {"path": "first.db"}, uuid="first")
    second = target("keyed", {"path": "second.db"}, uuid="second")
    project = make_project(tap("counts", {"rows": 100}, streams={"numbers": INCREMENTAL}), first)
    project.run().expect(0)
    project.pipeline("p", tap("counts", {"rows": 150}, streams={"numbers": INCREMENTAL}), first, second)

    project.run("--accept-gap").expect(0)

    assert project.ids(path="first.db") == upto(150)
    assert project.ids(path="second.db") == list(range(101, 151))
    project.run().expect(0)


def test_a_stream_can_have_a_target_process_of_its_own_where_the_target_allows_it(make_project: MakeProject) -> None:
    settings = {"a": {"run_in_parallel": True}, "*": {}}
    project = make_project(
        rows_tap({"a": 40, "b": 40, "c": 40}),
        target("keyed", {"spy": "spy", "flush": 10}, streams=settings, plugin={"max_processes": 2}),
    )

    project.run().expect(0)

    assert len(project.spied("target")) == 2
    assert [project.ids(name) for name in "abc"] == [upto(40)] * 3
    assert [project.position(name) for name in "abc"] == [40] * 3


def test_only_the_listed_streams_are_exported(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"a": 20, "b": 20}), target("keyed", streams={"a": {}}))

    project.run().expect(0)

    assert (project.ids("a"), project.ids("b")) == (upto(20), [])


def test_a_target_whose_echoes_are_not_to_be_trusted_is_proven_by_its_exit_alone(make_project: MakeProject) -> None:
    # It echoes every state at once. `proof: exit` in its entry says what it is.
    source = tap("counts", {"rows": 500, "state_every": 10}, streams={"numbers": INCREMENTAL})
    liar = {"echo_first": 10**9, "flush": 1000}
    project = make_project(source, target("echoes_first_state", {**liar, "die_after": 400}, plugin={"proof": "exit"}))
    project.run().expect(1)
    assert project.state() == {}

    project.pipeline("p", source, target("echoes_first_state", liar, plugin={"proof": "exit"}))
    project.run().expect(0)

    assert project.ids() == upto(500)
    assert project.position() == 500


PATH = """
from streamline.decorators import transformer

@transformer
def change(messages: list[dict], *args, **kwargs):
    return [{'id': m['id'] + %d, '%s': m['id']} for m in messages]
"""


def test_two_paths_into_one_destination_are_both_proven(make_project: MakeProject) -> None:
    source = tap("counts", {"rows": 40}, streams={"numbers": INCREMENTAL})
    first = transformer(PATH % (0, "one"), uuid="one", entry={"upstream_blocks": ["load"]})
    second = transformer(PATH % (1000, "two"), uuid="two", entry={"upstream_blocks": ["load"]})
    both = {"upstream_blocks": ["one", "two"]}
    project = make_project(source, first, second, target("keyed", {"flush": 40, "die_after": 60}, entry=both))

    project.run().expect(1)

    assert project.state() == {}, "the records of the second path are missing"
    project.pipeline("p", source, first, second, target("keyed", {"flush": 10, "log": "log.jsonl"}, entry=both))
    project.run().expect(0)
    assert project.ids() == [*upto(40), *range(1001, 1041)]
    assert project.position() == 40
    columns: set[str] = set()
    for message in project.messages():
        if message["type"] == "SCHEMA":
            columns = set(message["schema"]["properties"])
        if message["type"] == "RECORD":
            assert set(message["record"]) == columns, "a record is read by the SCHEMA before it"


def test_two_destinations_of_one_file_that_one_process_can_open_are_refused(make_project: MakeProject) -> None:
    project = make_project(
        tap("counts", {"rows": 1}),
        target("duckdb", {"path": "w.duckdb"}, uuid="one", builtin=True),
        target("duckdb", {"path": "./w.duckdb", "schema": "other"}, uuid="two", builtin=True),
    )

    project.run().expect(2, "'one' and 'two' both write to")


def test_a_destination_that_moved_stops_the_run_until_the_gap_is_accepted(make_project: MakeProject) -> None:
    source = tap("counts", {"rows": 100}, streams={"numbers": INCREMENTAL})
    project = make_project(source, target("keyed", {"path": "first.db", "flush": 50}))
    project.run().expect(0)
    project.pipeline("p", source, target("keyed", {"path": "./first.db", "flush": 10}))
    project.run().expect(0)

    project.pipeline("p", source, target("keyed", {"path": "second.db"}))
    project.run().expect(2, "--full-refresh", "--accept-gap")
    renamed = {"numbers": {"destination_table": "other"}}
    project.pipeline("p", source, target("keyed", {"path": "first.db"}, streams=renamed))
    project.run().expect(2)

    # The stream has nothing new: that the gap was accepted is kept all the same.
    project.run("--accept-gap").expect(0)
    project.run().expect(0)
    project.run("--full-refresh").expect(0)
    assert project.ids("other", path="first.db") == upto(100)


def test_a_destination_whose_file_was_deleted_stops_the_run(make_project: MakeProject) -> None:
    source = tap("counts", {"rows": 10}, streams={"numbers": INCREMENTAL})
    project = make_project(source, target("files", {"path": "out", "format": "jsonl"}, builtin=True))
    project.run().expect(0)
    shutil.rmtree(project.root / "out")

    project.run().expect(2, "out does not exist")

    project.run("--full-refresh").expect(0)
    assert list((project.root / "out").rglob("*.jsonl"))


def test_a_dropped_table_stops_the_run_until_it_is_loaded_again(make_project: MakeProject) -> None:
    source = tap("counts", {"rows": 10}, streams={"numbers": INCREMENTAL})
    files = target("files", {"path": "out", "format": "jsonl"}, builtin=True, uuid="files")
    project = make_project(source, target("duckdb", {"path": "out.duckdb"}, builtin=True), files)
    project.run().expect(0)
    project.run().expect(0)
    with duckdb.connect(str(project.root / "out.duckdb")) as database:
        database.execute("drop table numbers")

    project.run().expect(2, "no table 'numbers' any more")

    project.run("--full-refresh").expect(0)
    with duckdb.connect(str(project.root / "out.duckdb")) as database:
        assert database.execute("select count(*) from numbers").fetchone() == (10,)
    shutil.rmtree(project.root / "out" / "numbers")
    project.run().expect(2, "files")
    project.run("--accept-gap").expect(0)
    project.run().expect(0)
