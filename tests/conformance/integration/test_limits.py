"""Limits that blocks and plugins set: time, processes, the length of a record."""

from __future__ import annotations

import pytest

from tests.conformance.integration.common import COLUMNS, INCREMENTAL, rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import Block, tap, target


def test_a_tap_that_takes_longer_than_its_blocks_timeout_has_failed(make_project: MakeProject) -> None:
    source = tap(
        "counts",
        {"rows": 50, "state_every": 10, "wait_at": 20, "wait_for": "never"},
        streams={"numbers": INCREMENTAL},
        entry={"timeout": 1},
    )
    project = make_project(source, target())

    project.run("--json").expect(1, "tap-counts", "tap.timed_out")

    assert project.ids() == upto(20)
    assert project.position() == 20


def test_a_target_that_takes_longer_than_its_blocks_timeout_has_failed(make_project: MakeProject) -> None:
    project = make_project(tap("counts", {"rows": 500}), target("never_reads", entry={"timeout": 1}))

    project.run("--json").expect(1, "target-never-reads", "target.timed_out")

    assert project.state() == {}


def test_max_processes_of_a_taps_entry_bounds_its_processes(make_project: MakeProject) -> None:
    def source(uuid: str, stream: str) -> Block:
        spec = {stream: {"properties": COLUMNS, "replication_key": "id", "rows": 20}}
        return tap(
            "rows",
            {"streams": spec, "pause": 0.3},
            uuid=uuid,
            plugin={"max_processes": 1},
            streams={stream: INCREMENTAL},
        )

    project = make_project(source("load_a", "a"), source("load_b", "b"), target("keyed", {"log": "log.jsonl"}))

    project.run().expect(0)

    sent = "".join(m["stream"] for m in project.messages() if m["type"] == "RECORD")
    assert sent in ("a" * 20 + "b" * 20, "b" * 20 + "a" * 20), "both ran at once"


@pytest.mark.parametrize(("limit", "code"), [(2_000_000, 1), ("3MB", 0)])
def test_the_longest_record_is_the_source_blocks_to_say(make_project: MakeProject, limit: int | str, code: int) -> None:
    project = make_project(
        tap("counts", {"rows": 3, "payload": 2_500_000}, max_record_bytes=limit, streams={"numbers": INCREMENTAL}),
        target(),
    )

    completed = project.run().expect(code)

    assert ("max_record_bytes" in completed.text) == bool(code)
    assert project.ids() == ([] if code else upto(3))


def test_a_plugins_process_limit_is_shown(make_project: MakeProject) -> None:
    streams = {name: {**INCREMENTAL, "run_in_parallel": True} for name in "abc"}
    project = make_project(
        rows_tap({"a": 5, "b": 5, "c": 5}, streams=streams, max_parallel=3, plugin={"max_processes": 2}), target()
    )

    shown = project.command("explain", "p", "--json").expect(0)

    assert '"max_parallel":2' in shown.out.replace(" ", "")
