"""What an integration pipeline promises, shown through the real command and fakes of taps and targets."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeProject
from tests.support.processes import wait_until
from tests.support.project import Block, Project, mapper, tap, target, transformer

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
COLUMNS = {"id": "integer", "text": "string"}


def upto(last: int) -> list[int]:
    """1…last."""
    return list(range(1, last + 1))


def rows_tap(content: dict[str, Any], config: dict[str, Any] | None = None, /, **keys: Any) -> Block:
    """The tap of configured rows. In `content` a stream's value may be a number of made-up rows, or a list of rows."""
    specs = {
        name: spec if isinstance(spec, dict) else {"properties": COLUMNS, "replication_key": "id", "rows": spec}
        for name, spec in content.items()
    }
    return tap("rows", {"streams": specs, **(config or {})}, **{"streams": dict.fromkeys(specs, INCREMENTAL), **keys})


# Incremental replication with ties and NULLs in the bookmark.


def shop_database(root: Path) -> sqlite3.Connection:
    """25 orders; `updated_at` has ties across the border of any page of 10, and NULLs."""
    db = sqlite3.connect(root / "shop.db", isolation_level=None)
    db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total REAL, updated_at TEXT)")
    for n in range(1, 26):
        at = None if n % 8 == 0 else f"2026-01-{n // 7 + 1:02d}T00:00:00Z"
        db.execute("INSERT INTO orders VALUES (?, ?, ?)", (n, n / 4, at))
    return db


def test_ties_and_nulls_in_the_bookmark_of_our_own_tap(make_project: MakeProject) -> None:
    settings = {"orders": {"replication_method": "INCREMENTAL", "bookmark_properties": ["updated_at"]}}
    project = make_project(
        tap("sqlite", {"path": "shop.db"}, builtin=True, streams=settings),
        target("keyed", {"log": "log.jsonl", "flush": 10}),
    )
    with contextlib.closing(shop_database(project.root)) as db:
        log = project.root / "log.jsonl"

        project.run().expect(0)
        assert project.ids("orders") == upto(25)
        before = project.rows("orders")

        # Nothing has changed: our own tap sends nothing twice. Rows with NULLs come with full syncs only.
        log.unlink()
        project.run().expect(0, "null")
        assert project.rows("orders") == before
        assert [m for m in project.messages() if m["type"] == "RECORD"] == []

        # A row added with the same bookmark as the last.
        (newest,) = db.execute("SELECT max(updated_at) FROM orders").fetchone()
        db.execute("INSERT INTO orders VALUES (26, 1.0, ?)", (newest,))
        log.unlink()
        project.run().expect(0)
        assert [m["record"]["id"] for m in project.messages() if m["type"] == "RECORD"] == [26]

        # A changed row.
        db.execute("UPDATE orders SET total = 99.5, updated_at = '2026-02-01T00:00:00Z' WHERE id = 3")
        log.unlink()
        project.run().expect(0)
        assert [m["record"]["id"] for m in project.messages() if m["type"] == "RECORD"] == [3]
        assert project.rows("orders")[2]["total"] == 99.5


