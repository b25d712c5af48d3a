"""Streams that were loaded before and cannot be read any more: they fail alone, whatever the settings name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.integration.common import COLUMNS, INCREMENTAL, rows_tap
from tests.conftest import MakeProject
from tests.support.project import Block, target

KEPT = {**INCREMENTAL, "columns": ["id", "text"]}


def source(content: dict[str, Any], **keys: Any) -> Block:
    streams = {"numbers": INCREMENTAL, "letters": KEPT}
    return rows_tap(content, {}, streams=streams, **keys)


@pytest.mark.parametrize(
    ("letters", "code"),
    [
        (None, "stream.unknown"),
        ({"properties": {"id": "integer"}, "replication_key": "id", "rows": 4}, "column.unknown"),
    ],
    ids=["a stream", "a column"],
)
def test_what_a_source_has_no_more_fails_alone(make_project: MakeProject, letters: Any, code: str) -> None:
    to = target("keyed", streams={"numbers": {}, "letters": {}})
    project = make_project(source({"numbers": 2, "letters": 2}), to)
    project.run().expect(0)
    remaining = {"numbers": 3, **({"letters": letters} if letters else {})}
    project.pipeline("p", source(remaining), to)

    for _ in range(2):
        project.run("--json").expect(1, code)

    assert (project.ids(), project.ids("letters")) == ([1, 2, 3], [1, 2])
    assert project.position() == 3
    assert project.runs()[0]["status"] == "failed"
    project.command("check", "p", "--json").expect(2, code)
    project.run("--stream", "numbers").expect(0)


def test_a_stream_that_was_never_loaded_is_a_mistake_in_the_settings(make_project: MakeProject) -> None:
    project = make_project(source({"numbers": {"properties": COLUMNS, "replication_key": "id", "rows": 2}}), target())

    project.run("--json").expect(2, "stream.unknown")

    assert project.ids() == []
