"""`streamline runs`."""

from __future__ import annotations

import pytest

from streamline.state.store import BlockRun, RunInfo
from tests.cli.conftest import Shop


@pytest.fixture
def ran(shop: Shop) -> Shop:
    """Two runs that ended, of two pipelines."""
    store = shop.store()
    store.begin_run(RunInfo(run_id="20260101-a", pipeline="shop", started="2026-01-01T00:00:00.000Z"))
    store.save_block_run(
        "20260101-a", BlockRun(uuid="load", status="completed", seconds=1.5, results=[{"stream": "orders", "read": 25}])
    )
    store.finish_run(
        "20260101-a", "completed", {"streams": [{"block": "load", "stream": "orders", "read": 25}], "records": 25}
    )
    store.begin_run(RunInfo(run_id="20260102-b", pipeline="other", started="2026-01-02T00:00:00.000Z"))
    store.finish_run("20260102-b", "failed", {}, "the tap failed\nTraceback (most recent call last):")
    store.close()
    return shop


def test_list_is_in_the_promised_shape(ran: Shop) -> None:
    runs = ran.json("runs", "list")
    assert [list(run) for run in runs] == [["run_id", "pipeline", "status", "started", "seconds"]] * 2
    assert [(run["run_id"], run["status"]) for run in runs] == [("20260102-b", "failed"), ("20260101-a", "completed")]
    assert [run["run_id"] for run in ran.json("runs", "list", "shop")] == ["20260101-a"]
    assert len(ran.json("runs", "list", "--limit", "1")) == 1
    lines = ran("runs", "list").stdout.splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("the tap failed")
    assert "'shp'" in ran.refuses("pipeline.not_found", "runs", "list", "shp")