def test_ties_and_nulls_in_the_bookmark_of_an_ordinary_tap(make_project: MakeProject) -> None:
    rows: list[dict[str, Any]] = [{"id": n, "at": None if n % 8 == 0 else n // 7, "text": "a"} for n in upto(25)]
    orders = {"properties": {"id": "integer", "at": "integer", "text": "string"}, "replication_key": "at"}
    settings = {"orders": {"replication_method": "INCREMENTAL", "bookmark_properties": ["at"]}}
    source = rows_tap({"orders": orders}, {"page": 10, "rows_file": "rows.json"}, streams=settings)
    project = make_project(source, target())
    project.write_json("rows.json", {"orders": rows})
    project.run().expect(0)
    assert project.ids("orders") == upto(25)

    project.run().expect(0)
    assert project.rows("orders") == sorted(rows, key=lambda row: row["id"])

    rows.append({"id": 26, "at": 25 // 7, "text": "new, with the bookmark of the last"})
    project.write_json("rows.json", {"orders": rows})
    project.run().expect(0)
    assert project.ids("orders") == upto(26)

    rows[2].update(at=9, text="changed")
    project.write_json("rows.json", {"orders": rows})
    project.run().expect(0)
    assert project.rows("orders")[2]["text"] == "changed"


# One run at a time.


def test_a_second_run_of_a_pipeline_refuses_and_names_the_first(make_project: MakeProject) -> None:
    config = {"rows": 100, "wait_at": 50, "wait_for": "go", "spy": "spy"}
    project = make_project(tap("counts", config), target())
    first = project.start("run", "p")
    wait_until(project.spied, "the first run's tap is there")
    run_id = project.spied()[0]["environ"]["STREAMLINE_RUN_ID"]

    project.command("run", "p").expect(1, run_id)

    project.write("go", "")
    first.finish().expect(0)
    project.assert_nothing_left()
    assert project.ids() == upto(100)
    project.run().expect(0)


def test_two_pipelines_with_one_tap_run_side_by_side(make_project: MakeProject) -> None:
    config = {"rows": 100, "wait_at": 50, "wait_for": "go", "spy": "spy"}
    settings = {"numbers": INCREMENTAL}
    project = make_project(tap("counts", config, streams=settings), target())
    project.pipeline(
        "q",
        tap("counts", {**config, "rows": 200}, uuid="load_q", streams=settings),
        target("keyed", {"path": "q.db"}, uuid="export_q"),
    )
    runs = [project.start("run", name) for name in ("p", "q")]
    wait_until(lambda: len(project.spied()) == 2, "both taps are there")

    project.write("go", "")

    for run in runs:
        run.finish().expect(0)
    project.assert_nothing_left()
    assert project.ids() == upto(100)
    assert project.ids(path="q.db") == upto(200)
    assert (project.position(), project.position(pipeline="q")) == (100, 200)


def test_a_killed_runs_leftovers_are_ended_by_the_next_one(make_project: MakeProject) -> None:
    project = make_project(tap("forks_children", {"daemon": True, "stay": True, "child_pid": "child"}), target())
    running = project.start("run", "p")
    wait_until((project.root / "child").exists, "the tap has forked its daemon")
    running.kill()
    project.pipeline("p", tap("forks_children", {}), target())

    project.run().expect(0)

    assert project.ids() == upto(30)
    statuses = sorted(run["status"] for run in project.runs())
    assert statuses[0] == "completed"
    assert "running" not in statuses


# Bad records.

BAD_ROWS = [{"id": n, "text": f"text {n}" if n % 100 else n} for n in upto(350)]
"""350 rows; in three of them `text` is a number, which its schema does not allow."""

GOOD_IDS = [n for n in upto(350) if n % 100]


def bad_records(make_project: MakeProject, **keys: Any) -> Project:
    """A project with a target that dies of a bad record, as targets do."""
    source = rows_tap({"numbers": BAD_ROWS}, {"page": 50})
    return make_project(source, target("keyed", {"validate": True, "flush": 20}, **keys))


def test_pass_retries_once_with_validation_when_the_target_fails(make_project: MakeProject) -> None:
    project = bad_records(make_project)

    completed = project.run().expect(0)

    assert project.ids() == GOOD_IDS
    assert project.position() == 350
    assert "3" in completed.last_line
    assert "quarantine" in completed.last_line.lower()
    letters = project.dead_letters()
    assert sorted(json.dumps(letter).count("numbers") > 0 for letter in letters) == [True] * 3


def test_quarantine_validates_every_record_first(make_project: MakeProject) -> None:
    project = bad_records(make_project, on_bad_record="quarantine")

    completed = project.run().expect(0)

    assert project.ids() == GOOD_IDS
    assert project.position() == 350
    assert "3" in completed.last_line
    assert "quarantine" in completed.last_line.lower()
    assert len(project.dead_letters()) == 3


def test_fail_stops_the_stream_at_its_first_bad_record(make_project: MakeProject) -> None:
    project = bad_records(make_project, on_bad_record="fail")

    project.run().expect(1, "numbers", "text")

    assert set(project.ids()) <= set(range(1, 100))
    assert set(upto(project.position() or 0)) <= set(project.ids())


def test_more_than_max_bad_records_fail_the_stream(make_project: MakeProject) -> None:
    project = bad_records(make_project, on_bad_record="quarantine", max_bad_records=2)

    project.run().expect(1, "numbers", "max_bad_records|bad records")

    position = project.position() or 0
    assert set(GOOD_IDS) & set(upto(position)) <= set(project.ids())


def test_as_many_as_max_bad_records_pass(make_project: MakeProject) -> None:
    bad_records(make_project, on_bad_record="quarantine", max_bad_records=3).run().expect(0)


# Schema changes.


def schema_change(make_project: MakeProject, change: str, policy: str, **config: Any) -> Project:
    """A project whose tap changes its schema midway (or, with `from_start`, between runs)."""
    source = tap("changes_schema", {"change": change, **config}, streams={"numbers": INCREMENTAL})
    return make_project(source, target("keyed", {"log": "log.jsonl"}, schema_change=policy))


def test_freeze_drops_new_columns(make_project: MakeProject) -> None:
    project = schema_change(make_project, "add", "freeze")

    project.run().expect(0)

    assert len(project.rows()) == 20
    assert all(row.keys() == {"id", "text"} for row in project.rows())
    schemas = [m["schema"]["properties"].keys() for m in project.messages() if m["type"] == "SCHEMA"]
    assert all(columns == {"id", "text"} for columns in schemas)
    assert project.position() == 20


def test_freeze_quarantines_retyped_values(make_project: MakeProject) -> None:
    project = schema_change(make_project, "retype", "freeze")

    completed = project.run().expect(0)

    assert project.ids() == upto(10)
    assert "10" in completed.last_line
    assert len(project.dead_letters()) == 10
    assert project.position() == 20


def test_pause_stops_before_the_change_until_the_operator_says_evolve(make_project: MakeProject) -> None:
    project = schema_change(make_project, "add", "pause")

    project.run().expect(1, "numbers", "streams set")

    assert project.ids() == upto(10)
    assert project.position() == 10
    project.run().expect(1)
    project.command("streams", "set", "p", "numbers", "schema_change=evolve", "--block", "export").expect(0)
    project.run().expect(0)
    assert set(upto(20)) <= set(project.ids())
    assert any("note" in row for row in project.rows())


@pytest.mark.parametrize(("policy", "code"), [("evolve", 0), ("freeze", 0), ("pause", 1)])
def test_a_change_between_two_runs_is_a_change_too(make_project: MakeProject, policy: str, code: int) -> None:
    project = schema_change(make_project, "none", policy)
    project.run().expect(0)
    project.pipeline(
        "p",
        tap("changes_schema", {"change": "add", "from_start": True}, streams={"numbers": INCREMENTAL}),
        target("keyed", {"log": "log.jsonl"}, schema_change=policy),
    )

    project.run().expect(code)

    new = [row for row in project.rows() if row["id"] > 20]
    assert len(new) == (0 if policy == "pause" else 20)
    assert any("note" in row for row in new) == (policy == "evolve")


# Several sources and destinations.


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


# Full refresh, overrides.


def test_full_refresh_of_one_stream_leaves_the_others(make_project: MakeProject) -> None:
    project = make_project(
        rows_tap({"a": 30, "b": 20}, {"spy": "spy"}), target("keyed", {"log": "log.jsonl", "flush": 5})
    )
    project.run().expect(0)
    (project.root / "log.jsonl").unlink()

    project.run("--full-refresh", "--stream", "a").expect(0)

    sent = [m["stream"] for m in project.messages() if m["type"] == "RECORD"]
    assert sent == ["a"] * 30
    assert "a" not in project.spied()[-1]["state"].get("bookmarks", {})
    assert (project.position("a"), project.position("b")) == (30, 20)


def test_full_refresh_keeps_the_old_position_until_the_first_new_one_is_saved(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 30}), target("keyed", {"flush": 5}))
    project.run().expect(0)
    project.pipeline(
        "p",
        rows_tap({"numbers": 30}, {"fail_at_start": {"stream": "numbers"}}),
        target("keyed", {"flush": 5}),
    )

    project.run("--full-refresh").expect(1)

    assert project.position() == 30


def test_a_bookmark_override_is_used_once(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 30}, {"spy": "spy"}), target("keyed", {"log": "log.jsonl"}))
    project.run().expect(0)
    (project.root / "log.jsonl").unlink()

    project.run("--bookmark", "numbers.id=25").expect(0)

    # It replaces the value inside the saved bookmark's shape, and takes the column's type.
    assert project.spied()[-1]["state"]["bookmarks"]["numbers"] == {
        "replication_key": "id",
        "replication_key_value": 25,
    }
    assert [m["record"]["id"] for m in project.messages() if m["type"] == "RECORD"] == list(range(25, 31))
    project.run().expect(0)
    assert project.spied()[-1]["state"]["bookmarks"]["numbers"]["replication_key_value"] == 30


