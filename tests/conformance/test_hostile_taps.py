"""Taps that misbehave, one test a behaviour: what is in the target, what is saved, what the operator is told.

What each tap does, who does so in the wild and what a careful operator wants stands in the fakes themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.hostile_lines import odd_lines
from tests.conftest import MakeProject
from tests.support.project import Project, tap, target

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
LOGGING = {"log": "log.jsonl", "flush": 10}


def piped(make_project: MakeProject, name: str, config: dict[str, Any] | None = None, **keys: Any) -> Project:
    """A project in which the tap `name` feeds the keyed target, which logs what it is sent."""
    keys = {"streams": {"numbers": INCREMENTAL}, **keys}
    return make_project(tap(name, config, **{k: v for k, v in keys.items() if v}), target("keyed", LOGGING))


def upto(last: int) -> list[int]:
    """1…last."""
    return list(range(1, last + 1))


def types(project: Project) -> list[str]:
    """The types of the messages that the target was sent, STATEs aside."""
    return [message["type"] for message in project.messages() if message["type"] != "STATE"]


@pytest.mark.parametrize("noisy_discovery", [False, True])
def test_noise_on_stdout_is_logged_and_no_record_is_lost(make_project: MakeProject, *, noisy_discovery: bool) -> None:
    project = piped(make_project, "prints_noise", {"noisy_discovery": noisy_discovery})

    project.run().expect(0)

    assert project.ids() == upto(30)
    assert project.position() == 30
    assert "INFO fetching page 7 of 30" in project.logs()
    assert "bye, no newline at the end" in project.logs()


@pytest.mark.parametrize(("what", "shown"), [("dict", "'id': 21"), ("untyped", '"id": 21'), ("unknown", "METRIC")])
def test_a_brace_that_is_no_message_fails_the_tap_after_what_came_before_is_proven(
    make_project: MakeProject, what: str, shown: str
) -> None:
    project = piped(make_project, "prints_dicts", {"what": what})

    project.run().expect(1, "tap-prints-dicts", shown)

    assert project.ids() == upto(20)
    assert project.position() == 20
    assert set(types(project)) == {"SCHEMA", "RECORD"}


@pytest.mark.parametrize("detached", [{}, {"daemon": True}, {"daemon": True, "clear": True}])
def test_children_that_a_tap_forked_do_not_hold_the_run_and_do_not_outlive_it(
    make_project: MakeProject, detached: dict[str, bool]
) -> None:
    project = piped(make_project, "forks_children", {"child_pid": "child", **detached})

    project.run().expect(0)

    assert project.ids() == upto(30)
    assert project.position() == 30
    child = (project.root / "child").read_text()
    # A zombie has no environment and no command: init has it, it is gone.
    cmdline = Path(f"/proc/{child}/cmdline")
    assert not cmdline.exists() or not cmdline.read_bytes()


def test_a_tap_that_ignores_term_is_killed_and_what_it_sent_is_proven(make_project: MakeProject) -> None:
    project = piped(make_project, "never_ends", {"manner": "ignore", "every": 0.01}, max_duration=0.4)

    project.run().expect(0)

    position = project.position()
    assert position
    assert set(upto(position)) <= set(project.ids())


@pytest.mark.parametrize("manner", ["die", "drain", "empty"])
def test_a_tap_that_never_ends_is_ended_by_max_duration(make_project: MakeProject, manner: str) -> None:
    project = piped(make_project, "never_ends", {"manner": manner, "every": 0.01}, max_duration=0.4)

    project.run().expect(0)

    first = project.position()
    assert first
    assert set(upto(first)) <= set(project.ids())
    project.run().expect(0)
    assert project.position() > first
    assert project.ids() == upto(len(project.ids()))


def test_a_tap_that_falls_silent_is_ended_by_idle_timeout(make_project: MakeProject) -> None:
    project = piped(make_project, "never_ends", {"quiet_after": 20, "every": 0.01, "manner": "drain"}, idle_timeout=0.5)

    project.run().expect(0)

    assert project.ids() == upto(20)
    assert project.position() == 20


@pytest.mark.parametrize("code", [1, 0, -9])
def test_a_tap_that_dies_mid_line_has_failed_and_its_whole_rows_are_kept(make_project: MakeProject, code: int) -> None:
    project = piped(make_project, "dies_mid_line", {"code": code})

    project.run().expect(1, "tap-dies-mid-line")

    assert project.ids() == upto(25)
    assert project.position() == 20


def test_a_last_line_without_its_newline_is_data_when_it_is_whole(make_project: MakeProject) -> None:
    project = piped(make_project, "dies_mid_line", {"code": 0, "whole": True})

    project.run().expect(0)

    assert project.ids() == upto(26)


def test_a_tap_that_is_killed_after_its_last_whole_row_has_failed_all_the_same(make_project: MakeProject) -> None:
    # Nothing in its output shows that it did not end by itself; its exit does.
    project = piped(make_project, "dies_mid_line", {"code": -9, "whole": True})

    project.run().expect(1, "tap-dies-mid-line", "SIGKILL")

    assert project.ids() == upto(26)
    assert project.position() == 20


def test_a_record_before_its_schema_fails_the_tap_and_never_reaches_the_target(make_project: MakeProject) -> None:
    project = piped(make_project, "record_before_schema", streams=None)

    project.run().expect(1, "letters", "SCHEMA")

    assert project.ids() == upto(10)
    assert project.rows("letters") == []
    assert project.position() == 10
    assert "letters" not in project.state()


@pytest.mark.parametrize("change", ["add", "retype", "drop", "key"])
def test_a_schema_that_changes_midway_is_forwarded_in_its_place(make_project: MakeProject, change: str) -> None:
    project = piped(make_project, "changes_schema", {"change": change})

    project.run().expect(0)

    assert types(project) == ["SCHEMA", *["RECORD"] * 10, "SCHEMA", *["RECORD"] * 10]
    before, after = (m for m in project.messages() if m["type"] == "SCHEMA")
    assert before["schema"]["properties"].keys() == {"id", "text"}
    columns = after["schema"]["properties"]
    assert {
        "add": "note" in columns,
        "retype": "integer" in columns.get("text", {}).get("type", []),
        "drop": "text" not in columns,
        "key": after["key_properties"] == ["id", "text"],
    }[change]
    assert len(project.rows()) == 20
    assert project.position() == 20


def test_values_that_strict_parsers_refuse_pass_byte_for_byte(make_project: MakeProject) -> None:
    project = piped(make_project, "sends_odd_values", streams=None)

    project.run().expect(0)

    records = [line for line in project.lines() if '"RECORD"' in line]
    assert records == odd_lines()
    assert project.state() == {"odd": {"version": 1, "big": 123456789012345678901234567890}}


def test_other_names_in_stream_than_in_tap_stream_id(make_project: MakeProject) -> None:
    # Settings find a stream by either name.
    streams = {"shop-public-orders": INCREMENTAL, "people": {**INCREMENTAL, "columns": {"exclude": ["text"]}}}
    project = make_project(tap("other_names", {"spy": "spy"}, streams=streams), target("keyed", LOGGING))

    project.run().expect(0)

    assert project.ids("orders") == project.ids("people") == upto(20)
    assert project.position("shop-public-orders") == project.position("shop-public-users") == 20
    (project.root / "log.jsonl").unlink()
    project.run().expect(0)
    assert "RECORD" not in types(project)
    given = project.spied()[-1]["state"]["bookmarks"]
    assert given["shop-public-orders"] == {"replication_key": "id", "replication_key_value": 20}


def test_a_tap_that_reads_only_properties_gets_them(make_project: MakeProject) -> None:
    project = piped(make_project, "legacy_properties", {"spy": "spy"})

    project.run().expect(0)

    assert project.ids() == upto(10)
    assert "--properties" in project.spied()[0]["argv"]


def test_a_version_announced_early_is_held_back_until_the_stream_is_complete(make_project: MakeProject) -> None:
    project = piped(make_project, "activates_early", streams=None)

    project.run().expect(0)

    assert types(project) == ["SCHEMA", *["RECORD"] * 20, "ACTIVATE_VERSION"]
    assert len(project.rows()) == 20
    assert project.state() == {"numbers": {"version": 2, "row": 20}}


def test_a_version_announced_early_is_dropped_when_the_stream_fails(make_project: MakeProject) -> None:
    config = {"version": 1, "rows": 20}
    project = piped(make_project, "activates_early", config, streams=None)
    project.run().expect(0)
    (project.root / "log.jsonl").unlink()

    project.pipeline("p", tap("activates_early", {"version": 2, "rows": 20, "die_after": 12}), target("keyed", LOGGING))
    project.run().expect(1, "the API is gone")

    # The old table is still whole, and while its change was pending its bookmark stood still.
    assert "ACTIVATE_VERSION" not in types(project)
    assert len(project.rows()) == 20
    assert project.state() == {"numbers": {"version": 1, "row": 20}}


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("dialect", ["sdk", "pipelinewise"])
def test_batches_are_expanded_for_a_target_that_knows_none(
    make_project: MakeProject, dialect: str, compression: str
) -> None:
    config = {"dialect": dialect, "compression": compression, "folder": "batches"}
    project = piped(make_project, "sends_batches", config)

    project.run().expect(0)

    assert "BATCH" not in types(project)
    assert project.ids() == upto(25)
    assert project.position() == 25
    # They are not in the run's folder, so they are not ours to delete.
    assert len(list((project.root / "batches").iterdir())) == 2


def test_batches_are_passed_to_a_target_that_takes_them(make_project: MakeProject) -> None:
    project = make_project(
        tap("sends_batches", {"dialect": "sdk"}, streams={"numbers": INCREMENTAL}),
        target("keyed", LOGGING, plugin={"args": ["--able=about,batch"]}),
    )

    run = json.loads(project.run("--json").expect(0).out)

    # A BATCH of this dialect does not tell how many records it has.
    assert (run["records"], [table["written"] for table in run["tables"]]) == (25, [25])
    assert types(project) == ["SCHEMA", "BATCH", "BATCH", *["RECORD"] * 5]
    assert project.ids() == upto(25)
    assert project.position() == 25
    # These stood in the run's private folder: deleted after the proof.
    assert not list((project.root / ".streamline" / "runs").rglob("part-*"))


def test_what_a_tap_writes_back_into_its_config_is_given_to_the_next_run(make_project: MakeProject) -> None:
    config = {"refresh_token": "t0k3n-0ne", "used": "used", "spy": "spy"}
    project = piped(make_project, "rewrites_config", config)

    for _ in range(3):
        project.run().expect(0)

    assert (project.root / "used").read_text().split() == ["t0k3n-0ne", "t0k3n-0ne-next", "t0k3n-0ne-next-next"]
    assert project.ids() == upto(3)
    for report in project.spied():
        assert report["config_mode"] == 0o600
        assert not Path(report["config_path"]).exists()
    assert "t0k3n-0ne-next" not in project.logs()


def test_the_live_state_file_is_rewritten_as_positions_are_proven(make_project: MakeProject) -> None:
    project = make_project(
        tap("reads_state_again", {"seen": "seen"}, streams={"numbers": INCREMENTAL, "quiet": INCREMENTAL}),
        target("keyed", {"flush": 1}),
    )

    project.run().expect(0)

    bookmarks = json.loads((project.root / "seen").read_text())["bookmarks"]
    assert bookmarks["numbers"]["replication_key_value"] == 10
    assert bookmarks["quiet"]["replication_key_value"] == 7
    assert project.position() == 11


def test_a_flat_state_is_kept_and_given_back_as_it_was(make_project: MakeProject) -> None:
    project = piped(make_project, "flat_state", {"spy": "spy"}, streams=None)

    project.run().expect(0)
    project.run().expect(0)

    assert project.ids() == upto(40)
    assert project.spied()[-1]["state"] == {"numbers": 20}


def test_nothing_of_the_engine_is_put_into_a_taps_state(make_project: MakeProject) -> None:
    project = piped(make_project, "strict_bookmarks", {"spy": "spy"})

    project.run().expect(0)
    project.run().expect(0)

    assert project.ids() == upto(20)
    assert project.position() == 20


def test_a_tap_without_states_moves_its_rows(make_project: MakeProject) -> None:
    project = piped(make_project, "sends_no_state", streams=None)

    project.run().expect(0)

    assert project.ids() == upto(20)
    assert project.state() == {}


def test_lines_are_lines_however_they_come(make_project: MakeProject) -> None:
    project = piped(make_project, "dribbles")

    project.run().expect(0)

    assert project.ids() == upto(12)
    assert {row["text"] for row in project.rows()} == {"naïve ✓ \u2028"}
    assert project.position() == 12


def test_one_record_of_20_mb_passes(make_project: MakeProject) -> None:
    project = piped(make_project, "sends_huge_record", streams=None)

    project.run().expect(0)

    assert [len(row["content"]) for row in project.rows("files")] == [5, 20_000_000, 5]
    assert project.state() == {"files": {"version": 1}}


def test_a_change_log_is_read_by_one_process_and_a_stream_left_out_has_a_gap(make_project: MakeProject) -> None:
    both = {name: {"replication_method": "LOG_BASED", "run_in_parallel": True} for name in ("orders", "users")}
    sink = target("keyed", {"flush": 10})
    config = {"log": "wal.json", "spy": "spy"}
    log = [["orders", {"id": 1, "text": "a"}], ["users", {"id": 1, "text": "b"}]]
    project = make_project(tap("reads_log", config, streams=both, max_parallel=4), sink)
    project.write_json("wal.json", log)
    project.run().expect(0)
    assert len(project.spied()) == 1, "LOG_BASED streams of one source stay in one process"

    # Taking one of them takes all: they share the log.
    log.append(["users", {"id": 2, "text": "c"}])
    project.write_json("wal.json", log)
    project.run("--stream", "orders").expect(0)
    assert project.ids("users") == [1, 2]

    # Leave one out while the log goes on: a gap.
    project.pipeline("p", tap("reads_log", config, streams={"orders": both["orders"]}), sink)
    log.append(["orders", {"id": 2, "text": "d"}])
    project.write_json("wal.json", log)
    project.run().expect(0)
    assert project.ids("orders") == [1, 2]
    project.pipeline("p", tap("reads_log", config, streams=both), sink)
    starts = len(project.spied())

    project.run().expect(2, "users", "gap", "--full-refresh --stream users|--full-refresh --stream")

    assert len(project.spied()) == starts, "nothing may have moved"
    project.run("--full-refresh", "--stream", "users").expect(0)
    assert project.ids("orders") == project.ids("users") == [1, 2]
    project.run().expect(0)


def test_secrets_are_masked_wherever_a_tap_shows_them(make_project: MakeProject) -> None:
    secrets = {"SHOP": "hunter2-pa55word", "QUOTED": 'qu"ote\\d-s3cret', "OTHER": "targets-0wn-s3cret"}
    config = {
        "password": "{{ secret('shop') }}",
        "api_key": "k3y-0f-the-api",
        "auth": {"token": "n3sted-t0ken", "client_secret": "{{ secret('quoted') }}"},
        "spy": "spy",
    }
    sink = target("keyed", {"spy": "spy", "password": "{{ secret('other') }}", "flush": 10})
    project = make_project(tap("leaks", config), sink)
    env = {f"STREAMLINE_SECRET_{name}": value for name, value in secrets.items()}

    completed = project.run("--debug", env=env)

    assert completed.code == 1, completed
    assert "could not log in as" in completed.text

    values = [*secrets.values(), "k3y-0f-the-api", "n3sted-t0ken"]
    values += [json.dumps(value)[1:-1] for value in values]
    for value in values:
        assert value not in completed.text
    reports = project.spied() + project.spied(discover=True) + project.spied("target")
    assert len(reports) >= 3
    for report in reports:
        given = json.dumps([report["argv"], report["environ"]])
        assert not [value for value in values if value in given], report["name"]
        assert report["config_mode"] == 0o600
        assert not Path(report["config_path"]).exists(), "private config files go, also after a failure"
    # No file but the block's own, where the operator wrote it.
    for path in sorted(project.root.rglob("*")):
        if path.is_file() and path.parent.name not in ("data_loaders", "data_exporters", "spy"):
            data = path.read_bytes()
            assert not [v for v in values if v.encode() in data], path
        if ".streamline" in path.parts:
            assert path.stat().st_mode & 0o077 == 0, path
    assert (project.root / ".streamline").stat().st_mode & 0o777 == 0o700


def test_a_program_that_is_no_tap_is_not_taken_for_an_empty_one(make_project: MakeProject) -> None:
    project = make_project(tap("junk", plugin={"command": ["python", "junk.py"]}), target("keyed"))
    (project.root / "junk.py").write_text("print('junk')\n")
    project.run().expect(0, "no Singer message")
