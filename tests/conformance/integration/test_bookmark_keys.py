"""Which bookmark covers a record: streams without a bookmark of their own, and bookmarks under other names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import MakeProject
from tests.support.project import Block, tap, target

DIES = {"die_after": 2, "flush": 1000}
"""The target reads two of three records, and none of them is durable."""


def says(catalog: list[dict[str, Any]], messages: list[list[Any]], *, code: int = 0, **keys: Any) -> Block:
    """A tap that prints these messages, and exits with `code`."""
    return tap("messages", {"catalog": catalog, "messages": messages, "spy": "spy", "code": code}, **keys)


def bookmarks(**values: int) -> dict[str, Any]:
    """A state."""
    return {"bookmarks": values}


ALIAS = [["S", "clean"], *(["R", "clean", number] for number in (1, 2, 3)), ["ST", bookmarks(orders=3)]]
ONE_NAME = [
    ["S", "orders"],
    *(["R", "orders", number] for number in (1, 2, 3)),
    ["ST", bookmarks(**{"a-orders": 0, "b-orders": 3})],
]
CHILD = [["S", "items"], *(["R", "items", number] for number in (1, 2, 3)), ["ST", bookmarks(orders=3, items=0)]]


@pytest.mark.parametrize(
    ("catalog", "messages"),
    [
        ([{"id": "orders"}], ALIAS),
        ([{"id": "a-orders", "stream": "orders"}, {"id": "b-orders", "stream": "orders"}], ONE_NAME),
        ([{"id": "orders"}, {"id": "items", "parent": "orders"}], CHILD),
        ([{"id": "shop-orders", "stream": "orders"}], [["S", "orders"], *ALIAS[1:-1], ALIAS[-1]]),
    ],
    ids=["alias", "two ids of one name", "child", "alias beside a name"],
)
def test_a_bookmark_is_not_saved_before_all_records_that_it_may_cover(
    make_project: MakeProject, catalog: list[dict[str, Any]], messages: list[list[Any]]
) -> None:
    # All bookmarks that are not to move are there from the start.
    start = ["ST", bookmarks(**dict.fromkeys(messages[-1][1]["bookmarks"], 0))]
    messages = [start, ["S", "clean"], *messages]
    project = make_project(says(catalog, messages), target("keyed", DIES))

    project.run().expect(1)

    assert [mark for mark in project.state().values() if mark == 3] == []


def test_records_without_a_bookmark_are_proven_by_an_echo(make_project: MakeProject) -> None:
    # The target fails after it has written everything; what it echoed counts.
    project = make_project(says([{"id": "orders"}], ALIAS), target("fails_at_end"))

    project.run().expect(1)

    assert project.state() == {"orders": 3}
    assert project.ids("clean") == [1, 2, 3]


@pytest.mark.parametrize("alone", [["a", "b"], ["b"]], ids=["each in a process of its own", "one beside the rest"])
def test_bookmarks_under_stream_names_belong_to_the_process_that_reads_the_stream(
    make_project: MakeProject, alone: list[str]
) -> None:
    catalog = [{"id": "id-a", "stream": "a"}, {"id": "id-b", "stream": "b"}]
    # Both give the whole state; the other's bookmark in it is as it was at the start.
    messages: list[list[Any]] = [
        ["S", "a", {"of": "id-a"}],
        *(["R", "a", number, {"of": "id-a"}] for number in (1, 2, 3)),
        ["ST", bookmarks(a=3, b=0), {"of": "id-a"}],
        ["S", "b", {"of": "id-b"}],
        ["ST", bookmarks(a=0, b=0), {"of": "id-b"}],
    ]
    streams = {f"id-{name}": {"run_in_parallel": name in alone} for name in "ab"}
    project = make_project(says(catalog, messages, streams=streams, max_parallel=1), target("keyed", DIES))
    project.run().expect(1)
    assert project.state().get("a", 0) == 0

    project.pipeline("p", says(catalog, messages, streams=streams, max_parallel=1), target("keyed"))
    project.run().expect(0)

    assert project.ids("a") == [1, 2, 3]
    assert project.state() == {"a": 3, "b": 0}


def test_a_stream_that_no_destination_exports_has_no_bookmark(make_project: MakeProject) -> None:
    catalog = [{"id": "a"}, {"id": "b"}]
    messages = [["S", "a"], ["R", "a", 1], ["S", "b"], ["R", "b", 2], ["ST", bookmarks(a=1, b=2)]]
    project = make_project(says(catalog, messages), target("keyed", streams={"a": {}}))
    project.run().expect(0)
    assert project.state() == {"a": 1}

    project.pipeline("p", says(catalog, messages), target("keyed"))
    project.run().expect(0)

    assert (project.state(), project.ids("b")) == ({"a": 1, "b": 2}, [2])


def test_a_destination_that_exports_a_stream_later_has_none_of_what_came_before(make_project: MakeProject) -> None:
    catalog = [{"id": "a"}, {"id": "b"}]
    messages = [["S", "a"], ["R", "a", 1], ["S", "b"], ["R", "b", 2], ["ST", bookmarks(a=1, b=2)]]
    all_of_it = target("keyed", {"path": "all.db"}, uuid="all")
    project = make_project(says(catalog, messages), target("keyed", streams={"a": {}}), all_of_it)
    project.run().expect(0)
    project.run().expect(0)  # it is no new destination of a stream that it still does not export

    project.pipeline("p", says(catalog, messages), target("keyed"), all_of_it)

    project.run("--json").expect(2, "bookmark.destination_new")
    project.run("--accept-gap").expect(0)
    project.run().expect(0)


def test_a_full_refresh_forgets_a_bookmark_under_the_streams_name(make_project: MakeProject) -> None:
    catalog = [{"id": "id-a", "stream": "a"}]
    project = make_project(says(catalog, [["S", "a"], ["ST", bookmarks(a=1)]]), target("keyed"))
    project.run().expect(0)

    project.run("--full-refresh", "--stream", "a").expect(0)

    assert project.spied()[-1]["state"] == {"bookmarks": {}}


FLAT = {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("state", "stream", "given"),
    [(FLAT, "a", {"b": 1}), (FLAT, "c", FLAT), ({"cursor": 5}, "a", None)],
    ids=["by stream", "no bookmark yet", "of another shape"],
)
def test_a_full_refresh_of_one_stream_takes_it_out_of_a_state_without_bookmarks(
    make_project: MakeProject, state: dict[str, int], stream: str, given: dict[str, int] | None
) -> None:
    catalog = [{"id": "a"}, {"id": "b"}, {"id": "c"}]
    project = make_project(says(catalog, [["S", "a"], ["ST", state]]), target("keyed"))
    project.run().expect(0)
    starts = len(project.spied())

    done = project.run("--full-refresh", "--stream", stream, "--json")

    if given is None:
        done.expect(2, "bookmark.not_by_stream")
        assert len(project.spied()) == starts, "nothing was read"
        project.run("--full-refresh").expect(0)
    else:
        done.expect(0)
        assert project.spied()[-1]["state"] == given
    assert project.state() == {"*": state}


FAMILY = [{"id": "orders"}, {"id": "items", "parent": "orders"}]


def family(last: int) -> list[list[Any]]:
    """A parent and its child, whose records the parent's bookmark covers."""
    return [
        ["S", "orders"],
        ["R", "orders", last],
        ["S", "items"],
        ["R", "items", last],
        ["ST", bookmarks(orders=last)],
    ]


