"""Keep values that templates insert into a YAML text out of the text until it is parsed.

In a file that is rendered as a whole (io_config.yaml, and files with `{%`), a password with a quote, a backslash or a
newline would break or change the YAML around it. So where a template inserts a value of `env_var`, `secret` and similar
functions that is not plain, it inserts a placeholder, which is replaced by the value in the parsed data.

Values that a template has changed (by a filter such as `tojson`, or a macro) are inserted into the text: they may be
YAML on purpose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamline.project.yamlfile import PathKey, YamlFile

# Private-use characters: not used in configurations, and valid in any YAML scalar.
_MARK = re.compile("\ue000value:(\\d+)\ue001")
_PLAIN = re.compile(r"[-+]?\w(?:[\w.+/@=:-]*\w)?|", re.ASCII)
_LIKE_A_NUMBER = re.compile(r"[-+.]*\d")


class InsertedValues:
    """The values that the expressions of a text return."""

    def __init__(self) -> None:
        self._values: list[str] = []

    def watched(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """Wrap the functions for templates so that `keep` can recognize the values that they return."""
        return {name: _watched(value) if callable(value) else _known(value) for name, value in names.items()}

    def keep(self, value: Any) -> Any:
        """Return a placeholder for a value that YAML could change. Used as Jinja's `finalize`.

        Plain words and numbers are inserted into the text, so that an unquoted port is a number.
        """
        if not isinstance(value, _Value) or _is_plain(value):
            return value
        self._values.append(str(value))
        return f"\ue000value:{len(self._values) - 1}\ue001"

    def put_back(self, file: YamlFile) -> None:
        """Replace the placeholders in a file's data by the values."""
        if self._values:
            file.data = self._filled(file.data, file, ())

    def _filled(self, data: Any, file: YamlFile, path: Sequence[PathKey]) -> Any:
        if isinstance(data, dict):
            return {self._text(key): self._filled(value, file, (*path, key)) for key, value in data.items()}
        if isinstance(data, list):
            return [self._filled(value, file, (*path, index)) for index, value in enumerate(data)]
        if not isinstance(data, str) or "\ue000" not in data:
            return data
        text = self._text(data)
        # A service account key is JSON: an unquoted placeholder becomes a mapping.
        if text.lstrip()[:1] in ("{", "[") and _MARK.fullmatch(data) and file.is_plain(path):
            try:
                return json.loads(text)
            except ValueError:
                return text
        return text

    def _text(self, text: str) -> str:
        return _MARK.sub(lambda match: self._values[int(match[1])], text)


class _Value(str):
    """Text that a function returned and no template has changed."""

    __slots__ = ()


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return _known(function(*args, **kwargs))

    return call


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_known(item) for item in value]
    return _Value(value) if type(value) is str else value


def _is_plain(text: str) -> bool:
    """Return whether YAML reads the text unchanged, with and without quotes."""
    if not _PLAIN.fullmatch(text):
        return False
    if not _LIKE_A_NUMBER.match(text):
        return True
    for kind in (int, float):  # YAML reads `1.10` and `0x1F` as numbers, whose text differs
        try:
            if str(kind(text)) == text:
                return True
        except ValueError:
            continue
    return False