def test_a_stored_override_counts_once_per_distinct_value(make_project: MakeProject) -> None:
    source = rows_tap({"numbers": 30}, {"spy": "spy"})
    project = make_project(source, target())
    project.run().expect(0)

    def given() -> Any:
        project.run().expect(0)
        return project.spied()[-1]["state"]["bookmarks"]["numbers"]["replication_key_value"]

    project.pipeline("p", source, target(), variables={"__bookmark_values__": {"load": {"numbers": {"id": 25}}}})
    assert given() == 25
    assert given() == 30
    project.pipeline("p", source, target(), variables={"__bookmark_values__": {"load": {"numbers": {"id": 27}}}})
    assert given() == 27
    assert given() == 30


def test_an_override_given_at_run_time_counts_each_time(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 30}, {"spy": "spy"}), target())
    project.run().expect(0)
    variables = json.dumps({"__bookmark_values__": {"load": {"numbers": {"id": 28}}}})

    for _ in range(2):
        project.run("--runtime-vars", variables).expect(0)
        assert project.spied()[-1]["state"]["bookmarks"]["numbers"]["replication_key_value"] == 28


def test_an_override_without_a_saved_bookmark_needs_a_known_shape(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 30}, {"spy": "spy"}), target())

    project.run("--bookmark", "numbers.id=25").expect(2, "state set")

    assert project.rows() == []


