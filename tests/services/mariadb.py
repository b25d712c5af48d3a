"""A MariaDB for tests: the system's own program on loopback, or one named by STREAMLINE_TEST_MARIADB_URL.

The binary log is on, in row format with whole rows, as log-based taps need it.
"""

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
    import pymysql

URL_VARIABLE = "STREAMLINE_TEST_MARIADB_URL"


@dataclass(frozen=True)
class MariaDBServer:
    """Where a server listens and who may make databases in it."""

    host: str
    port: int
    user: str
    password: str

    def url(self, database: str) -> str:
        """`mysql://…` of one database."""
        return f"mysql://{quote(self.user)}:{quote(self.password)}@{self.host}:{self.port}/{quote(database)}"

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        """A connection in autocommit mode, its session in UTC."""
        import pymysql

        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database,
            autocommit=True,
            charset="utf8mb4",
            init_command="set time_zone = '+00:00'",
        )

    @contextlib.contextmanager
    def database(self, prefix: str = "t") -> Iterator[str]:
        """The name of a new, empty database, dropped afterwards."""
        name = f"{prefix}_{secrets.token_hex(4)}"
        with self.connect() as server, server.cursor() as cursor:
            cursor.execute(f"create database `{name}` character set utf8mb4")
        try:
            yield name
        finally:
            with self.connect() as server, server.cursor() as cursor:
                cursor.execute(f"drop database if exists `{name}`")


def from_url(url: str) -> MariaDBServer:
    """A server that somebody else runs."""
    parts = urlsplit(url)
    return MariaDBServer(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
    )


@contextlib.contextmanager
def running() -> Iterator[MariaDBServer]:
    """A server for the length of the `with`.

    Raises:
        ServiceMissingError: none is named, and none can be started here; the text says why.
    """
    try:
        import pymysql
    except ImportError as error:
        raise ServiceMissingError("the package 'pymysql' is not installed") from error
    if url := os.environ.get(URL_VARIABLE):
        yield from_url(url)
        return
    daemon = find_program(["mariadbd", "mysqld"], ["/usr/sbin", "/usr/libexec"])
    installer = find_program(["mariadb-install-db", "mysql_install_db"], ["/usr/bin"])
    if daemon is None or installer is None:
        raise ServiceMissingError(f"no MariaDB: install the system's 'mariadb-server', or set {URL_VARIABLE}")
    user = server_user("mysql")
    home = server_folder("mariadb", user)
    server = MariaDBServer("127.0.0.1", free_port(), "streamline", secrets.token_hex(12))
    data = home / "data"
    install: list[str | Path] = [
        installer,
        "--no-defaults",
        f"--datadir={data}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--skip-name-resolve",
    ]
    run_as(user, install, home)
    socket_path = home / "s"  # a Unix socket's path must be short
    command: list[str | Path] = [
        daemon,
        "--no-defaults",
        f"--datadir={data}",
        f"--socket={socket_path}",
        f"--port={server.port}",
        f"--pid-file={home / 'pid'}",
        f"--tmpdir={home}",
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
        "--server-id=1",
        f"--log-bin={home / 'binlog'}",
        "--binlog-format=ROW",
        "--binlog-row-image=FULL",
        "--sync-binlog=0",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-buffer-pool-size=64M",
        "--default-time-zone=+00:00",
    ]

    def ready() -> bool:
        try:
            pymysql.connect(unix_socket=str(socket_path), user="root").close()
        except pymysql.err.OperationalError:
            return False
        return True

    with guarded(command, folder=home, user=user, ready=ready, stop_signal="TERM", log=home / "server.log"):
        with pymysql.connect(unix_socket=str(socket_path), user="root") as root, root.cursor() as cursor:
            cursor.execute(f"create user {server.user}@'127.0.0.1' identified by '{server.password}'")
            cursor.execute(f"grant all on *.* to {server.user}@'127.0.0.1' with grant option")
        yield server
