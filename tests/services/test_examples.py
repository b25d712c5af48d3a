"""The projects in examples/ that need a server."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import duckdb

from tests.services.postgres import PostgresServer
from tests.support.batch import BatchProject
from tests.support.project import REPOSITORY


def test_a_source_block_and_a_destination_block_among_others(
    tmp_path: Path, postgres_server: PostgresServer, postgres_database: str
) -> None:
    project = BatchProject(tmp_path / "copy")
    shutil.copytree(REPOSITORY / "examples" / "revenue", project.root, dirs_exist_ok=True)
    with postgres_server.connect(postgres_database) as connection:
        connection.execute((project.root / "sample/customers.sql").read_bytes())
    with contextlib.closing(sqlite3.connect(project.root / "payments.db")) as payments:
        payments.executescript((project.root / "sample/payments.sql").read_text("utf-8"))
    env = {
        "POSTGRES_HOST": postgres_server.host,
        "POSTGRES_PORT": str(postgres_server.port),
        "POSTGRES_DBNAME": postgres_database,
        "POSTGRES_USER": postgres_server.user,
        "POSTGRES_PASSWORD": postgres_server.password,
        "VAULT_URL": (project.root / "sample/vault.json").as_uri(),
    }
    try:
        for run in range(2):
            project.run("--test", pipeline="nightly", env=env).expect(0)
            with duckdb.connect(str(project.root / "crm.duckdb"), read_only=True) as crm:
                query = "SELECT customer_id, name, email, payments, revenue FROM accounts ORDER BY customer_id"
                assert crm.execute(query).fetchall() == [
                    (1, "Ada", "ada@example.com", 2, 18.0 + run),
                    (2, "Grace", "grace@example.com", 1, 9.0),
                    (4, "Edsger", None, 0, 0.0),
                ]
            with contextlib.closing(sqlite3.connect(project.root / "payments.db")) as payments, payments:
                payments.execute("UPDATE refunds SET amount = amount - 1 WHERE id = 're_1'")
        files = [path for path in (project.root / ".streamline").rglob("*") if path.is_file()]
        assert not [path for path in files if b"payments.db" in path.read_bytes()], (
            "the credentials were written to disk"
        )
    finally:
        project.close()