def test_with_another_key_the_old_bookmark_is_not_given(make_project: MakeProject) -> None:
    columns = {"id": "integer", "at": "integer"}
    spec = {"properties": columns, "rows": 20}
    source = rows_tap({"numbers": spec}, {"spy": "spy"}, streams={"numbers": INCREMENTAL})
    project = make_project(source, target())
    project.run().expect(0)
    by_at = {"numbers": {**INCREMENTAL, "bookmark_properties": ["at"]}}
    project.pipeline("p", rows_tap({"numbers": spec}, {"spy": "spy"}, streams=by_at), target())

    project.run().expect(0)

    assert "numbers" not in (project.spied()[-1]["state"].get("bookmarks") or {})
    assert project.state()["numbers"]["replication_key"] == "at"


# Transformers and mappers.

LANES = {
    "dicts": """
        from streamline.decorators import transformer

        @transformer
        def change(messages: list[dict], *args, **kwargs):
            assert kwargs['stream'] == 'numbers'
            return [{**m, 'double': m['id'] * 2} for m in messages if m['id'] % 10]
    """,
    "pandas": """
        if 'transformer' not in globals():
            from streamline.decorators import transformer

        @transformer
        def change(frame, *args, **kwargs):
            assert kwargs['stream'] == 'numbers'
            frame = frame[frame['id'] % 10 != 0]
            return frame.assign(double=frame['id'] * 2)
    """,
    "polars": """
        import polars as pl
        from streamline.decorators import transformer

        @transformer
        def change(frame: pl.DataFrame, *args, **kwargs) -> pl.DataFrame:
            return frame.filter(pl.col('id') % 10 != 0).with_columns(double=pl.col('id') * 2)
    """,
    "arrow": """
        import pyarrow as pa
        import pyarrow.compute as pc
        from streamline.decorators import transformer

        @transformer
        def change(table: pa.Table, *args, **kwargs) -> pa.Table:
            table = table.filter(pc.not_equal(pc.subtract(table['id'], pc.multiply(pc.divide(table['id'], 10), 10)), 0))
            return table.append_column('double', pc.multiply(table['id'], 2))
    """,
}


