"""`runs show --json` tells what became of each block."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.integration.common import rows_tap
from tests.conftest import MakeProject
from tests.support.project import Project, mapper, target, transformer

PASS_ON = (
    "from streamline.decorators import transformer\n\n\n@transformer\n"
    "def change(messages: list[dict], *args, **kwargs):\n    return messages\n"
)


def blocks(project: Project) -> dict[str, dict[str, Any]]:
    """The blocks of the latest run, by uuid."""
    shown = json.loads(project.command("runs", "show", "--json").expect(0).out)
    return {block["uuid"]: block for block in shown["blocks"]}


def statuses(project: Project) -> dict[str, str]:
    return {uuid: block["status"] for uuid, block in blocks(project).items()}


def test_each_block_of_a_run_that_completed(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 30}), transformer(PASS_ON), target())

    project.run().expect(0)

    runs = blocks(project)
    assert list(runs) == ["load", "change", "export"]
    assert {block["status"] for block in runs.values()} == {"completed"}
    assert {block["attempts"] for block in runs.values()} == {1}
    assert all(block["seconds"] > 0 for block in runs.values())
    assert runs["load"]["results"] == [{"stream": "numbers", "read": 30, "quarantined": 0}]
    assert runs["export"]["results"] == [{"table": "numbers", "sent": 30, "written": 30, "quarantined": 0}]


def test_a_tap_that_failed_and_was_tried_again(make_project: MakeProject) -> None:
    fail = {"fail": {"stream": "numbers", "after": 20, "once": "failed"}}
    project = make_project(rows_tap({"numbers": 30}, fail), target(), retry_config={"retries": 2, "delay": 0})

    project.run().expect(0)

    assert (blocks(project)["load"]["status"], blocks(project)["load"]["attempts"]) == ("completed", 2)


def test_a_tap_that_failed_for_good(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 30}, {"fail": {"stream": "numbers", "after": 20}}), target())

    project.run().expect(1)

    assert statuses(project) == {"load": "failed", "export": "upstream_failed"}
    assert "code 1" in blocks(project)["load"]["error"]


def test_a_target_that_failed(make_project: MakeProject) -> None:
    source, bad = rows_tap({"numbers": 30}), target("keyed", {"die_after": 10})
    project = make_project(source, transformer(PASS_ON), bad)

    project.run().expect(1)

    assert statuses(project) == {"load": "cancelled", "change": "cancelled", "export": "failed"}


def test_a_target_that_refuses_its_config_is_blamed_and_not_tried_again(make_project: MakeProject) -> None:
    source = rows_tap({"numbers": 30, "letters": 3}, streams={"*": {"run_in_parallel": True}})
    project = make_project(source, target("refuses_config"), retry_config={"retries": 2, "delay": 0})

    failed = project.run("--json").expect(1)

    result = json.loads(failed.out)
    assert {block: error["code"] for block, error in result["errors"].items()} == {"export": "target.config_refused"}
    assert result["errors"]["export"]["hint"].startswith("Exception: Config is missing required keys: ['password']\n")
    assert result["warnings"] == ["export: stream 'orders' is old"]
    assert failed.err.count("does not accept its config") == 2, "one attempt, and the result"
    assert blocks(project)["export"]["attempts"] == 1
    assert statuses(project) == {"load": "cancelled", "export": "failed"}


def test_a_mapper_that_failed(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 30}), mapper("exits_early", {"after": 5, "code": 3}), target())

    project.run().expect(1)

    assert statuses(project) == {"load": "cancelled", "map": "failed", "export": "upstream_failed"}


def test_a_source_of_which_no_stream_was_asked_for(make_project: MakeProject) -> None:
    project = make_project(
        rows_tap({"a": 5}, uuid="load_a"), rows_tap({"b": 5}, uuid="load_b"), target(streams={"a": {}, "b": {}})
    )

    project.run("--stream", "a").expect(0)

    assert statuses(project) == {"load_a": "completed", "load_b": "skipped", "export": "completed"}
