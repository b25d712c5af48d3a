"""Packages that do not come with the plain installation: imported on use, and named when they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from streamline.errors import ConfigError


def need(module: str, extra: str, what: str, *, package: str | None = None) -> Any:
    """The module, imported.

    Args:
        module: its dotted name, such as `snowflake.connector`.
        extra: the extra of Streamline's that brings it, or the packages to install if there is no such extra.
        what: what needs it, for the error.
        package: the package that holds the module, where it bears another name.

    Raises:
        ConfigError: it is not installed; the hint is the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = (error.name or "").partition(".")[0]
        if top and top != module.partition(".")[0]:
            why = f"{what} needs {package or module}, which cannot be imported: {error}"
        else:
            why = f"{what} needs {package or module.partition('.')[0]}, which is not installed"
        raise ConfigError(why, hint=f"pip install {install_name(extra)}") from error


def install_name(extra: str) -> str:
    """What `pip install` takes for an extra of ours; a list of packages is taken as it is."""
    return extra if " " in extra or "-" in extra else f"'streamline[{extra}]'"