def source_text(lane: str) -> str:
    """A transformer that drops each tenth row and adds a column, in one lane."""
    lines = LANES[lane].split("\n")
    return "\n".join(line.removeprefix("        ") for line in lines)


@pytest.mark.parametrize("lane", LANES)
def test_a_transformer_filters_and_adds_a_column(make_project: MakeProject, lane: str) -> None:
    project = make_project(
        tap("counts", {"rows": 500}, streams={"numbers": INCREMENTAL}),
        transformer(source_text(lane)),
        target("keyed", {"log": "log.jsonl"}),
    )

    project.run().expect(0)

    expected = [{"id": n, "square": n * n, "text": "x" * 20, "double": 2 * n} for n in upto(500) if n % 10]
    assert project.rows() == expected
    assert project.position() == 500
    schema = next(m for m in project.messages() if m["type"] == "SCHEMA")
    assert "integer" in schema["schema"]["properties"]["double"]["type"]
    assert schema["key_properties"] == ["id"]


def test_losing_a_key_column_is_an_error(make_project: MakeProject) -> None:
    code = (
        "from streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n    return [{'text': m['text']} for m in messages]\n"
    )
    project = make_project(tap("counts", {"rows": 50}), transformer(code), target())

    project.run().expect(1, "change", "id")

    assert project.state() == {}


def test_an_error_in_a_transformer_shows_its_own_line(make_project: MakeProject) -> None:
    code = (
        "from streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n    return messages[0]['nothing']['there']\n"
    )
    project = make_project(tap("counts", {"rows": 50}), transformer(code), target())

    completed = project.run()

    assert completed.code == 1, completed
    assert "change.py" in completed.text
    assert "line 6" in completed.text
    assert "KeyError" in completed.text
    assert project.state() == {}


def test_filtering_everything_still_moves_the_position(make_project: MakeProject) -> None:
    code = (
        "from streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n    return []\n"
    )
    project = make_project(
        tap("counts", {"rows": 50}, streams={"numbers": INCREMENTAL}), transformer(code), target("silent_until_end")
    )

    project.run().expect(0)

    assert project.rows() == []
    assert project.position() == 50


def test_a_singer_mapper_is_a_block(make_project: MakeProject) -> None:
    project = make_project(
        tap("counts", {"rows": 200}, streams={"numbers": INCREMENTAL}), mapper("tag", {"tag": "t"}), target()
    )

    project.run().expect(0)

    rows = project.rows()
    assert [row["id"] for row in rows] == [n for n in upto(200) if n % 10 != 7]
    assert {(row["tag"], row["text"]) for row in rows} == {("t", "X" * 20)}
    assert project.position() == 200


