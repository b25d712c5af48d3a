"""Checks values of bookmarks that operators write: a tap that is given nonsense reads nothing, and does not say so."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any

_TIME = r"[T ]\d{2}(:?\d{2}(:?\d{2}([.,]\d+)?)?)?( ?(Z|z|UTC|[+-]\d{2}(:?\d{2})?))?"
_MOMENT = rf"\d{{4}}(-\d{{2}}(-\d{{2}}({_TIME})?)?)?|\d{{8}}({_TIME})?|\d+"
_DAY = r"\d{4}-\d{2}-\d{2}"


def is_moment(text: str) -> bool:
    """Return whether a text is a date or a date and time, or the beginning of one, or a number of seconds."""
    if not re.fullmatch(_MOMENT, text.strip()):
        return False
    day = re.match(_DAY, text.strip())
    if day is None:
        return True
    try:
        date.fromisoformat(day[0])
    except ValueError:
        return False
    return True


def is_alike(old: Any, new: Any) -> bool:
    """Return whether a value may replace another: null may, text for text, a moment for a moment, and so on."""
    if old is None or new is None:
        return True
    if isinstance(old, str) and isinstance(new, str):
        return is_moment(new) or not (re.match(_DAY, old) and is_moment(old))
    return _kind(old) is _kind(new)


def unlike_member(old: Any, new: Any) -> str | None:
    """Return the name of a member of an object that is not alike in another; None if there is none."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return None
    return next((name for name in new if name in old and not is_alike(old[name], new[name])), None)


def _kind(value: Any) -> type:
    return Decimal if isinstance(value, int | float | Decimal) and not isinstance(value, bool) else type(value)
