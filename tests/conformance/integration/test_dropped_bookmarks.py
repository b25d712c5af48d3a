"""What a tap no longer shows in its STATE, and what it only shows by turns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.integration.test_bookmark_keys import bookmarks, says
from tests.conftest import MakeProject
from tests.support.project import Project, mapper, target

CATALOG = [{"id": "a"}, {"id": "b"}]
SCHEMAS: list[list[Any]] = [["S", "a"], ["S", "b"]]


def record(stream: str, number: int) -> list[Any]:
    """A record, after which the tap's next STATE is no longer in one read with the last."""
    return ["R", stream, number]


def messages_of(*values: dict[str, Any]) -> list[list[Any]]:
    """Return a tap's messages: these STATEs, each after a record of both streams."""
    messages = [*SCHEMAS]
    for number, value in enumerate(values):
        messages += [["S", "a"], record("a", number), record("b", number), ["ST", value]]
    return messages


def states(make_project: MakeProject, *values: dict[str, Any], code: int = 0) -> Project:
    """Run a tap that prints the first of these STATEs, then one that prints all."""
    project = make_project(says(CATALOG, messages_of(values[0])), target("keyed"))
    project.run().expect(0)
    project.pipeline("p", says(CATALOG, messages_of(*values), code=code), target("keyed"))
    project.run().expect(code)
    return project


@pytest.mark.parametrize(
    ("shown", "saved"),
    [
        ([bookmarks(a=1, b=1), bookmarks(b=2)], {"b": 2}),
        ([bookmarks(a=1), bookmarks(b=2)], {"a": 1, "b": 2}),
        ([bookmarks(a=1), bookmarks(b=2), bookmarks(a=3)], {"a": 3, "b": 2}),
        ([{**bookmarks(a=1), "page_token": "x"}, bookmarks(a=2)], {"a": 2}),
        ([bookmarks(a=1, token=7), bookmarks(a=2)], {"a": 2}),
        ([bookmarks(a=1), bookmarks()], {}),
    ],
    ids=["done", "by turns", "again", "beside the bookmarks", "no stream", "the only one"],
)
def test_what_a_tap_no_longer_shows_is_forgotten_at_its_end(
    make_project: MakeProject, shown: list[dict[str, Any]], saved: dict[str, Any]
) -> None:
    project = states(make_project, *shown)

    assert project.state() == saved
    project.run().expect(0)
    assert project.spied()[-1]["state"] == {"bookmarks": saved}, "it is given what was saved, and nothing else"


def test_bookmarks_by_turns_are_kept_though_they_come_in_one_read(make_project: MakeProject) -> None:
    messages = [*SCHEMAS, ["ST", bookmarks(a=1)], ["ST", bookmarks(b=1)], record("a", 1), ["ST", bookmarks(a=2)]]
    many = [message for number in range(3, 200) for message in (record("a", number), ["ST", bookmarks(a=number)])]
    project = make_project(says(CATALOG, [*messages, *many, ["ST", bookmarks(b=5)]]), target("keyed"))

    project.run().expect(0)

    assert project.state() == {"a": 199, "b": 5}


def test_after_a_failure_a_bookmark_that_a_tap_no_longer_shows_is_kept(make_project: MakeProject) -> None:
    first = {**bookmarks(a=1, b=1, token=7), "page_token": "x"}
    project = states(make_project, first, bookmarks(b=2), code=1)

    assert project.state() == {"a": 1, "b": 2}


def test_what_a_tap_was_given_and_never_shows_is_forgotten(make_project: MakeProject) -> None:
    project = states(make_project, bookmarks(a=1, b=1))
    project.command("state", "import", "p", str(project.write_json("s.json", bookmarks(a=1, b=1, c=1)))).expect(0)
    assert set(project.state()) == {"a", "b", "c"}

    project.run().expect(0)

    assert project.state() == bookmarks(a=1, b=1)["bookmarks"]


def test_one_stream_at_a_time_loses_no_bookmark_of_an_idle_stream(make_project: MakeProject) -> None:
    project = states(make_project, bookmarks(a=1, b=1))
    project.pipeline("p", says(CATALOG, [*SCHEMAS, record("b", 5), ["ST", bookmarks(b=5)]]), target("keyed"))

    project.run().expect(0)

    assert project.state() == {"a": 1, "b": 5}


def test_what_vanished_is_forgotten_behind_a_mapper_and_history_tells_of_it(make_project: MakeProject) -> None:
    project = make_project(says(CATALOG, [*SCHEMAS, ["ST", bookmarks(a=1, b=1)]]), mapper("tag"), target("keyed"))
    project.run().expect(0)
    messages = [*SCHEMAS, ["ST", bookmarks(a=1, b=1)], ["S", "a"], ["ST", bookmarks(b=2)]]
    project.pipeline("p", says(CATALOG, messages), mapper("tag"), target("keyed"))

    project.run().expect(0)

    assert project.state() == {"b": 2}
    history = json.loads(project.command("state", "history", "p", "--json").expect(0).out)
    assert [(entry["stream"], entry["value"]) for entry in history][:1] == [("a", None)]
