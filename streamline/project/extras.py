"""Import optional packages; if one is missing, tell how to install it."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from streamline.errors import ConfigError
from streamline.project.suggest import words

MAGE_MODULES = words("boto3 google psycopg2 pymysql pytz requests simplejson sqlalchemy tqdm")
"""Modules that the extra `mage` installs."""


def need(module: str, extra: str, what: str, *, package: str | None = None) -> Any:
    """Import a module.

    Args:
        module: the module's name, such as `snowflake.connector`.
        extra: Streamline's extra that installs it, such as `s3`; or `pip:` and the packages to install.
        what: the feature that needs it, for the error.
        package: the package of the module, if it has another name.

    Raises:
        ConfigError: the module cannot be imported; the hint is the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0] == module.partition(".")[0]
        why = None if missing else f"cannot be imported: {error}"
        raise _missing(module, extra, what, package, why) from error


def need_installed(module: str, extra: str, what: str) -> None:
    """Check that a module can be found, without importing it; see `need`.

    Raises:
        ConfigError: it cannot.
    """
    if importlib.util.find_spec(module) is None:
        raise _missing(module, extra, what)


def _missing(module: str, extra: str, what: str, package: str | None = None, why: str | None = None) -> ConfigError:
    packages = extra.removeprefix("pip:") if extra.startswith("pip:") else f"'streamline[{extra}]'"
    return ConfigError(
        f"{what} needs {package or module.partition('.')[0]}, which "
        f"{why or f'is not installed (no module named {module!r})'}",
        hint=f"pip install {packages}",
        code="package.missing",
    )
