"""What `@window(…)` says, and a window as the function gets it."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from streamline.errors import ConfigError
from streamline.flow.codecs.message_data import dump_data

MICROSECONDS = 1_000_000
"""In a second. Times are whole microseconds since 1970."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MOST_SECONDS = 50_000_000_000
"""Before and after 1970: years 385 to 3554, so that a datetime can say the ends of the longest windows, too."""

_LONGEST = 100 * 366 * 86_400
_KINDS = ("tumbling", "sliding", "session")
_OTHERS = ("key", "time", "lateness", "fold", "initial", "merge")


class Window(msgspec.Struct, frozen=True):
    """A window, as the function gets it: from `start` to before `end`, which is the last message and the gap of a
    session."""

    start: dt.datetime
    end: dt.datetime


class Fold(msgspec.Struct, frozen=True):
    """How a window's messages become one value.

    Args:
        add: returns the value with one more message.
        initial: the value before the first message.
        merge: returns the value of two sessions that a message has joined, the earlier one's first.
    """

    add: Callable[[Any, Any], Any]
    initial: Any = None
    merge: Callable[[Any, Any], Any] | None = None


class WindowSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `@window(…)` says. Times are in microseconds.

    Args:
        size, step: a window of `size` begins every `step`.
        gap: a session ends so long after its last message; None: windows have a size.
        key: the field that has the message's key; None: it is not checked.
        time: the field that has the time; None: the message's own.
        lateness: a window closes so long after its end.
        fold: None: the function gets the messages.
    """

    size: int = 0
    step: int = 0
    gap: int | None = None
    key: str | None = None
    time: str | None = None
    lateness: int = 0
    fold: Fold | None = None


def window_settings(args: tuple[Any, ...], given: Mapping[str, Any], where: str) -> WindowSettings:
    """Read the arguments of `@window`.

    Raises:
        ConfigError: they are wrong.
    """

    def wrong(what: str) -> ConfigError:
        return ConfigError(
            f"@window: {what}",
            where=where,
            hint="for example @window(tumbling=60, key='user', time='at', lateness=5)",
            code="window.invalid",
        )

    def duration(name: str, value: Any, *, least: int = 1) -> int:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not least <= value * MICROSECONDS <= _LONGEST * MICROSECONDS
        ):
            raise wrong(f"{name} must be a number of seconds, at most 100 years, not {value!r}")
        return round(value * MICROSECONDS)

    kinds = [name for name in _KINDS if name in given]
    unknown = given.keys() - {*_KINDS, *_OTHERS}
    if args or unknown or len(kinds) != 1:
        raise wrong(f"it takes one of tumbling, sliding and session, and {', '.join(_OTHERS)}, by their names")
    for name in ("key", "time"):
        if not isinstance(given.get(name), str | None):
            raise wrong(f"{name} must be the name of a field")
    for name in ("fold", "merge"):
        if name in given and not callable(given[name]):
            raise wrong(f"{name} must be a function of two values, not {given[name]!r}")
    if "fold" not in given and given.keys() & {"initial", "merge"}:
        raise wrong("initial and merge belong to fold")
    if "fold" in given and kinds == ["session"] and "merge" not in given:
        raise wrong("sessions may join, so that fold needs merge: it makes one value of the values of two sessions")
    if dump_data(given.get("initial"))[1] != "json":
        raise wrong("initial has a value that JSON cannot express")
    common: dict[str, Any] = {
        "key": given.get("key"),
        "time": given.get("time"),
        "lateness": duration("lateness", given.get("lateness", 0), least=0),
        "fold": Fold(given["fold"], given.get("initial"), given.get("merge")) if "fold" in given else None,
    }
    value = given[kinds[0]]
    if kinds == ["session"]:
        return WindowSettings(gap=duration("session", value), **common)
    if kinds == ["tumbling"]:
        size = duration("tumbling", value)
        return WindowSettings(size=size, step=size, **common)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise wrong("sliding must be (size, step)")
    size, step = duration("sliding", value[0]), duration("sliding", value[1])
    if step > size:
        raise wrong("the step of sliding is larger than its size: messages between would be in no window")
    return WindowSettings(size=size, step=step, **common)


def microseconds(value: Any, name: str) -> int:
    """Return the time that a field has: ISO 8601 (UTC without an offset), a datetime, or seconds since 1970.

    Raises:
        ValueError: it has none.
    """
    time: int | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if -_MOST_SECONDS < value < _MOST_SECONDS:
            return round(value * MICROSECONDS)
        raise ValueError(f"{name} is {value!r}, and seconds since 1970 are at most {_MOST_SECONDS:,}: milliseconds?")
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            time = _since(dt.datetime.fromisoformat(value))
    elif isinstance(value, dt.datetime):
        time = _since(value)
    if time is None:
        raise ValueError(f"{name} is {value!r}: neither ISO 8601 nor seconds since 1970")
    if abs(time) >= _MOST_SECONDS * MICROSECONDS:
        raise ValueError(f"{name} is {value!r}: too far from 1970")
    return time


def message_microseconds(time: int) -> int:
    """Return a message's own time, which is in milliseconds since 1970.

    Raises:
        ValueError: it is none.
    """
    if abs(time) >= _MOST_SECONDS * 1000:
        raise ValueError(f"the message's time is {time}, which is no number of milliseconds since 1970")
    return time * 1000


def _since(time: dt.datetime) -> int:
    if time.tzinfo is None:
        time = time.replace(tzinfo=dt.UTC)
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * MICROSECONDS + since.microseconds


def as_datetime(time: int) -> dt.datetime:
    """Return microseconds since 1970 as a datetime in UTC."""
    return _EPOCH + dt.timedelta(microseconds=time)
