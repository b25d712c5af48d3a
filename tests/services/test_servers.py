"""The servers themselves: what the other tests of this folder take for granted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

from tests.services.mariadb import MariaDBServer
from tests.services.moto import S3Server
from tests.services.postgres import PostgresServer

ROOT = Path(__file__).parents[2]


def test_postgres_can_decode_its_log(postgres_server: PostgresServer, postgres_database: str) -> None:
    with postgres_server.connect(postgres_database) as database:
        database.execute("create table t (id int primary key, note text)")
        database.execute("select pg_create_logical_replication_slot('look', 'wal2json')")
        database.execute("insert into t values (1, 'a')")
        rows = database.execute("select data from pg_logical_slot_get_changes('look', null, null)").fetchall()
    assert any('"insert"' in data for (data,) in rows)


def test_mariadb_writes_whole_rows_to_its_log(mariadb_server: MariaDBServer, mariadb_database: str) -> None:
    with mariadb_server.connect(mariadb_database) as database, database.cursor() as cursor:
        cursor.execute("select @@log_bin, @@binlog_format, @@binlog_row_image")
        assert cursor.fetchone() == (1, "ROW", "FULL")


def test_s3_gives_back_what_was_put(s3_server: S3Server) -> None:
    s3_server.make_bucket("look")
    s3_server.put("look", "a/b.csv", b"id\n1\n")
    with urllib.request.urlopen(f"{s3_server.endpoint}/look/a/b.csv", timeout=10) as reply:
        assert reply.read() == b"id\n1\n"


def test_a_killed_test_process_leaves_no_server(tmp_path: Path) -> None:
    """SIGKILL runs no clean-up; the guard must see it all the same."""
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from tests.services.process import guarded, server_folder
        home = server_folder("look", "")
        program = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
        ready = lambda: (home / "pid").exists() and (home / "pid").read_text() != ""
        with guarded([sys.executable, "-c", program], folder=home, user="", ready=ready, log=home / "log"):
            print(home, (home / "pid").read_text(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    home, pid = done.stdout.split()
    deadline = time.monotonic() + 60
    while (Path(home).exists() or _lives(int(pid))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(home).exists()
    assert not _lives(int(pid))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
