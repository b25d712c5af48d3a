"""Which bookmark covers a record: streams without a bookmark of their own, and bookmarks under other names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import MakeProject
from tests.support.project import Block, tap, target

DIES = {"die_after": 2, "flush": 1000}
"""The target reads two of three records, and none of them is durable."""


def says(catalog: list[dict[str, Any]], messages: list[list[Any]], **keys: Any) -> Block:
    """A tap that prints these messages."""
    return tap("messages", {"catalog": catalog, "messages": messages}, **keys)


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
    messages = [["S", "clean"], *messages] if catalog[0]["id"] == "shop-orders" else messages
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
