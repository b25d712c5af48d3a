"""Wrong use and wrong configuration: exit code 2 before anything moved, with place and hint."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.integration.common import INCREMENTAL, rows_tap
from tests.conftest import MakeProject
from tests.support.project import tap, target


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ({"streems": {}}, "streams"),
        ({"streams": {"nubmers": INCREMENTAL}}, "numbers"),
        ({"streams": {"numbers": {"bookmark_propertys": ["id"]}}}, "bookmark_properties"),
        ({"streams": {"numbers": {"replication_method": "SOMETIMES"}}}, "INCREMENTAL"),
        ({"streams": {"numbers": {**INCREMENTAL, "bookmark_properties": ["idd"]}}}, "id"),
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


def test_several_bookmark_properties_need_a_tap_that_knows_them(make_project: MakeProject) -> None:
    content = {"numbers": {"properties": {"id": "integer", "at": "integer"}, "rows": 20}}
    settings = {"numbers": {"replication_method": "INCREMENTAL", "bookmark_properties": ["at", "id"]}}
    project = make_project(rows_tap(content, streams=settings), target())

    project.run().expect(2, "tap-rows", "multiple-bookmarks|several bookmark")

    assert project.rows() == []


@pytest.mark.parametrize(
    ("option", "code"),
    [
        (["--stream", "nosuch"], "stream.unknown"),
        (["--bookmark", "x=1"], "bookmark.invalid_option"),
        (["--bookmark", "nosuch.id=1"], "stream.unknown"),
        (["--bookmark", "numbers.nosuch=1"], "column.unknown"),
    ],
)
def test_a_wrong_option_is_no_failed_run(make_project: MakeProject, option: list[str], code: str) -> None:
    project = make_project(tap("counts", {"rows": 10}, streams={"numbers": INCREMENTAL}), target())
    done = project.run(*option, "--json").expect(2)
    assert json.loads(done.out)["error"]["code"] == code
    assert project.runs() == []


@pytest.mark.parametrize(
    "settings",
    [
        {"replication_method": "FULL_TABLE"},
        {"replication_method": "INCREMENTAL", "bookmark_properties": ["at"]},
    ],
)
def test_a_bookmark_of_a_column_that_the_stream_is_not_read_by_is_refused(
    make_project: MakeProject, settings: dict[str, Any]
) -> None:
    content = {"numbers": {"properties": {"id": "integer", "at": "integer"}, "rows": 20}}
    project = make_project(rows_tap(content, streams={"numbers": settings}), target())
    done = project.run("--bookmark", "numbers.id=3", "--json").expect(2)
    assert json.loads(done.out)["error"]["code"] == "bookmark.other_column"
