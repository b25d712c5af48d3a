"""Opening a store, runs, settings, caches: what a user or another room of the engine relies on."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from streamline.state import open_store
from streamline.state.migrations import APPLICATION_ID, MIGRATIONS
from streamline.state.store import BlockRun, BookmarkSave, PluginSecret, RunInfo, Store, current_run
from tests.support.failures import fails, refuses


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store("sqlite:///.streamline/state.db", tmp_path)
    yield store
    store.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_are_for_their_owner_only(store: Store, tmp_path: Path) -> None:
    store.save("p", "b", "r", [BookmarkSave(stream="s", value="1")])
    with store.acquire_lease("p", "r"):
        folder = tmp_path / ".streamline"
        assert mode(folder) == 0o700
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {"state.db", "state.db-wal", "p.lock"} <= {path.name for path in files}
        assert {mode(path) for path in files} == {0o600}
        assert mode(folder / "locks") == 0o700


def test_loose_modes_are_tightened(tmp_path: Path) -> None:
    folder = tmp_path / ".streamline"
    folder.mkdir(mode=0o755)
    (folder / "state.db").touch(mode=0o644)
    open_store("sqlite:///.streamline/state.db", tmp_path).close()
    assert (mode(folder), mode(folder / "state.db")) == (0o700, 0o600)


def test_a_folder_that_is_not_ours_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    open_store(f"sqlite:///{tmp_path}/shared/x.db", tmp_path / "elsewhere").close()
    assert mode(tmp_path / "shared") == 0o755
    assert mode(tmp_path / "shared" / "x.db") == 0o600


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgresql://user:geheim@host/db", "store.unsupported"),
        ("mysql://user:geheim@host/db", "store.invalid_url"),
        ("state.db", "store.invalid_url"),
        ("sqlite://", "store.invalid_url"),
        ("sqlite:///:memory:", "store.invalid_url"),
    ],
)
def test_other_urls_are_refused_without_repeating_passwords(tmp_path: Path, url: str, code: str) -> None:
    with refuses(code) as caught:
        open_store(url, tmp_path)
    assert caught.value.hint
    assert "geheim" not in str(caught.value)


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    open_store(url, tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as db:
        db.execute("PRAGMA user_version=999")
    with refuses("store.newer_version"):
        open_store(url, tmp_path)


def test_another_programs_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as db:
        db.execute("CREATE TABLE orders (id)")
    (tmp_path / "shop.db").chmod(0o644)
    with refuses("store.foreign_file"):
        open_store("sqlite:///shop.db", tmp_path)
    assert (tmp_path / "shop.db").stat().st_mode & 0o777 == 0o644
    with sqlite3.connect(tmp_path / "shop.db") as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("orders",)]


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("remember the milk\n" * 100)
    (tmp_path / "notes.txt").chmod(0o644)
    with fails("store.failed", "notes.txt"):
        open_store("sqlite:///notes.txt", tmp_path)
    assert (tmp_path / "notes.txt").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with fails("store.not_opened", "file/state.db"):
        open_store("sqlite:///file/state.db", tmp_path)


def test_many_can_create_one_database_at_once(tmp_path: Path) -> None:
    def create_and_write(number: int) -> None:
        store = open_store("sqlite:///.streamline/state.db", tmp_path)
        store.save(f"p{number}", "b", "r", [BookmarkSave(stream="s", value=str(number))])
        store.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create_and_write, range(16)))
    store = open_store("sqlite:///.streamline/state.db", tmp_path)
    assert [store.bookmarks(f"p{number}", "b")["s"].value for number in range(16)] == [str(n) for n in range(16)]
    store.close()


def test_what_was_saved_survives_closing(tmp_path: Path) -> None:
    for number in range(3):
        store = open_store("sqlite:///.streamline/state.db", tmp_path)
        store.save("p", "b", f"r{number}", [BookmarkSave(stream=f"s{number}", value="1")])
        store.close()
        store.close()
    store = open_store("sqlite:///.streamline/state.db", tmp_path)
    assert list(store.bookmarks("p", "b")) == ["s0", "s1", "s2"]
    store.close()


def test_importing_the_package_loads_no_database_and_no_codec() -> None:
    code = "import sys, streamline.state; print(sorted({'sqlite3', 'msgspec', 'json'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_runs_begin_and_end(store: Store) -> None:
    store.begin_run(RunInfo(run_id="r1", pipeline="p"))
    store.begin_run(RunInfo(run_id="r2", pipeline="q", started="2020-01-01T00:00:00.000Z"))
    run = store.run("r1")
    assert run is not None
    assert (run.status, run.finished, run.seconds) == ("running", None, None)
    assert run.pid
    assert run.host
    assert [one.run_id for one in store.unfinished_runs("p")] == ["r1"]

    store.finish_run("r1", "failed", {"records": {"orders": 5}}, error="the tap failed")
    run = store.run("r1")
    assert run is not None
    assert (run.status, run.summary, run.error) == ("failed", {"records": {"orders": 5}}, "the tap failed")
    assert run.seconds is not None
    assert run.seconds >= 0
    assert store.unfinished_runs("p") == []
    assert [one.run_id for one in store.runs()] == ["r1", "r2"]
    assert [one.run_id for one in store.runs("q")] == ["r2"]
    assert [one.run_id for one in store.runs(limit=1)] == ["r1"]
    assert store.run("r9") is None


def test_a_killed_runs_length_is_not_known(store: Store) -> None:
    store.begin_run(RunInfo(run_id="r1", pipeline="p", started="2020-01-01T00:00:00.000Z"))
    store.finish_run("r1", "killed", {})
    run = store.run("r1")
    assert run is not None
    assert (run.status, run.seconds) == ("killed", None)
    assert run.finished


def test_a_run_is_in_progress_as_long_as_it_holds_the_lease(store: Store) -> None:
    def recorded() -> RunInfo:
        run = store.run("r1")
        assert run is not None
        return run

    store.begin_run(RunInfo(run_id="r1", pipeline="p"))
    with store.acquire_lease("p", "r1"):
        assert current_run(store, recorded()).status == "running"
    assert current_run(store, recorded()).status == "killed"
    with store.acquire_lease("p", "r2"):
        assert current_run(store, recorded()).status == "killed"
    listed = recorded()
    store.finish_run("r1", "completed", {})
    assert current_run(store, listed).status == "completed", "it ended meanwhile"
    assert current_run(store, recorded()).status == "completed"
    store.drop_run("r1")
    assert current_run(store, listed).status == "killed"


def test_block_runs_keep_their_order_and_are_replaced(store: Store) -> None:
    store.save_block_run("r1", BlockRun(uuid="load", status="running"))
    store.save_block_run("r1", BlockRun(uuid="export", status="upstream_failed"))
    store.save_block_run("r1", BlockRun(uuid="load", status="failed", seconds=1.5, attempts=2, results=[{"a": 1}]))
    assert [(one.uuid, one.status, one.attempts) for one in store.block_runs("r1")] == [
        ("load", "failed", 2),
        ("export", "upstream_failed", 1),
    ]
    assert store.block_runs("r1")[0].results == [{"a": 1}]
    assert store.block_runs("r2") == []


def test_stream_settings_of_earlier_versions_are_kept_until_they_are_moved(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    with sqlite3.connect(file) as db:
        db.executescript(MIGRATIONS[0] + f"PRAGMA user_version=1; PRAGMA application_id={APPLICATION_ID};")
        rows = [("orders", "columns", '["a"]'), ("*", "selected", "false"), ("orders", "selected", "true")]
        sql = "INSERT INTO stream_settings (pipeline, block, stream, key, value) VALUES ('p', 'b', ?, ?, ?)"
        db.executemany(sql, rows)
    store = open_store(f"sqlite:///{file}", tmp_path)
    settings = store.stored_stream_settings("p")
    assert settings == {"b": {"orders": {"columns": ["a"], "selected": True}, "*": {"selected": False}}}
    store.drop_stored_stream_settings("p", "b")
    assert store.stored_stream_settings("p") == store.stored_stream_settings("other") == {}
    store.close()


def test_schemas_caches_and_plugin_secrets(store: Store) -> None:
    schema = {"properties": {"id": {"type": ["integer"], "multipleOf": Decimal("0.5")}}}
    store.save_schema("p", "b", "orders", schema)
    store.save_schema("p", "b", "orders", schema)
    assert store.last_schemas("p", "b") == {"orders": {"properties": {"id": {"type": ["integer"], "multipleOf": 0.5}}}}

    assert store.cache_get("discovery", "k") is None
    store.cache_put("discovery", "k", "{}")
    store.cache_put("discovery", "k", '{"streams": []}')
    assert store.cache_get("discovery", "k") == '{"streams": []}'
    assert store.cache_get("capabilities", "k") is None

    secret = PluginSecret(name="refresh_token", value='"new"', replaces="hash of the old")
    store.plugin_secret_put("p", "b", secret)
    assert store.plugin_secrets("p", "b") == {"refresh_token": secret}


def test_threads_may_take_turns(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: store.save("p", "b", "r", [BookmarkSave(stream=f"s{n}", value="1")]), range(40)))
    assert len(store.bookmarks("p", "b")) == 40
