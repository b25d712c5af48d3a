"""What the databases share: their errors, settings from a profile, and the line of a statement that an error names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from streamline.errors import ConfigError, StreamlineError

IfExists = Literal["append", "replace", "fail"]
WRITE_POLICIES: tuple[IfExists, ...] = ("append", "replace", "fail")
Parameters = Mapping[str, Any] | Sequence[Any] | None


class DatabaseError(StreamlineError):
    """A database refused a statement, or could not be reached.

    Args:
        line: the line of the statement (from 1) that the database points at, where it does.
    """

    code = "database.failed"

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        line: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint, code=code)
        self.line = line


class TableExists(DatabaseError):
    """The table is there already, and must not be."""

    code = "database.table_exists"


def setting(config: Mapping[str, Any], *keys: str, origin: str, default: Any = None, required: bool = False) -> Any:
    """Return the first of `keys` that the profile has and that is not empty.

    Raises:
        ConfigError: none is there, and one is required.
    """
    for key in keys:
        if key in config:
            value = config[key]
            if value is not None and value != "":
                return value
    if required:
        raise ConfigError(
            f"the profile has no {keys[0]}",
            where=origin,
            hint=f"set {' or '.join(keys)} in it",
            code="profile.setting_missing",
        )
    return default


def no_tunnel(config: Mapping[str, Any], prefix: str, *, origin: str) -> None:
    """Check that the profile does not ask for an SSH tunnel, which Mage opens itself.

    Raises:
        ConfigError: it does.
    """
    method = setting(config, f"{prefix}_CONNECTION_METHOD", origin=origin, default="direct")
    if method != "direct":
        raise ConfigError(
            f"{prefix}_CONNECTION_METHOD: {method} is not supported",
            where=origin,
            hint=f"open the tunnel with ssh -L, and set {prefix}_HOST and {prefix}_PORT to its end",
            code="profile.setting_invalid",
        )


_LINE = re.compile(r"\bLINE (\d+):")


def line_of_offset(text: str, offset: int) -> int:
    """Return the line, from 1, of the character at `offset`."""
    return text.count("\n", 0, max(0, offset)) + 1


def line_of_word(text: str, match: re.Match[str] | None) -> int | None:
    """Return the line of the word that an error names, if the word stands once in the statement."""
    if match is None:
        return None
    places = list(re.finditer(rf"(?<!\w){re.escape(match[1])}(?!\w)", text))
    return line_of_offset(text, places[0].start()) if len(places) == 1 else None


def split_message(text: str) -> tuple[str, str | None, int | None]:
    """Split an error's text with `LINE n:` into its message, its hint and the line."""
    match = _LINE.search(text)
    head = (text[: match.start()] if match else text).strip()
    first, _, rest = head.partition("\n")
    return first, " ".join(rest.split()) or None, int(match[1]) if match else None