def test_in_a_terminal_errors_are_cut_and_stand_below_their_run(ran: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ran.store()
    run = RunInfo(run_id="20261121T181352-87a16e", pipeline="a_longer_name")
    store.begin_run(run)
    store.finish_run(run.run_id, "failed", {}, "first: it failed; " * 20)
    store.close()
    for module in ("runs", "output"):
        monkeypatch.setattr(f"streamline.cli.{module}.is_terminal", lambda *stream: True)
    monkeypatch.setenv("COLUMNS", "100")

    lines = ran("runs", "list").stdout.splitlines()

    assert max(map(len, lines)) <= 100
    assert lines[1].startswith("20261121T181352-87a16e  a_longer_name  failed")
    assert lines[2].startswith("    error: first: it failed; ")
    assert lines[2].endswith("…")
    assert lines[3].startswith("20260102-b ")
    assert lines[4].endswith("error: the tap failed")
    assert len(lines) == 6


def test_list_by_status_and_time(ran: Shop) -> None:
    assert [run["run_id"] for run in ran.json("runs", "list", "--status", "failed")] == ["20260102-b"]
    assert ran.json("runs", "list", "--since", "1h") == []
    assert "--since" in ran.refuses("duration.invalid", "runs", "list", "--since", "soon")


def test_pipelines_are_listed_with_their_last_run(ran: Shop) -> None:
    ran.pipeline("broken", "load")
    (ran.root / "pipelines/broken/metadata.yaml").write_text("type: nosuch\n")
    broken, shop = ran.json("list")
    assert (shop["pipeline"], shop["type"], shop["blocks"], shop["status"]) == ("shop", "integration", 2, "completed")
    assert broken["run_id"] is None
    assert "unknown pipeline type" in broken["error"]


def test_list_of_nothing(shop: Shop) -> None:
    assert shop.json("runs", "list") == []
    assert "Nothing has run yet" in shop("runs", "list").stderr
    shop.refuses("run.not_found", "runs", "show")


def test_show_adds_blocks_and_takes_the_latest(ran: Shop) -> None:
    run = ran.json("runs", "show", "20260101-a")
    assert run["run_id"] == "20260101-a"
    assert run["summary"]["records"] == 25
    (block,) = run["blocks"]
    assert {key: block[key] for key in ("uuid", "status", "seconds", "attempts", "results")} == {
        "uuid": "load",
        "status": "completed",
        "seconds": 1.5,
        "attempts": 1,
        "results": [{"stream": "orders", "read": 25}],
    }
    assert ran.json("runs", "show")["run_id"] == "20260102-b"
    assert ran.json("runs", "show", "--pipeline", "shop")["run_id"] == "20260101-a"
    assert ran.json("runs", "show", "shop")["run_id"] == "20260101-a"
    text = ran("runs", "show", "20260101").stdout
    assert "completed" in text
    assert "orders" in text
    assert "load" in text
    assert "the tap failed" in ran("runs", "show").stdout
    assert "'x'" in ran.refuses("run.not_found", "runs", "show", "x")
    assert "'2026'" in ran.refuses("run.ambiguous", "runs", "show", "2026")


def test_a_run_that_nobody_holds_is_shown_as_killed(shop: Shop) -> None:
    store = shop.store()
    with store.acquire_lease("shop", "r1"):
        store.begin_run(RunInfo(run_id="r1", pipeline="shop"))
        assert shop.json("runs", "show")["status"] == "running"
    assert shop.json("runs", "show")["status"] == "killed"
    assert shop.json("runs", "list")[0]["status"] == "killed"
    store.close()


def test_logs(ran: Shop) -> None:
    folder = ran.root / ".streamline" / "runs" / "20260102-b"
    ran.refuses("run.no_logs", "runs", "logs")
    folder.mkdir(parents=True)
    (folder / "run.log").write_bytes(b"one\ntwo \xff\nthree\n")
    assert ran("runs", "logs").stdout.splitlines() == ["one", "two \ufffd", "three"]
    assert ran("runs", "logs", "20260102", "--tail", "1").stdout == "three\n"
    (folder / "tap.log").write_text("four\n")
    assert "==> tap.log <==\nfour" in ran("runs", "logs").stdout


def test_the_log_of_a_run_is_followed_until_it_ends(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shop.root / ".streamline/runs/r1"
    folder.mkdir(parents=True)
    log = folder / "run.log"
    log.write_bytes(b"zero\none\ntw")
    store = shop.store()
    lease = store.acquire_lease("shop", "r1")
    store.begin_run(RunInfo(run_id="r1", pipeline="shop"))
    later = [b"o\n", b"three\n"]

    def wait(seconds: float) -> None:
        with log.open("ab") as file:
            file.write(later.pop(0))
        if not later:
            store.finish_run("r1", "completed", {})
            lease.release()

    monkeypatch.setattr("streamline.cli.runs.time.sleep", wait)
    assert shop("runs", "logs", "--follow", "--tail", "1").stdout == "one\ntwo\nthree\n"
    store.close()
    assert shop("runs", "logs", "--follow").stdout == "zero\none\ntwo\nthree\n"


def test_show_has_a_table_of_streams_and_one_of_tables(shop: Shop) -> None:
    store = shop.store()
    store.begin_run(RunInfo(run_id="20260103-c", pipeline="shop", started="2026-01-03T00:00:00.000Z"))
    summary = {
        "records": 1025,
        "streams": [
            {"block": "load", "stream": "orders", "read": 1000, "quarantined": 2},
            {"block": "load", "stream": "users", "read": 25, "quarantined": 0},
        ],
        "tables": [{"block": "export", "table": "orders", "sent": 998, "written": 998, "quarantined": 0}],
    }
    store.finish_run("20260103-c", "completed", summary)
    store.close()
    lines = shop("runs", "show").stdout.splitlines()
    assert "  records: 1,025" in lines
    rows = [line.split() for line in lines]
    assert ["BLOCK", "STREAM", "READ", "QUARANTINED"] in rows
    assert ["load", "orders", "1,000", "2"] in rows
    assert ["load", "users", "25", "0"] in rows
    assert ["export", "orders", "998", "998", "0"] in rows
