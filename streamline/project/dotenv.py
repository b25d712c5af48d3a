"""Reads a project's `.env`: variables for the environment of this process, which never replace what is set there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from streamline.errors import ConfigError
from streamline.project.yamlfile import read_text

FILE = ".env"

_SPACE = r"[ \t]*"
_LINE = (
    rf"{_SPACE}(?:\#[^\n]*|"
    rf"(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.]*){_SPACE}={_SPACE}"
    r"""(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|(?P<plain>[^\s"'#][^\n]*?)?)"""
    rf"(?:{_SPACE}|[ \t]+\#[^\n]*))?(?:\n|\Z)"
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}

_from_files: dict[str, str] = {}
"""The variables of the environment that a `.env` has set, with their values."""


def load_dotenv(folder: Path) -> Mapping[str, str]:
    """Set the variables of a project's `.env` that are not set; take back those of another project's. Return all.

    Raises:
        ConfigError: the file cannot be read, or a line is not NAME=VALUE.
    """
    path = folder / FILE
    values = parse(read_text(path, shown=FILE)) if path.is_file() else {}
    for name, value in _from_files.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    _from_files.clear()
    for name, value in values.items():
        if name not in os.environ:
            os.environ[name] = _from_files[name] = value
    return values


def parse(text: str) -> dict[str, str]:
    """Return the variables in the text of a `.env`; of a name that is given twice, the last value.

    Raises:
        ConfigError: a line is not NAME=VALUE. The message does not quote it: it may hold a secret.
    """
    line = re.compile(_LINE, re.DOTALL)  # compiled here: most projects have no such file
    text = text.replace("\r\n", "\n")
    values: dict[str, str] = {}
    place = 0
    while place < len(text):
        match = line.match(text, place)
        if match is None or "\0" in match[0]:
            raise ConfigError(
                "this line is not NAME=VALUE",
                where=f"{FILE}:{text.count(chr(10), 0, place) + 1}",
                hint="put a value with quotes, '#' or several lines in double quotes",
                code="env_file.invalid_line",
            )
        place = match.end()
        if match["name"] is not None:
            double = match["double"]
            values[match["name"]] = (
                _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[0]), double)
                if double is not None
                else match["single"] or match["plain"] or ""
            )
    return values