def test_batches_are_expanded_where_a_block_must_see_the_records(make_project: MakeProject) -> None:
    code = (
        "from streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n"
        "    return [{**m, 'text': m['text'].upper()} for m in messages]\n"
    )
    project = make_project(
        tap("sends_batches", {"dialect": "sdk"}, streams={"numbers": INCREMENTAL}),
        transformer(code),
        target("keyed", plugin={"args": ["--able=about,batch"]}),
    )

    project.run().expect(0)

    assert [row["text"] for row in project.rows()] == [f"TEXT {n}" for n in upto(25)]


# Parallel streams.


def parallel(config: dict[str, Any] | None = None, **keys: Any) -> Block:
    """Three streams, each in a tap process of its own."""
    settings = {name: {**INCREMENTAL, "run_in_parallel": True} for name in ("a", "b", "c")}
    return rows_tap({"a": 40, "b": 40, "c": 40}, {"spy": "spy", **(config or {})}, streams=settings, **keys)


def test_parallel_streams_have_tap_processes_of_their_own_and_share_the_target(make_project: MakeProject) -> None:
    project = make_project(parallel(max_parallel=3), target("keyed", {"flush": 10, "spy": "spy"}))

    project.run().expect(0)

    assert [project.ids(name) for name in "abc"] == [upto(40)] * 3
    assert {name: mark["replication_key_value"] for name, mark in project.state().items()} == dict.fromkeys("abc", 40)
    assert len(project.spied()) == 3
    assert len(project.spied("target")) == 1
    # Each is given its own streams' bookmarks in the next run, whatever the others did.
    project.run().expect(0)
    assert [project.ids(name) for name in "abc"] == [upto(40)] * 3


def test_one_groups_failure_leaves_the_others_running(make_project: MakeProject) -> None:
    project = make_project(
        parallel({"fail": {"stream": "b", "after": 25}}, max_parallel=3), target("keyed", {"flush": 10})
    )

    project.run().expect(1, r"\bb\b", "lost the connection while reading b")

    assert (project.ids("a"), project.ids("c")) == (upto(40), upto(40))
    assert (project.position("a"), project.position("c")) == (40, 40)
    # What b's tap sent before it failed is kept and proven.
    assert project.ids("b") == upto(25)
    assert project.position("b") == 20
    project.pipeline("p", parallel(max_parallel=3), target("keyed", {"flush": 10}))
    project.run().expect(0)
    assert project.ids("b") == upto(40)


def test_a_failed_group_is_retried_from_its_last_proof(make_project: MakeProject) -> None:
    project = make_project(
        parallel({"fail": {"stream": "b", "after": 25, "once": "failed"}}, max_parallel=3),
        target("keyed", {"flush": 10, "log": "log.jsonl"}),
        retry_config={"retries": 1, "delay": 0},
    )

    project.run().expect(0)

    assert (project.root / "failed").exists()
    assert [project.ids(name) for name in "abc"] == [upto(40)] * 3
    retried = [m["record"]["id"] for m in project.messages() if m["type"] == "RECORD" and m["stream"] == "b"]
    assert retried == [*upto(25), *range(20, 41)], "the retry begins at the proven position (a `>=` tap's 20)"


def test_a_failed_tap_without_retries_fails_the_run_after_its_rows_are_proven(make_project: MakeProject) -> None:
    config = {"fail": {"stream": "numbers", "after": 25, "code": 3}}
    project = make_project(rows_tap({"numbers": 40}, config), target("keyed", {"flush": 1000}))

    project.run().expect(1, "tap-rows", "3", "lost the connection while reading numbers")

    assert project.ids() == upto(25)
    assert project.position() == 20


def test_every_stream_of_a_tap_that_fails_in_discovery_is_untouched(make_project: MakeProject) -> None:
    source = Block(
        "load",
        "data_loader",
        "source: tap-false\n",
        plugin=("tap-false", {"command": ["/bin/sh", "-c", "echo no route to host >&2; exit 4"]}),
    )
    project = make_project(source, target())

    completed = project.run()

    assert completed.code in (1, 2), completed
    assert "tap-false" in completed.text
    assert "no route to host" in completed.text
    assert project.rows() == []


