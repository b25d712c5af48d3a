"""`schema_change: pause` stops the stream whose schema changed, and no other."""

from __future__ import annotations

from typing import Any

from tests.conformance.integration.common import INCREMENTAL, upto
from tests.conftest import MakeProject
from tests.support.project import Block, Project, tap, target

OLD = {"id": "integer", "text": "string"}
NEW = {**OLD, "note": "string"}


def shop(project: Project, orders: dict[str, Any], rows: int, *, setting: dict[str, Any], **sink: Any) -> None:
    """A tap of two streams, `orders` first; its process is one."""
    specs = {
        "orders": {"properties": orders, "replication_key": "id", "rows": rows},
        "users": {"properties": OLD, "replication_key": "id", "rows": rows},
    }
    source = tap("rows", {"streams": specs}, streams=dict.fromkeys(specs, setting))
    project.pipeline("p", source, target("keyed", {"log": "log.jsonl"}, schema_change="pause", **sink))


def test_the_other_streams_of_its_tap_go_on(make_project: MakeProject) -> None:
    project = make_project()
    shop(project, OLD, 20, setting=INCREMENTAL)
    project.run().expect(0)

    shop(project, NEW, 40, setting=INCREMENTAL)
    project.run("--json").expect(1, "stream.schema_paused", "streams set p orders schema_change=evolve")

    assert (project.ids("orders"), project.ids("users")) == (upto(20), upto(40))
    assert (project.position("orders"), project.position("users")) == (20, 40)
    project.command("streams", "set", "p", "orders", "schema_change=evolve", "--block", "export").expect(0)
    project.run().expect(0)
    assert project.ids("orders") == upto(40)
    assert project.position("orders") == 40


def test_a_table_that_was_to_be_replaced_keeps_its_rows(make_project: MakeProject) -> None:
    project = make_project()
    full = {"replication_method": "FULL_TABLE"}
    able = {"args": ["--able=activate-version"]}
    shop(project, OLD, 20, setting=full, plugin=able)
    project.run().expect(0)
    (project.root / "log.jsonl").unlink()

    shop(project, NEW, 5, setting=full, plugin=able)
    project.run().expect(1, "orders")

    activated = [m["stream"] for m in project.messages() if m["type"] == "ACTIVATE_VERSION"]
    assert activated == ["users"]


def test_another_destination_that_takes_the_change_does_not_move_its_position(make_project: MakeProject) -> None:
    def blocks(properties: dict[str, Any], rows: int) -> tuple[Block, ...]:
        spec = {"orders": {"properties": properties, "replication_key": "id", "rows": rows}}
        return (
            tap("rows", {"streams": spec}, streams={"orders": INCREMENTAL}),
            # The one that takes the change is the first: its position must not be taken for both.
            target("keyed", {"path": "a.db"}, uuid="export_a"),
            target("keyed", {"path": "b.db"}, uuid="export_b", schema_change="pause"),
        )

    project = make_project(*blocks(OLD, 20))
    project.run().expect(0)
    project.pipeline("p", *blocks(NEW, 40))
    project.run().expect(1, "orders")

    assert (project.ids("orders", "a.db"), project.ids("orders", "b.db")) == (upto(40), upto(20))
    assert project.position("orders") == 20
    project.command("streams", "set", "p", "orders", "schema_change=evolve", "--block", "export_b").expect(0)
    project.run().expect(0)
    assert project.ids("orders", "b.db") == upto(40)


def test_a_destination_that_does_not_export_the_stream_pauses_nothing(make_project: MakeProject) -> None:
    project = make_project()
    for columns, last in ((OLD, 20), (NEW, 40)):
        specs = {"orders": {"properties": columns, "replication_key": "id", "rows": last}}
        specs["users"] = {**specs["orders"], "properties": OLD}
        source = tap("rows", {"streams": specs}, streams=dict.fromkeys(specs, INCREMENTAL))
        pausing = target("keyed", uuid="pausing", schema_change="pause", streams={"users": {}})
        project.pipeline("p", source, pausing, target("keyed", {"log": "all.jsonl"}, uuid="all"))
        project.run().expect(0)

    assert project.position("orders") == 40


def test_a_change_midway_before_one_of_two_destinations_loses_nothing(make_project: MakeProject) -> None:
    source = tap("changes_schema", {"change": "add"}, streams={"numbers": INCREMENTAL})
    both = [
        target("keyed", {"path": "a.db", "flush": 3}, uuid="export_a"),
        target("keyed", {"path": "b.db", "flush": 3}, uuid="export_b", schema_change="pause"),
    ]
    project = make_project(source, *both)
    project.run().expect(1, "numbers")

    assert project.ids(path="b.db") == upto(10)
    assert (project.position() or 0) <= 10
    project.command("streams", "set", "p", "numbers", "schema_change=evolve", "--block", "export_b").expect(0)
    project.run().expect(0)
    assert set(upto(20)) <= set(project.ids(path="b.db"))
