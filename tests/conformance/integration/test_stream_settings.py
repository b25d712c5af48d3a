"""Per-stream settings that the engine itself carries out for unmodified connectors."""

from __future__ import annotations

from tests.conformance.integration.common import INCREMENTAL, rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import tap, target


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