# Settings that the engine itself carries out for unmodified targets.


def test_streams_are_renamed_columns_dropped_and_keys_set_for_any_target(make_project: MakeProject) -> None:
    settings = {"numbers": {"destination_table": "figures", "unique_constraints": ["square"], "columns": ["square"]}}
    project = make_project(
        tap("counts", {"rows": 20}, streams={"numbers": INCREMENTAL}),
        target("keyed", {"log": "log.jsonl"}, streams=settings),
    )

    project.run().expect(0)

    assert project.rows("figures") == [{"square": n * n} for n in upto(20)]
    assert project.rows("numbers") == []
    assert project.position("numbers") == 20, "positions keep the tap's names"
    schema = next(m for m in project.messages() if m["type"] == "SCHEMA")
    assert (schema["stream"], schema["key_properties"]) == ("figures", ["square"])
    assert schema["schema"]["properties"].keys() == {"square"}


def test_columns_that_are_not_selected_are_not_sent(make_project: MakeProject) -> None:
    settings = {"numbers": {**INCREMENTAL, "columns": {"exclude": ["text"]}}}
    project = make_project(rows_tap({"numbers": 20, "letters": 20}, streams=settings), target())

    project.run().expect(0)

    assert project.rows() == [{"id": n} for n in upto(20)]
    assert project.rows("letters") == [], "streams that are not listed are not selected"


def test_replace_is_done_with_versions_where_the_target_knows_them(make_project: MakeProject) -> None:
    source = rows_tap(
        {"numbers": []}, {"rows_file": "rows.json"}, streams={"numbers": {"replication_method": "FULL_TABLE"}}
    )
    sink = target(
        "keyed",
        plugin={"args": ["--able=about,activate-version"]},
        streams={"numbers": {"load_method": "replace"}},
    )
    project = make_project(source, sink)
    project.write_json("rows.json", {"numbers": [{"id": n, "text": "old"} for n in upto(20)]})
    project.run().expect(0)
    assert project.ids() == upto(20)

    project.write_json("rows.json", {"numbers": [{"id": n, "text": "new"} for n in upto(15)]})
    project.run().expect(0)

    assert project.rows() == [{"id": n, "text": "new"} for n in upto(15)]


def test_replace_by_a_target_without_versions_is_refused_before_the_start(make_project: MakeProject) -> None:
    project = make_project(
        rows_tap({"numbers": 20}, {"spy": "spy"}, streams={"numbers": {"replication_method": "FULL_TABLE"}}),
        target("keyed", streams={"numbers": {"load_method": "replace"}}),
    )

    project.run().expect(2, "replace", "target-keyed")

    assert project.rows() == []


# Wrong use is seen before anything moves.


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ({"streems": {}}, "streams"),
        ({"streams": {"nubmers": INCREMENTAL}}, "numbers"),
        ({"streams": {"numbers": {"bookmark_propertys": ["id"]}}}, "bookmark_properties"),
        ({"streams": {"numbers": {"replication_method": "SOMETIMES"}}}, "INCREMENTAL"),
        ({"streams": {"numbers": {**INCREMENTAL, "bookmark_properties": ["idd"]}}}, "id"),
        ({"streams": {"numbers": {**INCREMENTAL, "bookmark_properties": ["id", "square"]}}}, "multiple-bookmarks"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_wrong_settings_are_refused_with_the_file_and_a_hint(
    make_project: MakeProject, keys: dict[str, Any], hint: str
) -> None:
    project = make_project(tap("counts", {"rows": 10}, **keys), target())

    project.run().expect(2, "load", hint)

    assert project.rows() == []


def test_an_unset_environment_variable_is_named_with_its_place(make_project: MakeProject) -> None:
    project = make_project(tap("counts", {"rows": 10, "host": "{{ env_var('SHOP_HOST') }}"}), target())

    project.run().expect(2, r"data_loaders/load\.yaml:\d+", "SHOP_HOST")
