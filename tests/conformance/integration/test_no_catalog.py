"""Taps of a few lines: without discovery, without options, without a help text."""

from __future__ import annotations

import json
import sys

from tests.conftest import MakeProject
from tests.support.project import Block, Project, target

MESSAGES = [
    {
        "type": "SCHEMA",
        "stream": "numbers",
        "schema": {"properties": {"id": {"type": "integer"}}},
        "key_properties": ["id"],
    },
    *({"type": "RECORD", "stream": "numbers", "record": {"id": number}} for number in range(1, 6)),
    {"type": "STATE", "value": {"bookmarks": {"numbers": {"id": 5}}}},
]
SCRIPT = "import json, sys\nif 'STOP' in sys.argv: raise SystemExit(9)\n" + "".join(
    f"print({json.dumps(message)!r})\n" for message in MESSAGES
)


def source(command: list[str], text: str = "source: tap-own\n") -> Block:
    return Block("load", "data_loader", text, plugin=("tap-own", {"command": command}))


def files(project: Project) -> None:
    project.write("own.jsonl", "".join(json.dumps(message) + "\n" for message in MESSAGES))
    project.write("own.py", SCRIPT)


def test_a_program_that_knows_none_of_the_options_is_run_as_it_is(make_project: MakeProject) -> None:
    project = make_project(source(["cat", "own.jsonl"]), target())
    files(project)
    project.run().expect(0)
    assert project.ids() == [1, 2, 3, 4, 5]
    assert project.state() == {"numbers": {"id": 5}}


def test_a_tap_that_looks_at_no_option_is_run_without_a_catalog(make_project: MakeProject) -> None:
    project = make_project(source([sys.executable, "own.py"]), target())
    files(project)
    project.run().expect(0)
    project.run().expect(0)
    assert project.ids() == [1, 2, 3, 4, 5]


def test_settings_that_such_a_tap_can_not_be_told_are_refused(make_project: MakeProject) -> None:
    text = "source: tap-own\nstreams: {numbers: {columns: [id]}}\n"
    project = make_project(source([sys.executable, "own.py"], text), target())
    files(project)
    project.run().expect(2, "tap-own has no discovery", "catalog.json")


def test_such_a_tap_with_a_catalog_file(make_project: MakeProject) -> None:
    text = "source: tap-own\nstreams: {numbers: {run_in_parallel: true}}\n"
    project = make_project(source([sys.executable, "own.py"], text), target())
    files(project)
    schema = {"properties": {"id": {"type": "integer"}}}
    project.write_json("pipelines/p/load/catalog.json", {"streams": [{"tap_stream_id": "numbers", "schema": schema}]})
    project.run().expect(0)
    assert project.ids() == [1, 2, 3, 4, 5]
