"""Tables that the streams of two sources share, and streams that an operator left out of a destination."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from streamline.execution.integration.attempts import TABLE_VERSION
from streamline.state import open_store
from tests.conformance.integration.common import COLUMNS, rows_tap, upto
from tests.conformance.integration.test_bookmark_keys import says
from tests.conftest import MakeProject
from tests.support.project import Block, tap, target


def source(uuid: str, *ids: int, method: str, key: str = "id") -> Block:
    rows = [{"id": n, "text": f"{uuid} {n}"} for n in ids]
    spec: dict[str, Any] = {"properties": COLUMNS, "key": [key], "replication_key": "id", "rows": rows}
    return tap("rows", {"streams": {"users": spec}}, uuid=uuid, streams={"users": {"replication_method": method}})


def test_sources_that_replace_one_table_are_refused(make_project: MakeProject) -> None:
    # The version that the one activates would delete what the other has just written.
    able = {"args": ["--able=activate-version"]}
    blocks = [source("north", 1, 2, method="FULL_TABLE"), source("south", 3, method="FULL_TABLE")]
    project = make_project(*blocks, target(plugin=able))

    project.run().expect(2, "'users' of north and 'users' of south", "replaces it", "destination_table")

    assert project.rows("users") == []


def test_sources_with_different_keys_for_one_table_are_refused(make_project: MakeProject) -> None:
    blocks = [source("north", 1, method="INCREMENTAL"), source("south", 3, method="INCREMENTAL", key="text")]
    project = make_project(*blocks, target())

    project.run().expect(2, "different keys")


def test_sources_that_upsert_into_one_table_share_it(make_project: MakeProject) -> None:
    blocks = [source("north", 1, 2, method="INCREMENTAL"), source("south", 3, method="INCREMENTAL")]
    project = make_project(*blocks, target())

    project.command("explain", "p").expect(0, "overwrite each other", "source_column: true")
    project.command("check", "p").expect(0, "overwrite each other")
    project.run().expect(0, "overwrite each other")

    assert project.ids("users") == upto(3)


def test_a_table_version_is_higher_than_the_last_though_the_clock_was_set_back(make_project: MakeProject) -> None:
    able = {"args": ["--able=activate-version"]}
    project = make_project(source("north", 1, 2, method="FULL_TABLE"), target("keyed", {"log": "l"}, plugin=able))
    project.run().expect(0)
    future = 10**14
    (file,) = (project.root / ".streamline").glob("*.db")
    with closing(open_store(f"sqlite:///{file.relative_to(project.root)}", project.root)) as store:
        assert int(store.cache_get(TABLE_VERSION, "p") or 0) > 10**12
        store.cache_put(TABLE_VERSION, "p", str(future))

    project.run().expect(0)

    versions = [m["version"] for m in project.messages("l") if m["type"] == "ACTIVATE_VERSION"]
    assert versions[-1] > future


def test_versions_of_one_source_delete_no_rows_of_another_in_a_shared_table(make_project: MakeProject) -> None:
    table = {"id": "users", "name": "users", "sends": "users", "key": ["id"], "mark": None, "versions": "late"}
    columns = {name: {"type": kind} for name, kind in COLUMNS.items()}
    config = {
        "streams": [{**table, "properties": columns}],
        "script": [["schema", "users", columns], ["table", "users", [[{"id": 9, "text": "west"}, 1]]]],
        "shape": "bookmarks",
        "reads": "read_",
    }
    west = tap("plays", config, uuid="west", streams={"users": {"replication_method": "FULL_TABLE"}})
    project = make_project(west, source("north", 1, 2, method="INCREMENTAL"), target())

    project.run().expect(0)
    project.run().expect(0)  # north has nothing new

    assert {1, 2} <= set(project.ids("users"))


def test_the_source_can_be_part_of_the_key_of_a_shared_table(make_project: MakeProject) -> None:
    blocks = [source("north", 1, 2, method="INCREMENTAL"), source("south", 2, method="INCREMENTAL")]
    project = make_project(*blocks, target("keyed", {"log": "log.jsonl"}, source_column=True))

    project.run().expect(0)

    assert {(row["id"], row["text"], row["streamline_source"]) for row in project.rows("users")} == {
        (1, "north 1", "north"),
        (2, "north 2", "north"),
        (2, "south 2", "south"),
    }
    assert {tuple(m["key_properties"]) for m in project.messages() if m["type"] == "SCHEMA"} == {
        ("id", "streamline_source")
    }
    explained = project.command("explain", "p").expect(0, "streamline_source")
    assert "source_column" not in explained.text


def test_sources_with_a_stream_of_one_name_have_a_frozen_schema_each(make_project: MakeProject) -> None:
    def people(uuid: str, column: str, last: int) -> Block:
        records: list[list[Any]] = [["R", "users", {"id": n, column: n}] for n in upto(last)]
        return says([{"id": f"{uuid}-users", "stream": "users"}], [["S", "users", "id", column], *records], uuid=uuid)

    tables = {f"{uuid}-users": {"destination_table": uuid} for uuid in ("north", "south")}
    export = target("keyed", {"log": "log.jsonl"}, schema_change="freeze", streams=tables)
    project = make_project()
    for last in (1, 2):
        project.pipeline("p", people("north", "age", last), people("south", "size", last), export)
        project.run().expect(0)

        columns = {m["stream"]: set(m["schema"]["properties"]) for m in project.messages() if m["type"] == "SCHEMA"}
        assert columns == {"north": {"id", "age"}, "south": {"id", "size"}}
        assert (project.rows("north")[-1], project.rows("south")[-1]) == (
            {"id": last, "age": last},
            {"id": last, "size": last},
        )


def test_a_stream_that_an_operator_left_out_is_not_exported(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"a": 5, "b": 5}), target())
    project.command("streams", "set", "p", "b", "selected=false", "--block", "export").expect(0)

    project.run().expect(0)

    assert (project.ids("a"), project.ids("b")) == (upto(5), [])
