"""`execution_date`: when the run began, or what a variable of that name says instead, for a backfill."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from streamline.errors import ConfigError


def execution_date(given: Any, default: datetime) -> datetime:
    """The date that blocks are told.

    Args:
        given: the variable `execution_date`, rendered; None where there is none.
        default: when the run began.

    Returns:
        a moment with a time zone; one that is given without is UTC, as the default is.

    Raises:
        ConfigError: it is no date.
    """
    moment = given
    if given is None:
        moment = default
    elif isinstance(given, str):
        try:
            moment = datetime.fromisoformat(given.strip())
        except ValueError:
            raise _wrong(given) from None
    elif isinstance(given, date) and not isinstance(given, datetime):
        moment = datetime(given.year, given.month, given.day)
    if not isinstance(moment, datetime):
        raise _wrong(given)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _wrong(given: Any) -> ConfigError:
    return ConfigError(
        f"the variable execution_date is no date: {given!r}", hint="write it like 2026-03-04 or 2026-03-04T12:00"
    )
