"""The state store: positions with their proof, runs, leases, dead letters.

Importing this package is cheap; the database modules load when a store is opened.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.state.store import Store

__all__ = ["open_store", "project_store"]


class HasStore(Protocol):
    """A project."""

    root: Path

    @property
    def state_url(self) -> str: ...


def project_store(project: HasStore) -> closing[Store]:
    """Open the store of a project, which is closed at the end of the `with` block. Raises errors as `open_store`."""
    return closing(open_store(project.state_url, project.root))


def open_store(url: str, root: Path) -> Store:
    """Open the state store that `url` names, creating or migrating it if need be.

    Args:
        url: `sqlite:///relative/path.db` (relative to `root`) or `sqlite:////absolute/path.db`.
        root: the project folder.

    Raises:
        ConfigError: the URL is not understood, or the database was written by a newer Streamline or by another
            program.
        StreamlineError: the database cannot be opened.
    """
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and separator:
        path = rest.removeprefix("/")
        if not rest.startswith("/") or not path or path == ":memory:":
            raise ConfigError(
                f"'{url}' does not name a database file",
                where="state",
                hint="write sqlite:///.streamline/state.db (relative to the project) or sqlite:////an/absolute/path.db",
                code="store.invalid_url",
            )
        from streamline.state.sqlite import SQLiteStore

        return SQLiteStore(root / path)
    # A URL may hold a password, so only its scheme is repeated.
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        raise ConfigError(
            "a state store in PostgreSQL is not supported by this version",
            where="state",
            hint="use sqlite:///.streamline/state.db; pipelines that run on one machine need no more",
            code="store.unsupported",
        )
    raise ConfigError(
        f"unknown kind of state store: '{scheme}'" if separator else "the state store's URL is invalid",
        where="state",
        hint="write sqlite:///.streamline/state.db",
        code="store.invalid_url",
    )
