"""Targets that misbehave, one test a behaviour: what is in the target, what is saved, what the operator is told.

What each target does, who does so in the wild and what a careful operator wants stands in the fakes themselves.
"""

from __future__ import annotations

import signal

import pytest

from tests.conftest import MakeProject
from tests.support.processes import wait_until
from tests.support.project import Project, tap, target

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
ROWS = 3000
ALL = list(range(1, ROWS + 1))


def piped(make_project: MakeProject, name: str, config: dict[str, object] | None = None, **more: object) -> Project:
    """A project in which the counting tap feeds the target `name`."""
    project = make_project()
    again(project, name, config, **more)
    return project


def again(project: Project, name: str, config: dict[str, object] | None = None, **more: object) -> None:
    """Write the pipeline (anew), with another config of the same target."""
    project.pipeline(
        "p",
        tap("counts", {"rows": ROWS, **more}, streams={"numbers": INCREMENTAL}),
        target(name, {"flush": 500, "log": "log.jsonl", **(config or {})}),
    )


def assert_sound(project: Project) -> int:
    """No saved position has a row before it that is not in the target. Gives the position, 0 for none."""
    position = project.position() or 0
    missing = set(range(1, position + 1)) - set(project.ids())
    assert not missing, f"saved {position}, but {len(missing)} rows up to it are missing: {sorted(missing)[:5]} …"
    return int(position)


def test_exiting_0_before_the_input_ends_is_a_failure_and_nothing_unproven_is_saved(
    make_project: MakeProject,
) -> None:
    project = piped(make_project, "exits_early", {"exit_after": 1200}, rows=8000, payload=500)

    project.run().expect(1, "target-exits-early", "before")

    assert assert_sound(project) < 8000
    again(project, "exits_early", {"exit_after": 10**9}, rows=8000)
    project.run().expect(0)
    assert project.ids() == list(range(1, 8001))
    assert project.position() == 8000


def test_exiting_0_with_a_small_input_left_unread_is_a_failure_too(make_project: MakeProject) -> None:
    # All of it fits in the pipe: the engine has written everything and closed, the target has read a fifth of it.
    project = piped(make_project, "exits_early", {"exit_after": 10}, rows=50, state_every=10)

    project.run().expect(1, "target-exits-early")

    assert_sound(project)


def test_printing_an_array_is_no_state(make_project: MakeProject) -> None:
    project = piped(make_project, "echoes_array")

    project.run().expect(0)

    assert project.ids() == ALL
    assert project.position() == ROWS
    again(project, "echoes_array", rows=ROWS + 5)
    project.run().expect(0)
    assert len(project.ids()) == ROWS + 5


def test_printing_an_array_proves_nothing_when_the_target_dies(make_project: MakeProject) -> None:
    project = piped(make_project, "echoes_array", {"die_after": 2000})

    project.run().expect(1, "target-echoes-array")

    assert project.state() == {}


def test_printing_half_a_line_is_no_state(make_project: MakeProject) -> None:
    project = piped(make_project, "echoes_half_line", {"die_after": 2000})
    project.run().expect(1)
    assert project.state() == {}

    again(project, "echoes_half_line")
    project.run().expect(0)

    assert project.ids() == ALL
    assert project.position() == ROWS


def test_an_older_state_never_takes_the_position_back(make_project: MakeProject) -> None:
    project = piped(make_project, "echoes_older_state", pause=0.005, pause_every=100)
    project.run().expect(0)
    assert project.position() == ROWS

    # In a run that fails, too.
    again(project, "echoes_older_state", {"fail_at_end": 1}, rows=2 * ROWS)
    project.run().expect(1)

    assert assert_sound(project) >= ROWS


def test_a_target_that_is_silent_until_its_end_is_proven_by_its_end(make_project: MakeProject) -> None:
    project = piped(make_project, "silent_until_end")

    project.run().expect(0)

    assert project.ids() == ALL
    assert project.position() == ROWS


def test_a_target_that_dies_in_silence_has_proven_nothing(make_project: MakeProject) -> None:
    project = piped(make_project, "silent_until_end", {"die_after": 2500, "flush": 100})

    project.run().expect(1, "target-silent-until-end", "lost the connection to the warehouse")

    assert project.rows()
    assert project.state() == {}
    again(project, "silent_until_end")
    project.run().expect(0)
    assert project.ids() == ALL


def test_a_target_that_never_says_a_state_is_proven_by_its_exit(make_project: MakeProject) -> None:
    project = piped(make_project, "says_nothing")

    project.run().expect(0)

    assert project.ids() == ALL
    assert project.position() == ROWS


def test_echoing_the_first_state_at_once_proves_nothing(make_project: MakeProject) -> None:
    project = piped(make_project, "echoes_first_state", {"die_after": 400, "flush": 1000}, state_every=10)

    project.run().expect(1)

    assert project.rows() == []
    assert project.state() == {}
    again(project, "echoes_first_state")
    project.run().expect(0)
    assert project.ids() == ALL
    assert project.position() == ROWS


