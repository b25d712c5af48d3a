"""The bundled targets behind the engine: what only both together can promise."""

from __future__ import annotations

import json

import duckdb
import pytest

from tests.conformance.integration.common import rows_tap
from tests.conftest import MakeProject
from tests.support.project import tap, target


@pytest.mark.parametrize("asked", [{}, {"load_method": "replace"}], ids=["full table", "target's config"])
def test_the_old_rows_stay_until_a_replacement_is_complete(make_project: MakeProject, asked: dict[str, str]) -> None:
    def pipeline(**config: object) -> None:
        project.pipeline(
            "p",
            rows_tap(
                {"numbers": []},
                {"rows_file": "rows.json", "page": 1, **config},
                streams={"numbers": {"replication_method": "FULL_TABLE"}},
            ),
            target("duckdb", {"path": "w.duckdb", "flush_seconds": 0, **asked}, uuid="tables", builtin=True),
            target("files", {"path": "out", "flush_seconds": 0, **asked}, uuid="files", builtin=True),
        )

    def rows() -> list[list[tuple[int, str]]]:
        with duckdb.connect(str(project.root / "w.duckdb")) as connection:
            table = connection.execute("SELECT id, text FROM numbers ORDER BY id").fetchall()
        lines = [line for path in (project.root / "out/numbers").glob("*.jsonl") for line in path.open()]
        return [table, sorted((row["id"], row["text"]) for row in map(json.loads, lines))]

    project = make_project()
    pipeline()
    project.write_json("rows.json", {"numbers": [{"id": n, "text": "old"} for n in (1, 2, 3)]})
    project.run().expect(0)
    assert rows() == [[(1, "old"), (2, "old"), (3, "old")]] * 2

    project.write_json("rows.json", {"numbers": [{"id": n, "text": "new"} for n in (2, 3, 4)]})
    pipeline(fail={"stream": "numbers", "after": 2})
    project.run().expect(1)
    assert rows() == [[(1, "old"), (2, "old"), (3, "old")]] * 2

    pipeline()
    project.run().expect(0)
    assert rows() == [[(2, "new"), (3, "new"), (4, "new")]] * 2


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"pth": "out.duckdb"}, "'pth'\\n +.*'path'"),
        ({}, "needs the setting 'path'"),
        ({"path": "out.duckdb", "batch_rows": "many"}, "'batch_rows' of target-duckdb must be of type integer"),
    ],
)
def test_a_wrong_setting_of_a_bundled_target_is_told_before_anything_runs(
    make_project: MakeProject, config: dict[str, str], told: str
) -> None:
    project = make_project(tap("counts", {"rows": 1, "spy": "spy"}), target("duckdb", config, builtin=True))

    project.run().expect(2, "export.yaml", told)
