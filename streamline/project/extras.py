"""Import optional packages; if one is missing, tell how to install it."""

from __future__ import annotations

import importlib
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
        packages = extra.removeprefix("pip:") if extra.startswith("pip:") else f"'streamline[{extra}]'"
        top = module.partition(".")[0]
        missing = (error.name or top).partition(".")[0] == top
        why = f"is not installed (no module named '{module}')" if missing else f"cannot be imported: {error}"
        raise ConfigError(
            f"{what} needs {package or top}, which {why}", hint=f"pip install {packages}", code="package.missing"
        ) from error