def test_the_first_message_to_a_target_is_the_state_that_is_proven(make_project: MakeProject) -> None:
    project = piped(make_project, "keyed", rows=20)
    project.run().expect(0)
    assert project.messages()[0] == {"type": "STATE", "value": {"bookmarks": {}}}

    (project.root / "log.jsonl").unlink()
    again(project, "keyed", rows=30)
    project.run().expect(0)

    assert project.messages()[0]["value"]["bookmarks"]["numbers"]["replication_key_value"] == 20


@pytest.mark.parametrize("die_after", [45, 65, 75])
def test_composites_count_as_far_as_each_streams_flush_carries(make_project: MakeProject, die_after: int) -> None:
    columns = {"id": "integer", "text": "string"}
    streams = {
        "a": {"properties": columns, "rows": 50, "replication_key": "id"},
        "b": {"properties": columns, "rows": 30, "replication_key": "id"},
    }
    settings = {"a": INCREMENTAL, "b": INCREMENTAL}
    source = tap("rows", {"streams": streams, "page": 5, "pause": 0.005}, streams=settings)
    # Whatever it dies of is no bad record: it is not to be tried again within the run.
    dying = target("echoes_composites", {"flush": 20, "die_after": die_after}, on_bad_record="fail")
    project = make_project(source, dying)

    project.run().expect(1)

    for stream in ("a", "b"):
        position = project.position(stream) or 0
        assert set(range(1, position + 1)) <= set(project.ids(stream)), f"{stream} is saved at {position}"
    project.pipeline("p", source, target("echoes_composites", {"flush": 20}))
    project.run().expect(0)
    assert project.ids("a") == list(range(1, 51))
    assert project.ids("b") == list(range(1, 31))
    assert (project.position("a"), project.position("b")) == (50, 30)


def test_a_last_state_that_lags_because_nothing_was_pending_is_made_good_by_the_exit(
    make_project: MakeProject,
) -> None:
    # The input ends on a border of the target's batches: PipelineWise's targets then end with an old composite.
    project = piped(make_project, "echoes_composites", {"flush": 100}, rows=1000)

    project.run().expect(0)

    assert project.position() == 1000


def test_states_wrapped_in_messages_never_become_a_bookmark(make_project: MakeProject) -> None:
    project = piped(make_project, "echoes_wrapped")

    project.run().expect(0)

    assert project.ids() == ALL
    assert project.state() == {"numbers": {"replication_key": "id", "replication_key_value": ROWS}}


def test_an_empty_state_wipes_nothing(make_project: MakeProject) -> None:
    project = piped(make_project, "echoes_empty")
    project.run().expect(0)
    assert project.position() == ROWS

    project.run().expect(0)

    assert project.position() == ROWS


def test_noise_among_the_states_is_logged(make_project: MakeProject) -> None:
    project = piped(make_project, "prints_noise", {"fail_at_end": 3})

    project.run().expect(1, "target-prints-noise")

    assert project.ids() == ALL
    assert project.position() == ROWS
    assert "Connecting to warehouse" in project.logs()


def test_what_was_said_before_a_failure_counts(make_project: MakeProject) -> None:
    project = piped(make_project, "fails_at_end")

    project.run().expect(1, "target-fails-at-end", "could not delete the staging area")

    assert project.ids() == ALL
    assert project.position() == ROWS


def test_death_by_a_signal_is_named(make_project: MakeProject) -> None:
    project = piped(make_project, "keyed", {"die_after": 700, "die_code": -9})

    project.run().expect(1, "target-keyed", "SIGKILL|signal 9|killed")

    assert_sound(project)


def test_a_target_that_fills_stderr_does_not_stop_the_pipe(make_project: MakeProject) -> None:
    project = piped(make_project, "fills_stderr")

    project.run().expect(0)

    assert project.ids() == ALL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_target_that_ignores_term_and_never_ends_is_killed_on_an_interrupt(
    make_project: MakeProject, number: signal.Signals
) -> None:
    project = piped(make_project, "ignores_term", {"flush": 100})
    running = project.start("run", "p")
    wait_until(lambda: len(project.ids()) == ROWS, "the rows arrive")

    running.signal(number)

    # Everything was proven by its echo before, so 0 would be right as well.
    completed = running.finish()
    assert completed.code in (0, 128 + number), completed
    project.assert_nothing_left(completed)
    assert_sound(project)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_target_that_stops_reading_can_be_interrupted(make_project: MakeProject, *, deaf: bool) -> None:
    project = piped(make_project, "never_reads", {"stop_after": 700, "deaf": deaf}, rows=30_000, payload=500)
    running = project.start("run", "p")
    wait_until(project.rows, "it has written something")

    running.signal(signal.SIGTERM)

    completed = running.finish().expect(143)
    project.assert_nothing_left(completed)
    assert assert_sound(project) <= 700
    again(project, "never_reads", {"stop_after": 10**9}, rows=3000)
    project.run().expect(0)
    assert project.ids() == ALL


def test_a_target_that_died_once_is_started_again_from_the_last_proof(make_project: MakeProject) -> None:
    project = piped(make_project, "keyed", {"die_after": 1700, "die_once": "died"})

    project.run().expect(0)

    assert (project.root / "died").exists()
    assert project.ids() == ALL
    assert project.position() == ROWS
