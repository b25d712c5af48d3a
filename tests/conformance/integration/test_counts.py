"""What a run counts: each record once over retries, as written only what its destination has confirmed."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.integration.common import COLUMNS, INCREMENTAL, rows_tap
from tests.conftest import MakeProject
from tests.support.project import Project, tap, target, transformer

RETRY = {"retry_config": {"retries": 1, "delay": 0}}
LONG = {"rows": 200, "state_every": 5, "payload": 30_000}
"""Rows of which a read gives few, so that positions are saved between them."""


def counts(project: Project, code: int = 0) -> dict[str, Any]:
    """The counts of a run, which `--json`, the run's record and its blocks tell alike."""
    run: dict[str, Any] = json.loads(project.run("--json").expect(code).out)
    shown = json.loads(project.command("runs", "show", run["run_id"], "--json").expect(0).out)
    for name in ("records", "quarantined", "streams", "tables"):
        assert run[name] == shown["summary"][name]
    for block in run["blocks"]:
        of = [each for each in (*run["streams"], *run["tables"]) if each["block"] == block["uuid"]]
        assert block["results"] == [{name: each[name] for name in each if name != "block"} for each in of]
    return run


def table(run: dict[str, Any], block: str = "export") -> dict[str, int]:
    """The counts of a destination's only table."""
    (of,) = [each for each in run["tables"] if each["block"] == block]
    return {name: of[name] for name in of if name not in ("block", "table")}


def test_records_that_are_sent_again_after_a_failure_count_once(make_project: MakeProject) -> None:
    good = target("keyed", {"path": "good.db", "flush": 10}, uuid="good")
    project = make_project(
        tap("counts", LONG, entry=RETRY, streams={"numbers": INCREMENTAL}),
        good,
        target("keyed", {"flush": 10, "die_after": 130, "die_once": "died"}),
    )

    run = counts(project)

    assert len(project.ids()) == len(project.ids(path="good.db")) == 200
    assert run["records"] == 200
    assert table(run) == table(run, "good") == {"sent": 200, "written": 200, "quarantined": 0}


def test_a_stream_that_is_read_from_the_start_again_counts_once(make_project: MakeProject) -> None:
    project = make_project(
        rows_tap(
            {"a": 40},
            {"fail": {"stream": "a", "after": 25, "once": "failed"}},
            entry=RETRY,
            streams={"a": {"replication_method": "FULL_TABLE"}},
        ),
        target("keyed", {"flush": 10}),
    )

    run = counts(project)

    assert run["records"] == 40
    assert table(run)["written"] == 40


def test_records_without_a_confirmation_are_no_written_ones(make_project: MakeProject) -> None:
    project = make_project(
        tap("counts", LONG, streams={"numbers": INCREMENTAL}),
        target("keyed", {"flush": 10, "die_after": 130}, on_bad_record="fail"),
    )

    completed = project.run().expect(1, r"numbers: \d+ records written, \d+ sent, not confirmed")

    position = project.position()
    assert 0 < position <= 130
    assert f" {position} written, " in completed.last_line


def test_what_one_destination_refuses_counts_for_it_alone(make_project: MakeProject) -> None:
    rows = [{"id": number, "text": 5 if number in (3, 13, 14) else "x"} for number in range(1, 21)]
    change = "@transformer\ndef change(rows: list[dict]):\n    return [row for row in rows if row['id'] != 20]\n"
    project = make_project(
        rows_tap({"a": {"properties": COLUMNS, "rows": rows}}, streams={"a": {}}),
        transformer(change),
        target("keyed", on_bad_record="quarantine"),
        target("keyed", {"path": "all.db"}, uuid="all"),
    )

    run = counts(project)

    assert (run["records"], run["quarantined"]) == (20, 3)
    assert table(run) == {"sent": 16, "written": 16, "quarantined": 3}
    assert table(run, "all") == {"sent": 19, "written": 19, "quarantined": 0}
    assert len(project.dead_letters()) == 3


def test_letters_that_are_sent_again_count_as_read_and_written(make_project: MakeProject) -> None:
    rows = [{"id": number, "text": 5 if number == 3 else "x"} for number in range(1, 6)]
    content = {"a": {"properties": COLUMNS, "replication_key": "id", "rows": rows}}
    project = make_project(rows_tap(content), target("keyed", {}, on_bad_record="quarantine"))
    assert counts(project)["quarantined"] == 1
    project.write("data_exporters/export.yaml", "destination: target-keyed\nconfig: {path: out.db}\n")

    project.command("dead-letters", "retry", "p")

    run = json.loads(project.command("runs", "show", "--json", "p").expect(0).out)["summary"]
    assert run["records"] == run["quarantined"] + sum(each["written"] for each in run["tables"]) == 1
