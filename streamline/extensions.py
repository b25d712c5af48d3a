"""What other installed packages add: objects by their entry points, loaded when they are used."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from streamline.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Expected = TypeVar("Expected")


@functools.cache
def extensions(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name. Reads the metadata of every installed package: call it seldom."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}


def load_extension(group: str, name: str, expected: type[Expected]) -> Expected | None:
    """Return the object that an installed package registers under this name; None where none does.

    Raises:
        ConfigError: it cannot be imported, or is of another type.
    """
    point = extensions(group).get(name)
    if point is None:
        return None
    where = f"entry point {name} of {group}" + (f", package {point.dist.name}" if point.dist is not None else "")
    try:
        loaded = point.load()
    except Exception as error:
        raise ConfigError(
            f"{point.value} cannot be imported: {type(error).__name__}: {error}",
            where=where,
            hint="update or uninstall that package",
            code="extension.import_failed",
        ) from error
    if not isinstance(loaded, expected):
        raise ConfigError(
            f"{point.value} must be a {expected.__name__}, not {type(loaded).__name__}",
            where=where,
            hint="update or uninstall that package",
            code="extension.wrong_type",
        )
    return loaded


def load_object(target: str) -> Any:
    """Import `package.module:attribute`."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