def test_a_child_that_is_exported_later_is_not_continued_from_its_parents_bookmark(make_project: MakeProject) -> None:
    source = says(FAMILY, family(1))
    project = make_project(source, target("keyed", streams={"orders": {}}))
    for _ in range(2):
        project.run().expect(0)

    project.pipeline("p", source, target("keyed"))

    project.run("--json").expect(2, "bookmark.stream_new")
    project.run("--full-refresh").expect(0)
    assert project.ids("items") == [1]
    project.run().expect(0)


@pytest.mark.parametrize("settings", [{"b-orders": {}}, {"a-orders": {}, "b-orders": {"destination_table": "b"}}])
def test_streams_that_share_a_name_cannot_have_different_settings_of_a_destination(
    make_project: MakeProject, settings: dict[str, Any]
) -> None:
    catalog = [{"id": "a-orders", "stream": "orders"}, {"id": "b-orders", "stream": "orders"}]
    project = make_project(says(catalog, ONE_NAME), target("keyed", streams=settings))
    project.run("--json").expect(2, "stream.name_shared")
    assert project.state() == {}

    project.pipeline("p", says(catalog, ONE_NAME), target("keyed", streams={"orders": {}}))
    project.run().expect(0)
    assert project.ids("orders") == [1, 2, 3]


