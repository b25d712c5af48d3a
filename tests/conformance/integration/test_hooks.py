"""Callbacks and conditionals of integration pipelines."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.integration.common import upto
from tests.conftest import MakeProject
from tests.support.project import Project, tap, target

CALLBACK = """
import json

@callback("success", "failure")
def tell(*args, **kwargs):
    said = {key: kwargs.get(key) for key in ("parent_block_uuid", "failed_blocks", "pipeline_status", "day")}
    said["error"] = str(kwargs["__error"]) if "__error" in kwargs else None
    with open("told.jsonl", "a") as file:
        file.write(json.dumps(said) + "\\n")
"""


def told(project: Project) -> list[dict[str, Any]]:
    file = project.root / "told.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def callback(*upstream: str, uuid: str = "tell") -> dict[str, Any]:
    return {"uuid": uuid, "type": "callback", "language": "python", "upstream_blocks": list(upstream)}


def test_the_callback_of_a_pipeline_hears_how_the_run_ended(make_project: MakeProject) -> None:
    good = tap("counts", {"rows": 3})
    project = make_project(good, target("keyed"), callbacks=[callback()])
    project.write("callbacks/tell.py", CALLBACK)
    project.run("--runtime-vars", "day=monday").expect(0)
    assert project.ids() == upto(3)

    project.pipeline("p", good, target("keyed", {"die_after": 1}, uuid="export"), callbacks=[callback()])
    project.run("--full-refresh").expect(1)

    project.pipeline("p", good, target("keyed"), callbacks=[callback()])
    project.write("data_exporters/export.yaml", "destination: target-nosuch\n")
    project.run().expect(2)

    success, failure, wrong = told(project)
    assert success == {
        "parent_block_uuid": None,
        "failed_blocks": [],
        "pipeline_status": "completed",
        "day": "monday",
        "error": None,
    }
    assert (failure["failed_blocks"], failure["pipeline_status"]) == (["export"], "failed")
    assert "code 1" in failure["error"]
    assert "target-nosuch" in wrong["error"]


def test_a_source_that_cannot_be_discovered_is_the_failed_block(make_project: MakeProject) -> None:
    down = tap("counts", {"rows": 3, "discovery_fails_once": "down"})
    project = make_project(down, target("keyed"), callbacks=[callback()])
    project.write("callbacks/tell.py", CALLBACK)
    project.run().expect(1)
    [failure] = told(project)
    assert (failure["failed_blocks"], failure["pipeline_status"]) == (["load"], "failed")


def test_the_callback_of_a_block_hears_of_that_block_alone(make_project: MakeProject) -> None:
    project = make_project(
        tap("counts", {"rows": 3}), target("keyed", {"die_after": 1}, uuid="bad"), callbacks=[callback("bad")]
    )
    project.write("callbacks/tell.py", CALLBACK)
    project.run().expect(1)
    (failure,) = told(project)
    assert failure["parent_block_uuid"] == "bad"
    assert failure["error"]


def test_a_callback_that_raises_is_a_warning(make_project: MakeProject) -> None:
    project = make_project(tap("counts", {"rows": 3}), target("keyed"), callbacks=[callback()])
    project.write("callbacks/tell.py", "@callback\ndef tell(*args, **kwargs):\n    raise ValueError('no network')\n")
    project.run().expect(0, "Warning: .*no network")


def test_a_conditional_decides_whether_a_source_is_read(make_project: MakeProject) -> None:
    gate = {"uuid": "gate", "type": "conditional", "language": "python", "upstream_blocks": ["load_b"]}
    project = make_project(
        tap("counts", {"rows": 3, "stream": "a"}, uuid="load_a"),
        tap("counts", {"rows": 3, "stream": "b", "spy": "spy"}, uuid="load_b"),
        target("keyed"),
        conditionals=[gate],
    )
    project.write("conditionals/gate.py", "@condition\ndef gate(*args, **kwargs):\n    return kwargs.get('b') == 1\n")

    project.run().expect(0)

    assert project.ids("a") == upto(3)
    assert project.spied() == []
    statuses = {
        block["uuid"]: block["status"] for block in json.loads(project.command("runs", "show", "--json").out)["blocks"]
    }
    assert statuses == {"load_a": "completed", "load_b": "skipped", "export": "completed"}
    project.run("--runtime-vars", "b=1").expect(0)
    assert project.ids("b") == upto(3)


def test_a_run_whose_only_source_is_not_read_completes(make_project: MakeProject) -> None:
    gate = {"uuid": "gate", "type": "conditional", "language": "python", "upstream_blocks": ["load"]}
    project = make_project(tap("counts", {"rows": 3}), target("keyed"), conditionals=[gate], callbacks=[callback()])
    project.write("conditionals/gate.py", "@condition\ndef gate(*args, **kwargs):\n    return False\n")
    project.write("callbacks/tell.py", CALLBACK)
    project.run().expect(0)
    assert project.state() == {}
    assert [each["pipeline_status"] for each in told(project)] == ["completed"]


def test_a_conditional_gates_sources_only(make_project: MakeProject) -> None:
    gate = {"uuid": "gate", "type": "conditional", "language": "python", "upstream_blocks": ["export"]}
    project = make_project(tap("counts", {"rows": 3}), target("keyed"), conditionals=[gate])
    project.write("conditionals/gate.py", "@condition\ndef gate(*args, **kwargs):\n    return True\n")
    project.run().expect(2, "gates a source")


def test_check_and_explain_know_of_them(make_project: MakeProject) -> None:
    gate = {"uuid": "gate", "type": "conditional", "language": "python", "upstream_blocks": ["load"]}
    project = make_project(tap("counts", {"rows": 3}), target("keyed"), conditionals=[gate], callbacks=[callback()])
    project.write("conditionals/gate.py", "@condition\ndef gate(*args, **kwargs):\n    return True\n")
    project.write("callbacks/tell.py", CALLBACK)
    project.command("explain", "p").expect(0, "gate returns true", "pipeline ends: tell")
    project.command("check", "p").expect(0, "ok +callback tell", "ok +conditional gate")
    project.write("callbacks/tell.py", "def tell(:\n")
    project.command("check", "p").expect(2, "failed +callback tell", "tell.py:1")
