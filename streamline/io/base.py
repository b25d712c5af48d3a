"""What every class of `streamline.io` has in common."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, ParamSpec, TypeVar

from streamline.databases.database import WRITE_POLICIES, DatabaseError, IfExists
from streamline.errors import ConfigError
from streamline.io.formats import FileFormat

__all__ = ["BaseIO", "ExportWritePolicy", "FileFormat", "check_policy", "plainly", "some"]

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
        """A DataFrame of what is there."""

    @abstractmethod
    def export(self, *args: Any, **kwargs: Any) -> None:
        """Write a DataFrame there."""


def plainly(method: Callable[P, T]) -> Callable[P, T]:
    """The method, whose DatabaseErrors say what they say without the drivers' own errors behind them."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except DatabaseError as error:
            raise error.with_traceback(None) from None

    return wrapped


def some(settings: Mapping[Any, Any]) -> dict[str, Any]:
    """The settings that are given, without those that are None."""
    return {str(key): value for key, value in settings.items() if value is not None}


def check_policy(if_exists: str | None) -> IfExists:
    """A write policy, in small letters.

    Raises:
        ConfigError: there is none of that name.
    """
    for policy in WRITE_POLICIES:
        if str(getattr(if_exists, "value", if_exists)).lower() == policy:
            return policy
    raise ConfigError(f"if_exists cannot be {if_exists!r}", hint="it is 'append', 'replace' or 'fail'")