LATE = "stream 'clean' is new here and has no bookmark of its own"


@pytest.mark.parametrize(
    "before",
    [({}, [["S", "orders"], ["R", "orders", 3], ALIAS[-1]]), ({"streams": {"orders": {}}}, ALIAS)],
    ids=["the tap did not send it", "it was not exported"],
)
def test_an_alias_that_is_exported_later_than_a_bookmark_was_saved_is_warned_of(
    make_project: MakeProject, before: tuple[dict[str, Any], list[list[Any]]]
) -> None:
    settings, messages = before
    project = make_project(says([{"id": "orders"}], messages), target("keyed", **settings))
    assert LATE not in project.run().expect(0).text
    assert project.ids("clean") == []

    project.pipeline("p", says([{"id": "orders"}], ALIAS), target("keyed"))
    project.run().expect(0, LATE, "--full-refresh")
    assert LATE not in project.run().expect(0).text, "it is said once"


def test_an_alias_that_is_there_from_the_start_is_not_warned_of(make_project: MakeProject) -> None:
    project = make_project(says([{"id": "orders"}, {"id": "users"}], ALIAS, code=1), target("keyed"))
    project.run().expect(1)
    assert project.state() == {"orders": 3}
    # The failed run had not come to the stream of this alias.
    late = [["S", "users"], ["S", "short"], ["R", "short", 1], ["ST", bookmarks(orders=3, users=1)]]
    project.pipeline("p", says([{"id": "orders"}, {"id": "users"}], [*ALIAS, *late]), target("keyed"))
    assert "is new here" not in project.run().expect(0).text


@pytest.mark.parametrize(("last", "code"), [(1, 0), (2, 2)], ids=["its parent stood still", "its parent moved"])
def test_a_child_is_left_out_for_one_run(make_project: MakeProject, last: int, code: int) -> None:
    project = make_project(says(FAMILY, family(1)), target("keyed"))
    project.run().expect(0)
    project.pipeline("p", says(FAMILY, family(last)), target("keyed"))
    project.run("--stream", "orders").expect(0)

    project.run("--json").expect(code, "bookmark.stream_new" if code else "items")
    project.run("--accept-gap").expect(0)
    project.run().expect(0)


@pytest.mark.parametrize("state", [{"a": 1, "b": 2}, {"cursor": 2}], ids=["by stream", "of another shape"])
def test_a_stream_that_moved_while_it_was_not_selected_is_not_continued(
    make_project: MakeProject, state: dict[str, int]
) -> None:
    catalog = [{"id": "a"}, {"id": "b"}]
    messages = [["S", "a"], ["R", "a", 1], ["S", "b"], ["R", "b", 2]]
    only_a, both = {"a": {}}, {"a": {}, "b": {}}
    project = make_project(says(catalog, [*messages, ["ST", state]], streams=only_a), target("keyed"))
    project.run().expect(0)
    assert (project.ids("a"), project.state()) == ([1], {"*": state})
    project.run().expect(0)

    project.pipeline("p", says(catalog, [*messages, ["ST", state]], streams=both), target("keyed"))

    project.run("--json").expect(2, "bookmark.stream_new")
    if "b" in state:
        project.run("--full-refresh", "--stream", "b").expect(0)
        assert project.ids("b") == [2]
    else:
        project.run("--accept-gap").expect(0)
    project.run().expect(0)


