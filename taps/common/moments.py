"""Convert dates and times from the forms found in SQLite and CSV to JSON Schema's `date` and `date-time`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

_DATE = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])")
_MOMENT = re.compile(
    r"(\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]))"
    r"(?:[ Tt]((?:[01]\d|2[0-3]):[0-5]\d)(:[0-5]\d(?:\.\d+)?)? ?([Zz]|[+-]\d\d(?::?\d\d)?)?)?"
)

_FRACTION = re.compile(r"\.(\d+)")


def is_date(text: str) -> bool:
    """Return whether the text is a date of the calendar without a time, such as `2026-01-31`."""
    return _DATE.fullmatch(text) is not None and _is_in_calendar(text)


def _is_in_calendar(day: str) -> bool:
    """Return whether the year and the month have this day, which may still be the 30th of February."""
    if day[8:] <= "28" and day[:4] != "0000":
        return True
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True


def date_time(text: str) -> str | None:
    """Return the timestamp in RFC 3339 form, or None. Without a zone it is UTC, without a time midnight.

    >>> date_time("2026-01-31 10:00"), date_time("2026-01-31T10:00:00.5+0200"), date_time("soon")
    ('2026-01-31T10:00:00Z', '2026-01-31T10:00:00.5+02:00', None)
    """
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    day, minutes, seconds, zone = match.groups()
    if not _is_in_calendar(day):
        return None
    if minutes is None:
        return f"{day}T00:00:00Z"
    if zone is None or zone in "Zz":
        zone = "Z"
    elif len(zone) == 3:
        zone += ":00"
    elif len(zone) == 5:
        zone = f"{zone[:3]}:{zone[3:]}"
    return f"{day}T{minutes}{seconds or ':00'}{zone}"


def dates(column: Sequence[str | None]) -> tuple[list[str | None], bool]:
    """Return the values of a date column; the flag says whether all of them are dates.

    A moment at midnight, which SQLite's users also store in DATE columns, is its date.
    """
    values: list[str | None] = []
    fit = True
    for text in column:
        day = text
        if isinstance(text, str) and not is_date(text):
            if text[10:] in (" 00:00:00", "T00:00:00") and is_date(text[:10]):
                day = text[:10]
            else:
                fit = False
        values.append(day)
    return values, fit


def date_times(column: Sequence[str | None]) -> tuple[list[str | None], bool]:
    """Return the values of a date-time column, and whether all are timestamps; others stay unchanged."""
    values: list[str | None] = []
    fit = True
    for text in column:
        if isinstance(text, str):
            moment = date_time(text)
            if moment is None:
                fit = False
                moment = text
            values.append(moment)
        else:
            values.append(text)
    return values, fit


def moment_key(value: Any) -> Any:
    """Return a text that sorts as the timestamp does, whatever its spelling; any other value as it is.

    >>> moment_key("2026-01-31 10:00"), moment_key("2026-01-31T12:00:00.5+02:00")
    ('2026-01-31T10:00:00.000000000', '2026-01-31T10:00:00.500000000')
    """
    moment = date_time(value) if isinstance(value, str) else None
    if moment is None:
        return value
    fraction = _FRACTION.search(moment)
    whole = moment if fraction is None else moment[: fraction.start()] + moment[fraction.end() :]
    try:
        utc = datetime.fromisoformat(whole).astimezone(UTC)
    except (ValueError, OverflowError):
        return value
    return f"{utc.isoformat()[:19]}.{fraction[1] if fraction else '':0<9}"


def like(moment: str, sample: str) -> str:
    """Return a moment in the form of a sample, for comparing texts: whole seconds, rounded down, in UTC, no zone.

    It sorts before every text of the sample's form that means the same moment or a later one.
    """
    normalised = date_time(moment)
    if normalised is None:
        return moment
    try:
        utc = datetime.fromisoformat(normalised).astimezone(UTC)
    except (ValueError, OverflowError):
        return moment
    if len(sample) <= 10:
        return utc.strftime("%Y-%m-%d")
    return utc.strftime(f"%Y-%m-%d{sample[10]}%H:%M:%S")
