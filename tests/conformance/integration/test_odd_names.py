"""Streams and columns with names that nobody would choose, through every part."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.integration.common import INCREMENTAL, rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import tap, target, transformer

NAMES = [
    "public.orders",
    "Bestellungen für \u00e4ltere",
    'with "quotes" and \\ back\\slash',
    "a/b/../c",
    "[brackets]?",
    "{ not a template }",
    "bookmarks",
    "💥",
    "tab\tand newline\n",
]

SAME = """
from streamline.decorators import transformer


@transformer
def change(messages: list[dict], *args, **kwargs):
    return [{**message, 'stream': kwargs['stream']} for message in messages]
"""


@pytest.mark.parametrize("parallel", [False, True])
def test_odd_stream_names_are_synced_and_bookmarked(make_project: MakeProject, *, parallel: bool) -> None:
    keys: dict[str, Any] = {"streams": {"*": {**INCREMENTAL, "run_in_parallel": parallel}}, "max_parallel": 3}
    project = make_project(rows_tap(dict.fromkeys(NAMES, 20), {"spy": "spy"}, **keys), target("keyed", {"flush": 10}))

    project.run().expect(0)
    project.run().expect(0)

    assert {name: project.ids(name) for name in NAMES} == dict.fromkeys(NAMES, upto(20))
    positions = {name: value["replication_key_value"] for name, value in project.state().items()}
    assert positions == dict.fromkeys(NAMES, 20)


def test_odd_stream_names_pass_through_a_transformer(make_project: MakeProject) -> None:
    content = dict.fromkeys(NAMES, 5)
    project = make_project(rows_tap(content, streams={}), transformer(SAME), target())

    project.run().expect(0)

    assert {name: {row["stream"] for row in project.rows(name)} for name in NAMES} == {name: {name} for name in NAMES}


@pytest.mark.parametrize("name", ["public.orders", "a/b/../c"])
def test_an_odd_name_can_be_named_in_settings_and_on_the_command_line(make_project: MakeProject, name: str) -> None:
    project = make_project(
        rows_tap({name: 20, "other": 20}, {"spy": "spy"}),
        target("keyed", streams={name: {"destination_table": "plain"}, "*": {}}),
    )
    project.run().expect(0)
    assert (project.ids("plain"), project.ids("other")) == (upto(20), upto(20))

    project.run("--stream", name, "--bookmark", f"{name}.id=15").expect(0)

    assert project.spied()[-1]["state"]["bookmarks"][name]["replication_key_value"] == 15
    assert project.position(name) == 20


def test_columns_named_like_the_envelope(make_project: MakeProject) -> None:
    columns = {"id": "integer", "type": "string", "stream": "string", "record": "string", "version": "integer"}
    rows: list[dict[str, Any]] = [
        {"id": n, "type": "STATE", "stream": "x", "record": '"record":', "version": n} for n in upto(30)
    ]
    rows[2]["value"] = {}
    content = {"odd": {"properties": {**columns, "value": {}}, "rows": rows, "replication_key": "id"}}
    project = make_project(rows_tap(content), target("keyed", streams={"odd": {"destination_table": "plain"}}))

    project.run().expect(0)

    assert project.rows("plain") == rows


def test_two_sources_with_streams_of_one_name(make_project: MakeProject) -> None:
    project = make_project(
        tap("counts", {"rows": 300}, uuid="load_a", streams={"numbers": INCREMENTAL}),
        tap("counts", {"rows": 200}, uuid="load_b", streams={"numbers": INCREMENTAL}),
        target("keyed", {"flush": 10}),
    )

    project.run().expect(0)
    project.run().expect(0)

    rows = {row["block"]: row["value"]["replication_key_value"] for row in project.state_rows()}
    assert rows == {"load_a": 300, "load_b": 200}
    assert project.ids() == upto(300)


def test_streams_that_differ_by_case_do_not_stop_the_others(make_project: MakeProject) -> None:
    source = rows_tap({"orders": 2, "Orders": 2, "users": 2})
    able = {"args": ["--able=case-insensitive-tables"]}
    project = make_project(source, target("keyed", plugin=able))

    project.run("--json").expect(1, "destination.table_shared")

    assert [project.ids(stream) for stream in ("orders", "Orders", "users")] == [[1, 2], [], [1, 2]]
    assert project.state().keys() == {"orders", "users"}

    streams = {"Orders": {"destination_table": "orders_2"}, "*": {}}
    project.pipeline("p", source, target("keyed", plugin=able, streams=streams))
    project.run().expect(0)
    assert project.ids("orders_2") == [1, 2]
