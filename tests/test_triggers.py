"""Pipelines that start other pipelines, and questions about runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from streamline import PipelineFailed, check_status, trigger_pipeline
from streamline.state import open_store
from streamline.state.store import BlockRun, RunInfo
from tests.support.batch import BatchProject
from tests.support.failures import refuses


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchProject]:
    made = BatchProject(tmp_path / "shop")
    monkeypatch.chdir(made.root)
    made.block(
        "load",
        """
        @data_loader
        def load(*args, **kwargs):
            if kwargs.get('fail'):
                raise ValueError('as asked')
            return [kwargs.get('name'), kwargs.get('trigger_name')]
        """,
        type="data_loader",
    )
    yield made
    made.close()


def record(project: BatchProject, status: str, hours_ago: float, run_id: str = "run", **blocks: str) -> None:
    """A run as the store has it, which began so long ago."""
    started = (datetime.now(UTC) - timedelta(hours=hours_ago)).isoformat(timespec="milliseconds")
    (project.root / ".streamline").mkdir(exist_ok=True)
    store = open_store("sqlite:///.streamline/state.db", project.root)
    store.begin_run(RunInfo(run_id=run_id, pipeline="p", started=started))
    for uuid, block_status in blocks.items():
        store.save_block_run(run_id, BlockRun(uuid=uuid, status=block_status))
    if status != "running":
        store.finish_run(run_id, status, {})
    store.close()


def test_trigger_runs_it_now(project: BatchProject, capfd: pytest.CaptureFixture[str]) -> None:
    run = trigger_pipeline("p", variables={"name": "Ann"}, schedule_name="by hand", check_status=True)
    assert (run.status, run.pipeline_uuid, run.variables) == ("completed", "p", {"name": "Ann"})
    assert project.output("load") == ["Ann", "by hand"]
    assert f"Pipeline 'p': run {run.id} completed" in capfd.readouterr().out


def test_a_triggered_failure_is_told_or_raised(project: BatchProject, capfd: pytest.CaptureFixture[str]) -> None:
    run = trigger_pipeline("p", {"fail": True}, verbose=False)
    assert run.status == "failed"
    assert run.error is not None
    assert "ValueError: as asked" in run.error
    assert capfd.readouterr().out == ""
    with pytest.raises(PipelineFailed) as caught:
        trigger_pipeline("p", {"fail": True}, error_on_failure=True)
    assert caught.value.blocks == ["load"]
    with refuses("pipeline.not_found", "'q'"):
        trigger_pipeline("q")


def test_mages_order_of_arguments(project: BatchProject) -> None:
    from streamline.compat import runs

    assert runs.trigger_pipeline("p", str(project.root), {"name": "Ann"}).status == "completed"
    assert runs.trigger_pipeline("p", {"name": "Bob"}).variables == {"name": "Bob"}
    assert runs.check_status("p", datetime.now(UTC), str(project.root), "load")


def test_a_run_that_completed(project: BatchProject) -> None:
    assert not check_status("p")
    trigger_pipeline("p", verbose=False)
    assert check_status("p")
    assert check_status("p", block_uuid="load")


def test_the_newest_run_counts(project: BatchProject) -> None:
    record(project, "failed", 3, "a")
    with pytest.raises(PipelineFailed, match=r"the pipeline 'p': failed in run a"):
        check_status("p")
    record(project, "completed", 2, "b")
    assert check_status("p")
    record(project, "running", 1, "c")
    # Nobody holds its lease: it was killed.
    with pytest.raises(PipelineFailed, match="killed in run c"):
        check_status("p")


def test_a_run_that_goes_on(project: BatchProject) -> None:
    record(project, "running", 1, "c", load="completed")
    store = open_store("sqlite:///.streamline/state.db", project.root)
    with store.acquire_lease("p", "c"):
        assert not check_status("p")
        assert check_status("p", block_uuid="load")
    store.close()


@pytest.mark.parametrize("status", ["failed", "cancelled", "upstream_failed"])
def test_a_block_that_did_not_complete(project: BatchProject, status: str) -> None:
    record(project, "failed", 1, load=status)
    with pytest.raises(PipelineFailed, match=rf"the block 'load' of the pipeline 'p': {status}"):
        check_status("p", block_uuid="load")


def test_a_block_that_was_skipped_has_not_completed(project: BatchProject) -> None:
    record(project, "completed", 1, load="skipped")
    assert not check_status("p", block_uuid="load")
    assert check_status("p")


def test_hours_and_dates(project: BatchProject) -> None:
    now = datetime.now(UTC)
    record(project, "completed", 30)
    assert not check_status("p")
    assert check_status("p", hours=31)
    # A date long ago is taken as it is, with or without time zone.
    assert check_status("p", now - timedelta(hours=29), hours=2)
    assert check_status("p", (now - timedelta(hours=29)).replace(tzinfo=None), hours=2)
    assert not check_status("p", now - timedelta(hours=31), hours=2)


def test_a_sensor_sees_runs_that_begin_while_it_waits(project: BatchProject) -> None:
    began = datetime.now(UTC) - timedelta(hours=2)
    record(project, "completed", 1)
    assert check_status("p", began)


def test_many_runs(project: BatchProject) -> None:
    record(project, "completed", 100, "old")
    for number in range(60):
        record(project, "failed", 10 - number / 60, f"r{number:02d}")
    assert check_status("p", datetime.now(UTC) - timedelta(hours=90))


def test_names_are_checked(project: BatchProject) -> None:
    with refuses("pipeline.not_found", "'q'"):
        check_status("q")
    with refuses("graph.unknown_block", "'laod'", "'load'"):
        check_status("p", block_uuid="laod")
