"""Log-based replication that keeps the server's log short: what the target proved is confirmed during the run.

PipelineWise's tap reads its `--state` file again every ten seconds and confirms to PostgreSQL the lowest position in
it. The positions reach that file only after the target has proven them, so the slot moves on exactly as far as rows
are safe, while the run goes on.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from tests.services.compare import assert_same, read_postgres
from tests.services.postgres import PostgresServer
from tests.services.project import RUN_SECONDS, MakeCommunity
from tests.services.seed import Table
from tests.support.project import Running

BUSY_SECONDS = 65


def test_the_slot_advances_during_the_run(
    community: MakeCommunity, tmp_path: Path, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """One busy and one quiet table: the quiet one must not hold the busy one's position back."""
    slot = f"pipelinewise_{postgres_database}"
    project = community("tap-pw-postgres", "target-pw-postgres")
    login: dict[str, Any] = {
        "host": postgres_server.host,
        "port": postgres_server.port,
        "user": postgres_server.user,
        "password": postgres_server.password,
    }
    with postgres_server.connect(postgres_database) as source, postgres_server.database("warehouse") as warehouse:
        source.execute("create table busy (id bigint primary key, note text)")
        source.execute("create table quiet (id bigint primary key, note text)")
        source.execute("insert into busy select n, 'first ' || n from generate_series(1, 200) n")
        source.execute("insert into quiet select n, 'first ' || n from generate_series(1, 20) n")
        source.execute("select pg_create_logical_replication_slot(%s, 'wal2json')", [slot])
        project.integration(
            "log",
            source={
                "source": "tap-pw-postgres",
                "config": {
                    **login,
                    "dbname": postgres_database,
                    "filter_schemas": "public",
                    # Bounds the run: it ends once the log has been silent for so long.
                    "break_at_end_lsn": False,
                    "logical_poll_total_seconds": 8,
                },
                "streams": {"public-*": {"replication_method": "LOG_BASED"}},
            },
            destination={
                "destination": "target-pw-postgres",
                "config": {
                    **login,
                    "dbname": warehouse,
                    "default_target_schema": "log",
                    "hard_delete": True,
                    "batch_size_rows": 1000,
                },
            },
        )
        project.sync("log")  # the first run reads the tables themselves, and remembers where the log stood
        run = project.start("run", "log")
        try:
            confirmed = _write_and_watch(run, source, slot)
            source.execute("update quiet set note = 'last' where id = 3")
            source.execute("delete from busy where id <= 50")
            outcome = run.finish(RUN_SECONDS)
        finally:
            if run.process.poll() is None:
                print(run.kill())
        outcome.expect(0)
        for name in ("busy", "quiet"):
            rows = source.execute(f"select id, note from {name}").fetchall()
            table = Table(name, {"id": "int", "note": "text"}, rows={n: {"id": n, "note": t} for n, t in rows})
            assert_same(table, read_postgres(postgres_server, warehouse, f"log.{name}"))
        advances = sum(later > earlier for earlier, later in itertools.pairwise(confirmed))
        assert advances >= 2, f"the slot stood at {sorted(set(confirmed))} during the run\n{outcome}"


def _write_and_watch(run: Running, source: Any, slot: str) -> list[int]:
    """Keep one table busy for as long as the test lasts; the slot's confirmed positions as they were seen."""
    confirmed: list[int] = []
    number, started = 200, time.monotonic()
    while time.monotonic() - started < BUSY_SECONDS:
        assert run.process.poll() is None, "the run ended while the log was being written"
        source.execute(
            "insert into busy select n, 'more ' || n from generate_series(%s::bigint, %s) n", [number + 1, number + 900]
        )
        number += 900
        (position,) = source.execute(
            "select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = %s", [slot]
        ).fetchone()
        confirmed.append(int(position))
        time.sleep(0.5)
    return confirmed
