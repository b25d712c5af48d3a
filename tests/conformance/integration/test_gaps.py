"""A stream left out of a log that moves on has a gap, from the moment on at which the log may be let go."""

from __future__ import annotations

from tests.conftest import MakeProject
from tests.support.project import Project, tap, target

LOG_BASED = {"replication_method": "LOG_BASED"}
BOTH = {"orders": LOG_BASED, "users": LOG_BASED}
LOG = [["orders", {"id": 1, "text": "a"}], ["users", {"id": 1, "text": "b"}]]


def two_streams(make_project: MakeProject) -> Project:
    """A project whose two streams have read their log to its end."""
    project = make_project(tap("reads_log", {"log": "log.json"}, streams=BOTH), target())
    project.write_json("log.json", LOG)
    project.run().expect(0)
    return project


def only_orders(project: Project) -> None:
    project.pipeline("p", tap("reads_log", {"log": "log.json"}, streams={"orders": LOG_BASED}), target())


def both(project: Project) -> None:
    project.pipeline("p", tap("reads_log", {"log": "log.json"}, streams=BOTH), target())


def test_a_log_that_did_not_move_leaves_no_gap(make_project: MakeProject) -> None:
    project = two_streams(make_project)
    only_orders(project)
    project.run().expect(0)

    both(project)
    project.run().expect(0)


def test_a_log_that_moved_leaves_a_gap(make_project: MakeProject) -> None:
    project = two_streams(make_project)
    only_orders(project)
    project.write_json("log.json", [*LOG, ["orders", {"id": 2, "text": "c"}]])
    project.run().expect(0)

    both(project)
    project.run().expect(2, "gap", "users", "--full-refresh --stream users")


def test_a_tap_that_starts_past_a_stream_and_fails_has_left_a_gap_all_the_same(make_project: MakeProject) -> None:
    # Taps release their log up to the bookmarks that they are given, before they have sent anything.
    project = two_streams(make_project)
    project.command("state", "set", "p", "orders", '{"lsn": 7}').expect(0)
    only_orders(project)
    (project.root / "log.json").unlink()
    assert project.run().code == 1

    both(project)
    project.write_json("log.json", LOG)
    project.run().expect(2, "gap", "users")


def test_a_stream_that_is_ahead_of_the_others_has_no_gap(make_project: MakeProject) -> None:
    project = two_streams(make_project)
    project.command("state", "set", "p", "users", '{"lsn": 7}').expect(0)
    only_orders(project)
    project.run().expect(0)

    both(project)
    project.run().expect(0)


def test_a_full_refresh_of_one_stream_of_a_log_leaves_the_others_where_they_are(make_project: MakeProject) -> None:
    project = two_streams(make_project)
    project.pipeline("p", tap("reads_log", {"log": "log.json", "spy": "spy"}, streams=BOTH), target())

    project.run("--full-refresh", "--stream", "users").expect(0)

    (started,) = project.spied()
    assert started["state"]["bookmarks"] == {"orders": {"lsn": 2}}
