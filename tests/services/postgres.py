"""A PostgreSQL for tests: the system's own program on loopback, or one named by STREAMLINE_TEST_POSTGRES_URL."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from tests.services.process import find_program, free_port, guarded, run_as, server_folder, server_user
from tests.services.require import ServiceMissingError

if TYPE_CHECKING:
    import psycopg

URL_VARIABLE = "STREAMLINE_TEST_POSTGRES_URL"


@dataclass(frozen=True)
class PostgresServer:
    """Where a server listens and who may make databases in it."""

    host: str
    port: int
    user: str
    password: str
    maintenance_database: str = "postgres"

    def url(self, database: str) -> str:
        """`postgresql://…` of one database."""
        return f"postgresql://{quote(self.user)}:{quote(self.password)}@{self.host}:{self.port}/{quote(database)}"

    def connect(self, database: str | None = None) -> psycopg.Connection[Any]:
        """A connection in autocommit mode."""
        import psycopg

        return psycopg.connect(self.url(database or self.maintenance_database), autocommit=True, connect_timeout=5)

    @contextlib.contextmanager
    def database(self, prefix: str = "t") -> Iterator[str]:
        """The name of a new, empty database, dropped with its replication slots afterwards."""
        name = f"{prefix}_{secrets.token_hex(4)}"
        with self.connect() as server:
            server.execute(f'create database "{name}"')
        try:
            yield name
        finally:
            with self.connect() as server:
                # A slot of a client that is just going away is still active; terminating it frees the slot.
                server.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
                server.execute(
                    "select pg_drop_replication_slot(slot_name) from pg_replication_slots "
                    "where database = %s and not active",
                    [name],
                )
                server.execute(f'drop database if exists "{name}" with (force)')


def from_url(url: str) -> PostgresServer:
    """A server that somebody else runs."""
    parts = urlsplit(url)
    return PostgresServer(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 5432,
        user=unquote(parts.username or "postgres"),
        password=unquote(parts.password or ""),
        maintenance_database=unquote(parts.path.lstrip("/")) or "postgres",
    )


def programs() -> Path | None:
    """The folder of initdb and postgres: the newest that the system's packages hold, else PATH's."""

    def version(folder: Path) -> int:
        return int(folder.parent.name) if folder.parent.name.isdigit() else 0

    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version, reverse=True)
    initdb = find_program(["initdb"], packaged)
    return initdb.parent if initdb else None


@contextlib.contextmanager
def running() -> Iterator[PostgresServer]:
    """A server for the length of the `with`.

    Raises:
        ServiceMissingError: none is named, and none can be started here; the text says why.
    """
    try:
        import psycopg
    except ImportError as error:
        raise ServiceMissingError("the package 'psycopg[binary]' is not installed") from error
    if url := os.environ.get(URL_VARIABLE):
        yield from_url(url)
        return
    folder = programs()
    if folder is None:
        raise ServiceMissingError(
            f"no PostgreSQL: install the system's 'postgresql' and 'postgresql-15-wal2json', or set {URL_VARIABLE}"
        )
    user = server_user("postgres")
    home = server_folder("postgres", user)
    server = PostgresServer("127.0.0.1", free_port(), "streamline", secrets.token_hex(12))
    password_file = home / "password"
    password_file.touch(0o600)
    password_file.write_text(server.password + "\n")
    if user:
        import pwd

        os.chown(password_file, pwd.getpwnam(user).pw_uid, -1)
    data = home / "data"
    initdb: list[str | Path] = [
        *(folder / "initdb", "-D", data, "-U", server.user, "--pwfile", password_file),
        *("-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
    ]
    run_as(user, initdb, home)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(server.port),
        "unix_socket_directories": str(home),
        "wal_level": "logical",
        "max_replication_slots": "30",
        "max_wal_senders": "30",
        "max_connections": "100",
        # The data lives as long as the test run; nothing here has to survive a power cut.
        "fsync": "off",
        "full_page_writes": "off",
        "autovacuum": "off",
        "timezone": "UTC",
    }
    command: list[str | Path] = [folder / "postgres", "-D", data]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]

    def ready() -> bool:
        try:
            server.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    with guarded(command, folder=home, user=user, ready=ready, stop_signal="QUIT", log=home / "server.log"):
        allow_wal2json(server)
        yield server


def allow_wal2json(server: PostgresServer) -> None:
    """Let replication users decode with wal2json, which newer minor releases allow only where it is listed."""
    with server.connect() as database:
        row = database.execute("select setting from pg_settings where name = 'output_plugin_libraries'").fetchone()
        if row is None or "wal2json" in row[0]:
            return
        listed = [name for name in (*row[0].replace(" ", "").split(","), "wal2json") if name]
        database.execute(f"alter system set output_plugin_libraries = {', '.join(listed)}")
        database.execute("select pg_reload_conf()")
