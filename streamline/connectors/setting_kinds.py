"""Check a block's settings: each key by its kind, with the line of what is wrong.

A table of kinds (`{key: kind}`) says which keys a mapping has; a kind is a function that returns the value in its own
type, or another table for a mapping of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from streamline.errors import ConfigError
from streamline.project.suggest import suggestion
from streamline.project.yamlfile import kind_of

Kind: TypeAlias = Callable[[Any], Any]
Kinds: TypeAlias = Mapping[str, "Kind | Kinds"]
Where: TypeAlias = Callable[..., str]


class WrongValueError(Exception):
    """What a value must be, as the rest of a sentence that begins with its key."""


class Settings(dict[str, Any]):
    """The settings that are given, of one mapping, each in its own type. Those that are empty are not in it.

    Args:
        where: returns `file:line` of a path.
        path: of the mapping.
    """

    def __init__(self, where: Where, path: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._where = where
        self._path = path

    def section(self, key: str) -> Settings:
        """Return the mapping under a key; an empty one if it is not given."""
        section: Settings = self.get(key) or Settings(self._where, (*self._path, key))
        return section

    def fail(self, message: str, *path: str, hint: str | None = None, code: str = "setting.invalid") -> NoReturn:
        """Raise the error of a setting; `path` is below this mapping."""
        raise ConfigError(message, where=self._where(*self._path, *path), hint=hint, code=code)

    def need(self, key: str, why: str = "", hint: str | None = None) -> Any:
        """Return a setting that has to be there.

        Args:
            why: what it is.
            hint: what to write; None: the key.

        Raises:
            ConfigError: it is missing.
        """
        if key not in self:
            name = ".".join((*self._path, key))
            self.fail(f"`{name}` is missing{': ' + why if why else ''}", key, hint=hint or f"add `{key}:`")
        return self[key]

    def refuse_both(self, first: str, second: str, hint: str | None = None) -> None:
        """Refuse two settings of which only one can be given.

        Raises:
            ConfigError: both are given.
        """
        if first in self and second in self:
            self.fail(f"`{first}` and `{second}` exclude each other", second, hint=hint or "keep one of them")


def read_settings(
    config: Mapping[str, Any], kinds: Kinds, where: Where, *, what: str, path: tuple[str, ...] = ()
) -> Settings:
    """Check every key of a mapping.

    Args:
        what: owner of the keys in messages: `a Kafka source`.

    Raises:
        ConfigError: a key does not exist, or has a value of the wrong kind.
    """
    settings = Settings(where, path)
    for key, value in config.items():
        name = ".".join((*path, key))
        kind = kinds.get(key)
        if kind is None:
            hint = suggestion(key, kinds, what="keys")
            settings.fail(f"{what} has no setting `{name}`", key, hint=hint, code="setting.unknown")
        if value is None:
            continue
        if isinstance(kind, Mapping):
            if not isinstance(value, Mapping):
                settings.fail(f"`{name}` must be a mapping, not {kind_of(value)}", key)
            settings[key] = read_settings(value, kind, where, what=what, path=(*path, key))
            continue
        try:
            settings[key] = kind(value)
        except WrongValueError as error:
            settings.fail(f"`{name}` {error}", key)
    return settings


def key_names(kinds: Kinds) -> list[str]:
    """Return all keys of a table, those of its mappings after the mapping's own."""
    names: list[str] = []
    for key, kind in kinds.items():
        names.append(key)
        if isinstance(kind, Mapping):
            names += key_names(kind)
    return names


# --- kinds


def text(value: Any) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise WrongValueError(f"must be text, not {kind_of(value)}" if value != "" else "must not be empty")
    return value.strip()


def secret_text(value: Any) -> str:
    """Text as it is written; a number is its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise WrongValueError(f"must be text, not {kind_of(value)}")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Several texts: a list, or one text with commas."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, Sequence) or not value:
        raise WrongValueError(f"must be text or a list of texts, not {kind_of(value)}")
    return tuple(map(text, value))


def flag(value: Any) -> bool:
    """True or false."""
    if isinstance(value, str) and value.lower() in ("true", "false"):  # what a template gives
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise WrongValueError(f"must be true or false, not {kind_of(value)}")
    return value


def whole(minimum: int = 0) -> Kind:
    """A whole number, not below a minimum."""

    def check(value: Any) -> int:
        if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise WrongValueError(f"must be a whole number, {minimum} or more, not {kind_of(value)}")
        return value

    return check


def seconds(minimum: float = 0.0, *, unit: float = 1.0) -> Kind:
    """A duration above a minimum; returns seconds.

    Args:
        unit: seconds of one of its units: 0.001 for milliseconds.
    """

    def check(value: Any) -> float:
        try:
            number = float(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if isinstance(number, bool) or not isinstance(number, int | float) or not minimum <= number * unit < math.inf:
            name = "seconds" if unit == 1.0 else "milliseconds"
            raise WrongValueError(f"must be a number of {name}, {minimum / unit:g} or more, not {kind_of(value)}")
        return float(number * unit)

    return check


def choice(*choices: str, fold: Callable[[str], str] = str.lower) -> Kind:
    """One of some words, whatever their case is."""

    def check(value: Any) -> str:
        word = fold(value.strip()) if isinstance(value, str) else value
        if word not in choices:
            shown = repr(value) if isinstance(value, str) else kind_of(value)
            raise WrongValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}, not {shown}")
        return str(word)

    return check


def anything(value: Any) -> Any:
    """Any value: it is accepted for compatibility, or checked where more is known."""
    return value
