"""What every class of `streamline.io` has in common."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from streamline.databases.base import WRITE_POLICIES, DatabaseError, IfExists
from streamline.errors import ConfigError
from streamline.io.formats import FileFormat
from streamline.project.current import current_folder

__all__ = ["BaseIO", "ExportWritePolicy", "FileFormat"]

P = ParamSpec("P")
T = TypeVar("T")


class ExportWritePolicy(StrEnum):
    """What `if_exists` may be."""

    APPEND = "append"
    FAIL = "fail"
    REPLACE = "replace"


class BaseIO(ABC):
    """Loads DataFrames from a system, and exports them to it.

    Args:
        verbose: accepted, as code written for Mage passes it; nothing is printed here.
    """

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose

    @abstractmethod
    def load(self, *args: Any, **kwargs: Any) -> Any:
        """Load a DataFrame."""

    @abstractmethod
    def export(self, *args: Any, **kwargs: Any) -> None:
        """Write a DataFrame."""


class QueryIO(BaseIO):
    """Loads by queries and runs statements, in a connection that `with` or the first use opens."""

    @abstractmethod
    def open(self) -> None:
        """Connect. Nothing happens if the connection is open."""

    @abstractmethod
    def commit(self) -> None:
        """Commit the transaction."""

    @abstractmethod
    def execute(self, query_string: str, **query_vars: Any) -> Any:
        """Run one statement."""

    def execute_query_raw(self, query: str, configuration: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """Run one statement, and commit."""
        result = self.execute(query)
        self.commit()
        return result

    def execute_queries(
        self,
        queries: Sequence[str],
        query_variables: Sequence[Mapping[str, Any]] | None = None,
        commit: bool = False,
        fetch_query_at_indexes: Sequence[bool] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """Run several statements, in one transaction where the system has transactions.

        Args:
            queries: one statement each.
            query_variables: the parameters of each, as for `execute`.
            commit: end the transaction after the last.
            fetch_query_at_indexes: which of them return rows.

        Returns:
            for each statement a DataFrame where it returns rows, else what `execute` returns.
        """
        self._begin()
        results: list[Any] = []
        for index, query in enumerate(queries):
            variables = query_variables[index] if query_variables and index < len(query_variables) else {}
            fetch = bool(fetch_query_at_indexes and fetch_query_at_indexes[index : index + 1] == [True])
            results.append(self._fetched(query, variables) if fetch else self.execute(query, **variables))
        if commit:
            self.commit()
        return results

    def _begin(self) -> None:
        """Start a transaction, if none is open."""

    def _fetched(self, query: str, variables: Mapping[str, Any]) -> Any:
        return self.load(query, **variables)

    def __enter__(self) -> Self:
        self.open()
        return self


def plainly(method: Callable[P, T]) -> Callable[P, T]:
    """Wrap a method so that its DatabaseErrors hide the traceback and the error of the driver."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except DatabaseError as error:
            raise error.with_traceback(None) from None

    return wrapped


def some(settings: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the settings that are not None."""
    return {str(key): value for key, value in settings.items() if value is not None}


def from_profile(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a client that a profile has: `names` maps a setting's name to its key in the profile."""
    return some({name: config.get(key) for name, key in names.items()})


def profile_path(config: Mapping[str, Any], key: str) -> str | None:
    """Return the path of a file that a profile names; a relative one starts at the project's folder."""
    path = config.get(key)
    if not path:
        return None
    folder: Path = getattr(config, "root", None) or current_folder()
    return str(folder / Path(str(path)).expanduser())


def require_key(config: Mapping[str, Any], key: str, title: str) -> None:
    """Check that a profile has a key.

    Raises:
        ConfigError: it does not.
    """
    if not config.get(key):
        raise ConfigError(f"the profile has no {key}", hint=f"{title} needs it", code="profile.setting_missing")


def check_policy(if_exists: str | None) -> IfExists:
    """Return a write policy in lower case.

    Raises:
        ConfigError: there is none of that name.
    """
    for policy in WRITE_POLICIES:
        if str(getattr(if_exists, "value", if_exists)).lower() == policy:
            return policy
    raise ConfigError(
        f"unknown write policy: if_exists={if_exists!r}",
        hint="if_exists is 'append', 'replace' or 'fail'",
        code="export.unknown_write_policy",
    )


def table_and_size(table: str | int, size: str | int) -> tuple[str, int]:
    """Return a table's name and a number of rows, which are given in either order: Mage has had both."""
    return (str(size), table) if isinstance(table, int) else (table, int(size))
