"""`streamline check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeProject
from tests.support.project import PYTHON, Block, Project, mapper, tap, target, transformer

COLUMNS = {"id": "integer", "text": "string"}
LOADS = """
@transformer
def change(records: list[dict], *args, **kwargs) -> list[dict]:
    return records
"""
NO_DISCOVERY = """
import json, os, sys, time
open("started", "a").write("x")
for message in (
    {"type": "SCHEMA", "stream": "s", "schema": {"properties": {"id": {"type": "integer"}}}, "key_properties": ["id"]},
    {"type": "RECORD", "stream": "s", "record": {"id": 1}},
):
    print(json.dumps(message), flush=True)
time.sleep(600)
"""


def rows(config: dict[str, Any] | None = None, **keys: Any) -> Block:
    """A tap with one stream `numbers`."""
    numbers = {"properties": COLUMNS, "replication_key": "id", "rows": 20}
    return tap("rows", {"streams": {"numbers": numbers}, **(config or {})}, **keys)


def checks(project: Project, code: int = 0) -> dict[str, dict[str, Any]]:
    """What was checked, by block (or by kind, where it is the pipeline's)."""
    found = json.loads(project.command("check", "p", "--json").expect(code).out)
    assert found["ok"] is (code == 0)
    return {one["block"] or one["what"]: one for one in found["checks"]}


def command_block(project: Project, kind: str, uuid: str, text: str, argv: list[str]) -> Block:
    """A block on a program of the test's own, written to `<uuid>.py`."""
    project.write(f"{uuid}.py", text)
    name = f"{kind}-own"
    key, type_ = ("source", "data_loader") if kind == "tap" else ("destination", "data_exporter")
    return Block(uuid, type_, f"{key}: {name}\nconfig: {{}}\n", plugin=(name, {"command": [*argv, f"{uuid}.py"]}))


def test_all_is_well_and_nothing_is_written(make_project: MakeProject) -> None:
    project = make_project(
        rows({"spy": "spy", "password": "hunter2"}),
        mapper("tag"),
        transformer(LOADS),
        target("keyed", {"spy": "spy", "log": "log.jsonl"}, plugin={"args": ["--able=activate-version"]}),
    )

    completed = project.command("check", "p").expect(
        0,
        r"ok +source load \(tap-rows\): 1 stream\n",
        r"ok +mapper map \(mapper-tag\): started with its config and exited with 0",
        r"ok +transformer change: its file can be loaded",
        r"ok +destination export \(target-keyed\): started .*; capabilities: activate-version",
        r"ok +plan: 1 stream selected",
    )

    assert completed.last_line == "5 of 5 ok"
    assert project.lines() == ['{"type":"STATE","value":{"bookmarks":{}}}'], "the target saw nothing else"
    assert project.runs() == []
    assert project.state_rows() == []
    assert list((project.root / ".streamline/runs").iterdir()) == [], "no private file is left"
    assert [one["config_mode"] for one in project.spied("target")] == [0o600]
    project.assert_nothing_left()


def test_discovery_is_not_taken_from_the_cache(make_project: MakeProject) -> None:
    project = make_project(rows({"spy": "spy"}), target())
    for number in (1, 2):
        project.command("check", "p").expect(0)
        assert len([one for one in project.spied(discover=True) if one["discover"]]) == number


def test_a_source_and_a_destination_that_fail_are_both_told_of(make_project: MakeProject) -> None:
    project = make_project(target())
    dies = "import sys\nprint('no route to host db.example, password hunter2', file=sys.stderr)\nsys.exit(3)\n"
    source = command_block(project, "tap", "load", dies, PYTHON)
    source.text = "source: tap-own\nconfig: {password: hunter2}\n"
    project.pipeline("p", source, target("fails_at_end"), command_block(project, "target", "own", dies, PYTHON))

    completed = project.command("check", "p").expect(
        1,
        r"failed +source load \(tap-own\): .*code 3.*no route to host db\.example",
        r"failed +destination own \(target-own\): .*code 3",
    )

    assert "hunter2" not in completed.text
    found = checks(project, code=1)
    assert (found["load"]["problem"], found["own"]["problem"]) == ("connection", "connection")
    assert "plan" not in found, "what the source has is not known"


def test_a_destination_that_refuses_its_config_is_wrong_configuration(make_project: MakeProject) -> None:
    project = make_project(rows(), target("refuses_config"))

    found = checks(project, code=2)

    assert (found["export"]["code"], found["export"]["problem"]) == ("target.config_refused", "configuration")
    assert found["plan"]["ok"] is True


def test_wrong_configuration_comes_with_its_line_and_does_not_hide_the_rest(make_project: MakeProject) -> None:
    project = make_project(rows(), target(), target("missing", uuid="other"))
    project.write("data_loaders/load.yaml", "source: tap-rows\nconfig:\n  host: \"{{ env_var('SHOP_HOST_') }}\"\n")
    settings = project.root / "streamline.yaml"
    settings.write_text(settings.read_text().replace("target-missing", "target-mising"))

    completed = project.command("check", "p").expect(
        2,
        r"failed +source load: data_loaders/load\.yaml:3: .*SHOP_HOST_",
        r"failed +destination other: .*'target-missing'.*'target-mising'",
        r"ok +destination export \(target-keyed\)",
    )

    assert completed.last_line == "1 of 3 ok"


def test_what_only_the_plan_knows(make_project: MakeProject) -> None:
    project = make_project(rows(streams={"nubmers": {}}), target())

    project.command("check", "p").expect(
        2, r"ok +source load", r"ok +destination export", r"failed +plan: .*nubmers.*numbers"
    )


def test_a_transformer_that_cannot_be_loaded(make_project: MakeProject) -> None:
    project = make_project(rows(), transformer("import no_such_module\n" + LOADS), target())

    project.command("check", "p").expect(2, r"failed +transformer change: .*no_such_module")


def test_a_transformer_whose_file_never_loads_is_given_up(make_project: MakeProject) -> None:
    project = make_project(rows(), transformer("import time\ntime.sleep(600)\n" + LOADS), target())

    project.command("check", "p", "--timeout", "0.5").expect(2, r"failed +transformer change: .*0\.5 s")


def test_a_tap_without_discovery_is_stopped_after_its_first_message(make_project: MakeProject) -> None:
    project = make_project(target())
    project.pipeline("p", command_block(project, "tap", "load", NO_DISCOVERY, PYTHON), target())

    project.command("check", "p").expect(0, "no discovery; stopped after its first message")

    catalog = {"streams": [{"tap_stream_id": "s", "schema": {"properties": {"id": {"type": "integer"}}}}]}
    project.write("pipelines/p/load/catalog.json", json.dumps(catalog))
    (project.root / "started").unlink()
    assert checks(project)["load"]["ok"] is True
    assert (project.root / "started").exists(), "a catalog of the user's is no answer of the tap"
    project.assert_nothing_left()
    assert project.rows("s") == []


def test_a_block_that_cannot_stand_in_the_pipeline_is_not_loaded(make_project: MakeProject) -> None:
    project = make_project(rows(), transformer("select 1"), target())
    (project.root / "transformers/change.py").rename(project.root / "transformers/change.sql")
    metadata = project.root / "pipelines/p/metadata.yaml"
    metadata.write_text(metadata.read_text().replace("language: python", "language: sql"))

    found = checks(project, code=2)

    assert "change" not in found
    assert found["plan"]["code"] == "block.wrong_pipeline"


@pytest.mark.parametrize("kind", ["tap", "target"])
def test_what_never_answers_is_given_up(make_project: MakeProject, kind: str) -> None:
    project = make_project(target())
    hangs = "import sys, time\nif '--help' in sys.argv: print('--config --discover'); sys.exit()\n"
    hangs += "if '--about' in sys.argv: sys.exit(2)\ntime.sleep(600)\n"
    blocks = {"tap": rows(), "target": target()}
    uuid = "load" if kind == "tap" else "export"
    blocks[kind] = command_block(project, kind, uuid, hangs, PYTHON)
    project.pipeline("p", *blocks.values())

    project.command("check", "p", "--timeout", "0.5").expect(1, rf"failed +\w+ {uuid} .*0\.5 s")

    project.assert_nothing_left()


def test_a_target_that_does_not_read_its_input(make_project: MakeProject) -> None:
    project = make_project(rows(), target())
    project.pipeline("p", rows(), command_block(project, "target", "export", "pass\n", PYTHON))

    project.command("check", "p").expect(1, r"failed +destination export \(target-own\)")


def test_no_such_pipeline(make_project: MakeProject, tmp_path: Path) -> None:
    make_project(rows(), target()).command("check", "q").expect(2, "'q'")