@pytest.mark.parametrize(
    ("moved", "code"), [({"a": 2, "b": 1}, 0), ({"a": 2, "b": 2}, 2)], ids=["it stood still", "it moved"]
)
def test_a_stream_is_left_out_for_one_run(make_project: MakeProject, moved: dict[str, int], code: int) -> None:
    catalog = [{"id": "a"}, {"id": "b"}]
    project = make_project(says(catalog, [["S", "a"], ["S", "b"], ["ST", FLAT]]), target("keyed"))
    project.run().expect(0)
    project.pipeline("p", says(catalog, [["S", "a"], ["S", "b"], ["R", "b", 2], ["ST", moved]]), target("keyed"))
    project.run("--stream", "a").expect(0)
    assert project.state() == {"*": moved}

    project.run().expect(code)


def test_a_destination_that_exports_a_stream_of_one_state_for_all_later(make_project: MakeProject) -> None:
    messages = [["S", "a"], ["R", "a", 1], ["S", "b"], ["R", "b", 2], ["ST", FLAT]]
    source = says([{"id": "a"}, {"id": "b"}], messages)
    project = make_project(source, target("keyed", streams={"a": {}}))
    project.run().expect(0)

    project.pipeline("p", source, target("keyed"))

    project.run("--json").expect(2, "bookmark.stream_new")


def test_a_new_stream_of_a_state_by_stream_is_read_from_its_start(make_project: MakeProject) -> None:
    catalog = [{"id": "a"}, {"id": "b"}]
    project = make_project(says(catalog, [["S", "a"], ["ST", {"a": 1}]], streams={"a": {}}), target("keyed"))
    project.run().expect(0)

    messages = [["S", "a"], ["S", "b"], ["R", "b", 2], ["ST", {"a": 1, "b": 2}]]
    project.pipeline("p", says(catalog, messages, streams={"a": {}, "b": {}}), target("keyed"))

    for _ in range(2):
        project.run().expect(0)
        assert project.ids("b") == [2]


def test_a_run_is_not_told_to_continue_with_a_stream_that_it_leaves_out(make_project: MakeProject) -> None:
    catalog = [{"id": "a"}, {"id": "b"}]
    messages = [["S", "a"], ["ST", {**bookmarks(a=1), "currently_syncing": "a"}]]
    project = make_project(says(catalog, messages), target("keyed"))
    project.run().expect(0)

    project.run("--stream", "b").expect(0)

    assert project.spied()[-1]["state"] == {"bookmarks": {}}


def test_an_undeclared_child_that_fails_without_records_holds_the_bookmarks_that_may_cover_it(
    make_project: MakeProject,
) -> None:
    # Without `id`, its key, the child's SCHEMA is refused.
    def messages(*columns: str) -> list[list[Any]]:
        rows = [["R", "items", 5]] if not columns else []
        start = [["S", "orders"], ["R", "orders", 1], ["ST", bookmarks(orders=1)], ["S", "items", *columns]]
        return [*start, ["R", "orders", 2], *rows, ["ST", bookmarks(orders=2)], ["ST", bookmarks(orders=2)]]

    project = make_project(says([{"id": "orders"}], messages("other")), target("echoes_composites"))
    project.run().expect(1)
    assert project.state().get("orders", 1) == 1
    assert project.ids("orders") == [1, 2]

    project.run().expect(1)
    assert project.state().get("orders", 1) == 1

    project.pipeline("p", says([{"id": "orders"}], messages()), target("echoes_composites"))
    project.run().expect(0)
    assert (project.state(), project.ids("items")) == ({"orders": 2}, [5])
