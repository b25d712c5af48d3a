"""`execution_date`: when the run started, or the value of a variable of that name, for a backfill."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from streamline.errors import ConfigError


def execution_date(variable: Any, default: datetime) -> datetime:
    """The date that blocks get.

    Args:
        variable: the variable `execution_date`, rendered; None if there is none.
        default: when the run started.

    Returns:
        a datetime with a time zone; without one in the variable, it is UTC, as the default is.

    Raises:
        ConfigError: the variable is not a date.
    """
    moment = variable
    if variable is None:
        moment = default
    elif isinstance(variable, str):
        try:
            moment = datetime.fromisoformat(variable.strip())
        except ValueError:
            raise _invalid(variable) from None
    elif isinstance(variable, date) and not isinstance(variable, datetime):
        moment = datetime(variable.year, variable.month, variable.day)
    if not isinstance(moment, datetime):
        raise _invalid(variable)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _invalid(variable: Any) -> ConfigError:
    return ConfigError(
        f"the variable execution_date is not a date: {variable!r}",
        hint="write it like 2026-03-04 or 2026-03-04T12:00",
        code="variable.not_a_date",
    )
